//! The one configuration of Wasmtime for everything that compiles, loads or calls components.

use std::io;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How much stack a guest may use; its own shadow stack, in its linear memory, usually ends earlier.
const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// Guest and host frames run on one stack: this leaves 1.5 MiB to host calls. Virtual until it is touched.
const ASYNC_STACK_BYTES: usize = 2 << 20;
/// A freed memory keeps so many bytes of pages, which are reset by copying instead of by `madvise`. The page-table work
/// that this saves is what keeps two threads from scaling: 18,500 calls a second without, 148,000 with.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 2 << 20;
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
const STACK_KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Also the limit of all tables of a call together.
pub(super) const MAX_TABLE_ELEMENTS: usize = 64 << 10;
/// What one component may take of the pool, so that a composed one fits and a hostile one can't drain it: an instance
/// takes as many permits as it has memories.
pub(super) const MAX_MEMORIES_PER_COMPONENT: u32 = 8;
/// A Python component without its WASI (`componentize-py --stub-wasi`) has 38.
pub(super) const MAX_CORE_INSTANCES_PER_COMPONENT: u32 = 64;

/// Where instances get their memory from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// A pool that keeps pages resident, the fastest by far; [`Allocation::PoolDefaults`] on a kernel without
    /// `PAGEMAP_SCAN` (before 6.7), [`Allocation::OnDemand`] where the address space is refused.
    Pool,
    /// A pool with Wasmtime's own settings.
    PoolDefaults,
    /// Mapped for each instance, with explicit bounds checks: slow, and works under any `ulimit -v`.
    OnDemand,
}

/// The engine, and what the machine allowed it to be.
pub(super) fn start(
    wanted: Allocation,
    max_instances: u32,
    tick: Duration,
) -> wasmtime::Result<(Engine, Allocation)> {
    let mut last = None;
    for allocation in [Allocation::Pool, Allocation::PoolDefaults, Allocation::OnDemand] {
        // Down from what is wanted, never up.
        if (allocation as u8) < (wanted as u8) {
            continue;
        }
        match Engine::new(&config(allocation, max_instances)) {
            Ok(engine) => {
                if let Some(error) = last {
                    tracing::warn!(
                        allocation = ?allocation,
                        error = format!("{error:#}"),
                        "instances are allocated in a slower way: {}",
                        match allocation {
                            Allocation::PoolDefaults => "the kernel has no PAGEMAP_SCAN (it came with 6.7)",
                            _ => "the pool's address space is refused (`ulimit -v`?)",
                        }
                    );
                }
                start_ticker(&engine, tick)?;
                return Ok((engine, allocation));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("the loop ends with on-demand allocation, which every wish includes"))
}

/// An engine that makes code for those of [`start`], and is no place for instances: it takes no address space.
pub(super) fn for_compiling(allocation: Allocation) -> wasmtime::Result<Engine> {
    let mut config = config_of_code(allocation);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

fn config(allocation: Allocation, max_instances: u32) -> Config {
    let mut config = config_of_code(allocation);
    config.allocation_strategy(match allocation {
        Allocation::Pool => {
            let mut pool = pool(max_instances);
            pool.linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
                .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
                .async_stack_keep_resident(STACK_KEEP_RESIDENT_BYTES)
                .pagemap_scan(Enabled::Yes);
            InstanceAllocationStrategy::Pooling(pool)
        }
        Allocation::PoolDefaults => InstanceAllocationStrategy::Pooling(pool(max_instances)),
        Allocation::OnDemand => InstanceAllocationStrategy::OnDemand,
    });
    config
}

/// All that decides what code looks like. Whether a pool holds the instances doesn't.
fn config_of_code(allocation: Allocation) -> Config {
    let mut config = Config::new();
    config
        // Where a guest's budget ends is the same on every host.
        .consume_fuel(true)
        // Guests yield to the executor at every tick, so that one that spins can be dropped and starves nobody.
        .epoch_interruption(true)
        .wasm_component_model_map(true)
        // A step's answer and cost are the same on every host.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(MAX_WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES);
    if allocation == Allocation::OnDemand {
        // No reservation: whoever refuses the pool's address space refuses 4 GiB an instance as well.
        config.memory_reservation(0).memory_guard_size(64 << 10);
    }
    config
}

/// Slots for `max_instances` components. A slot is address space (4 GiB for a memory), not memory: `Limits` says how much
/// of it a call may use.
fn pool(max_instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_instances)
        .total_memories(max_instances)
        .total_tables(2 * max_instances)
        .table_elements(MAX_TABLE_ELEMENTS)
        .total_stacks(max_instances)
        // Core instances are counted, not reserved: the pool never ends here first.
        .total_core_instances(max_instances.saturating_mul(MAX_CORE_INSTANCES_PER_COMPONENT))
        .max_core_instances_per_component(MAX_CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MAX_MEMORIES_PER_COMPONENT)
        .max_tables_per_component(2 * MAX_MEMORIES_PER_COMPONENT);
    pool
}

/// Raises the epoch until the engine is gone. A thread of its own, since the executor's threads are what guests occupy.
fn start_ticker(engine: &Engine, tick: Duration) -> io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("epoch".into()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(tick);
        }
    })?;
    Ok(())
}
