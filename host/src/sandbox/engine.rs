//! The single configuration of Wasmtime, for everything that compiles, loads or calls components.

use std::io;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The stack that a guest may use. A guest's own shadow stack, in its linear memory, usually ends earlier.
const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// Guest and host frames share one stack, so this leaves 1.5 MiB for host calls. The memory is virtual until it is
/// touched.
const ASYNC_STACK_BYTES: usize = 2 << 20;
/// The bytes of a freed memory whose pages are kept, and reset by copying instead of by `madvise`. This saves
/// page-table work, which otherwise keeps two threads from scaling: there were 18,500 calls a second without it, and
/// 148,000 with it.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 2 << 20;
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
const STACK_KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// This is also the limit for all tables of a call together.
pub(super) const MAX_TABLE_ELEMENTS: usize = 64 << 10;
/// The most memories of a component. An instance takes as many permits of the pool as it has memories, so this lets a
/// composed component fit and keeps a hostile one from draining the pool.
pub(super) const MAX_MEMORIES_PER_COMPONENT: u32 = 8;
/// A Python component without its WASI (`componentize-py --stub-wasi`) has 38.
pub(super) const MAX_CORE_INSTANCES_PER_COMPONENT: u32 = 64;

/// Where instances get their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// A pool that keeps pages resident, by far the fastest. It becomes [`Allocation::PoolDefaults`] on a kernel
    /// without `PAGEMAP_SCAN` (before 6.7), and [`Allocation::OnDemand`] if the system refuses the address space.
    Pool,
    /// A pool with Wasmtime's own settings.
    PoolDefaults,
    /// Memory that is mapped for each instance, with explicit bounds checks. It is slow, and works under any
    /// `ulimit -v`.
    OnDemand,
}

/// Starts the engine, and returns the allocation that the machine allows.
pub(super) fn start(
    wanted: Allocation,
    max_instances: u32,
    tick: Duration,
) -> wasmtime::Result<(Engine, Allocation)> {
    let mut last = None;
    for allocation in [Allocation::Pool, Allocation::PoolDefaults, Allocation::OnDemand] {
        // Allocations are tried from the wanted one downwards.
        if (allocation as u8) < (wanted as u8) {
            continue;
        }
        match Engine::new(&config(allocation, max_instances)) {
            Ok(engine) => {
                if let Some(error) = last {
                    tracing::warn!(
                        allocation = ?allocation,
                        error = format!("{error:#}"),
                        "the sandbox allocates instances in a slower way: {}",
                        match allocation {
                            Allocation::PoolDefaults => "the kernel has no PAGEMAP_SCAN (it came with 6.7)",
                            _ => "the system refuses the pool's address space; check `ulimit -v`",
                        }
                    );
                }
                start_ticker(&engine, tick)?;
                return Ok((engine, allocation));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("the loop always tries on-demand allocation last"))
}

/// Makes an engine that compiles for the engines of [`start`]. It reserves no address space, so it can't run instances.
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

/// Sets everything that decides what code looks like. Whether instances come from a pool doesn't matter for that.
fn config_of_code(allocation: Allocation) -> Config {
    let mut config = Config::new();
    config
        // A guest's budget ends at the same point on every host.
        .consume_fuel(true)
        // Guests yield to the executor at every tick. So a guest that spins can be dropped and starves nobody.
        .epoch_interruption(true)
        .wasm_component_model_map(true)
        // A step's answer and cost are the same on every host.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(MAX_WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES);
    if allocation == Allocation::OnDemand {
        // Nothing is reserved: a system that refuses the pool's address space also refuses 4 GiB for an instance.
        config.memory_reservation(0).memory_guard_size(64 << 10);
    }
    config
}

/// Makes slots for `max_instances` components. A slot is address space (4 GiB for a memory) and not memory; `Limits`
/// bounds the memory that a call may use.
fn pool(max_instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_instances)
        .total_memories(max_instances)
        .total_tables(2 * max_instances)
        .table_elements(MAX_TABLE_ELEMENTS)
        .total_stacks(max_instances)
        // Core instances are counted but not reserved, so the pool never runs out of them first.
        .total_core_instances(max_instances.saturating_mul(MAX_CORE_INSTANCES_PER_COMPONENT))
        .max_core_instances_per_component(MAX_CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MAX_MEMORIES_PER_COMPONENT)
        .max_tables_per_component(2 * MAX_MEMORIES_PER_COMPONENT);
    pool
}

/// Raises the epoch until the engine is gone. This takes a thread of its own, because guests occupy the executor's
/// threads.
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
