//! Wasmtime alone: the same function on engines made here, and a loop.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker, ResourceTable, Val};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::Failure;

pub(crate) const FUEL: u64 = 1_000_000_000;
const INSTANCES: u32 = 1_000;
const TICK: Duration = Duration::from_millis(5);

/// Which of the host's settings an engine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) fuel: bool,
    pub(crate) epochs: bool,
}

impl Settings {
    /// All of the host's settings.
    pub(crate) const BOTH: Self = Self { fuel: true, epochs: true };
}

/// Makes an engine like `sandbox::engine` with the tuned pool, except for `settings`.
pub(crate) fn engine(settings: Settings) -> Result<Engine, Failure> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(2 * INSTANCES)
        .table_elements(64 << 10)
        .total_stacks(INSTANCES)
        .total_core_instances(32 * INSTANCES)
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Yes);
    let mut config = Config::new();
    config
        .consume_fuel(settings.fuel)
        .epoch_interruption(settings.epochs)
        .wasm_component_model_map(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config)?;
    let ticked = engine.weak();
    thread::spawn(move || {
        while let Some(engine) = ticked.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    });
    Ok(engine)
}

struct Bare {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// `orders.validate`, with an order that is ready.
#[derive(Clone)]
pub(crate) struct Validate {
    settings: Settings,
    pre: InstancePre<Bare>,
    function: ComponentExportIndex,
    params: Arc<[Val; 1]>,
}

/// How the time of a call is distributed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) store: Duration,
    pub(crate) instance: Duration,
    pub(crate) call: Duration,
    pub(crate) drop: Duration,
}

impl Validate {
    pub(crate) fn new(engine: &Engine, settings: Settings, bytes: &[u8]) -> Result<Self, Failure> {
        let component = Component::from_binary(engine, bytes)?;
        let mut linker = Linker::<Bare>::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        // The host's own interface, which this function never calls.
        linker.define_unknown_imports_as_traps(&component)?;
        let pre = linker.instantiate_pre(&component)?;
        let interface =
            component.get_export_index(None, "ecommerce:orders/orders@0.1.0").ok_or("no interface")?;
        let function = component.get_export_index(Some(&interface), "validate").ok_or("no function")?;
        Ok(Self { settings, pre, function, params: Arc::new([order()]) })
    }

    pub(crate) async fn call(self) -> Result<Parts, Failure> {
        let began = Instant::now();
        let state = Bare { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = limited(Store::new(self.pre.engine(), state), self.settings)?;
        let made = Instant::now();
        let instance = self.pre.instantiate_async(&mut store).await?;
        let ready = Instant::now();
        let function = instance.get_func(&mut store, self.function).ok_or("no function")?;
        let mut results = [Val::Bool(false)];
        function.call_async(&mut store, &*self.params, &mut results).await?;
        let called = Instant::now();
        if !matches!(results[0], Val::Result(Ok(_))) {
            return Err(format!("unexpected answer: {:?}", results[0]).into());
        }
        drop(store);
        Ok(Parts {
            store: made - began,
            instance: ready - made,
            call: called - ready,
            drop: called.elapsed(),
        })
    }
}

/// How often the loop turns.
const TURNS: i32 = 1_000_000;

/// `(func (export "turn") (param i32) (result i32))`: adds up the numbers from the argument down to 1. A turn does so
/// little that anything counted at its end costs as much as it can. The bytes are written by hand, because there is no
/// assembler here.
#[rustfmt::skip]
const LOOP: [u8; 59] = [
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // "\0asm", version 1
    0x01, 0x06, 0x01, 0x60, 0x01, 0x7f, 0x01, 0x7f, // type 0: i32 -> i32
    0x03, 0x02, 0x01, 0x00, // function 0 is of type 0
    0x07, 0x08, 0x01, 0x04, b't', b'u', b'r', b'n', 0x00, 0x00, // export "turn"
    0x0a, 0x1b, 0x01, 0x19, // code: one body
    0x01, 0x01, 0x7f, // one local, i32
    0x03, 0x40, // loop
    0x20, 0x01, 0x20, 0x00, 0x6a, 0x21, 0x01, // local 1 + local 0, to local 1
    0x20, 0x00, 0x41, 0x01, 0x6b, 0x22, 0x00, // local 0 - 1, to local 0
    0x0d, 0x00, // again if it isn't 0
    0x0b, // end of loop
    0x20, 0x01, // local 1
    0x0b, // end of body
];

/// A guest that only computes.
#[derive(Clone)]
pub(crate) struct Loop {
    settings: Settings,
    pre: wasmtime::InstancePre<()>,
}

impl Loop {
    pub(crate) fn new(engine: &Engine, settings: Settings) -> Result<Self, Failure> {
        let module = Module::from_binary(engine, &LOOP)?;
        Ok(Self { settings, pre: wasmtime::Linker::new(engine).instantiate_pre(&module)? })
    }

    pub(crate) async fn call(self) -> Result<(), Failure> {
        let mut store = limited(Store::new(self.pre.module().engine(), ()), self.settings)?;
        let instance = self.pre.instantiate_async(&mut store).await?;
        let function = instance.get_typed_func::<i32, i32>(&mut store, "turn")?;
        std::hint::black_box(function.call_async(&mut store, TURNS).await?);
        Ok(())
    }
}

fn limited<T: Send + 'static>(mut store: Store<T>, settings: Settings) -> Result<Store<T>, Failure> {
    if settings.fuel {
        store.set_fuel(FUEL)?;
    }
    if settings.epochs {
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
    }
    Ok(store)
}

fn order() -> Val {
    let text = |text: &str| Val::String(text.into());
    let some = |val: Val| Val::Option(Some(Box::new(val)));
    let record =
        |fields: Vec<(&str, Val)>| Val::Record(fields.into_iter().map(|(n, v)| (n.into(), v)).collect());
    record(vec![
        ("order-id", text("ORD-001")),
        ("customer-id", text("CUST-123")),
        (
            "items",
            Val::List(vec![record(vec![
                ("product-id", text("PROD-A")),
                ("quantity", Val::S32(2)),
                ("price", Val::Float64(99.99)),
            ])]),
        ),
        ("metadata", some(Val::Map(vec![(text("channel"), text("web"))]))),
        ("payment-method", some(text("card"))),
        ("ship-to", some(text("12 Main St"))),
    ])
}
