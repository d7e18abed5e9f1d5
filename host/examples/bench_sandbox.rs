//! What a call costs: instance, conversion, the call, and the end of it all (`cargo xtask bench sandbox`).
//!
//! The step is `orders.validate` with a small order, one instance a call, on one thread and on two. *Floor* is the same
//! function called through Wasmtime alone, with ready-made values and nothing captured or converted, on the same engine.
//! The last line is one JSON object, for programs.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aster_core::id::{TenantId, WorkflowId};
use aster_host::sandbox::{
    Allocation, Call, Context, Direction, FunctionHandle, InMemory, Limits, Loaded, Options, Sandbox, Session,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker, ResourceTable, Val};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

const FUEL: u64 = 1_000_000_000;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(3);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let folder = std::env::var_os("ASTER_COMPONENTS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/components")),
        PathBuf::from,
    );
    let path = folder.join("orders.wasm");
    let bytes: Bytes = std::fs::read(&path)
        .map_err(|error| format!("{}: {error}: run `cargo xtask build` first", path.display()))?
        .into();

    println!("{:<28} {:>7} {:>10} {:>9} {:>9} {:>9}", "", "threads", "calls/s", "cpu us", "p50 us", "p99 us");
    let mut rows = Vec::new();
    for (name, allocation) in [
        ("pool, tuned", Allocation::Pool),
        ("pool, defaults", Allocation::PoolDefaults),
        ("on demand", Allocation::OnDemand),
    ] {
        let sandbox = Sandbox::new(Options { allocation, ..Options::default() })?;
        if sandbox.allocation() != allocation {
            println!("{name:<28} not allowed by this machine");
            continue;
        }
        for threads in [1, 2] {
            let runtime =
                runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
            let floor = runtime.block_on(measure_floor(&sandbox, &bytes, threads))?;
            let whole = runtime.block_on(measure_calls(&sandbox, &bytes, threads))?;
            whole.print(name, threads);
            floor.print(&format!("  floor of {name}"), threads);
            rows.push(json!({
                "name": name,
                "concurrency": threads,
                "per_second": whole.per_second().round(),
                "p50_ms": whole.percentile(50) * 1e3,
                "p99_ms": whole.percentile(99) * 1e3,
                "cpu_us": whole.cpu_per_call() * 1e6,
                "floor_per_second": floor.per_second().round(),
                "ratio": (whole.per_second() / floor.per_second() * 1e3).round() / 1e3,
            }));
        }
    }
    println!("{}", json!({ "bench": "sandbox", "rows": rows }));
    Ok(())
}

/// The length of each call, and of all.
struct Measured {
    sorted: Vec<Duration>,
    elapsed: Duration,
    /// Of all threads, with the warm-up.
    cpu: Duration,
    calls_with_warm_up: usize,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.sorted.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// In seconds; unlike calls a second, not worse for what else the machine does.
    fn cpu_per_call(&self) -> f64 {
        self.cpu.as_secs_f64() / self.calls_with_warm_up as f64
    }

    /// In seconds.
    fn percentile(&self, percent: usize) -> f64 {
        self.sorted[(self.sorted.len() - 1) * percent / 100].as_secs_f64()
    }

    fn print(&self, name: &str, threads: usize) {
        println!(
            "{name:<28} {threads:>7} {:>10.0} {:>9.1} {:>9.1} {:>9.1}",
            self.per_second(),
            self.cpu_per_call() * 1e6,
            self.percentile(50) * 1e6,
            self.percentile(99) * 1e6,
        );
    }
}

/// Runs `call` over and over on so many tasks at once.
async fn measure<F>(
    threads: usize,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> Result<Measured, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let began = Instant::now();
    let cpu_before = cpu_time()?;
    let tasks: Vec<_> = (0..threads)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                let mut calls = 0;
                while began.elapsed() < WARM_UP + MEASURE {
                    let start = Instant::now();
                    call().await?;
                    calls += 1;
                    if began.elapsed() > WARM_UP {
                        taken.push(start.elapsed());
                    }
                }
                Ok::<_, Failure>((taken, calls))
            })
        })
        .collect();
    let mut sorted = Vec::new();
    let mut calls_with_warm_up = 0;
    for task in tasks {
        let (taken, calls) = task.await??;
        sorted.extend(taken);
        calls_with_warm_up += calls;
    }
    let cpu = cpu_time()?.saturating_sub(cpu_before);
    sorted.sort_unstable();
    Ok(Measured { sorted, elapsed: MEASURE, cpu, calls_with_warm_up })
}

/// What this process has used of the processors: the 14th and 15th fields of `/proc/self/stat` (proc(5)), in hundredths
/// of a second.
fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(ticks.sum::<Result<u64, _>>()? * 10))
}

async fn measure_calls(sandbox: &Sandbox, bytes: &Bytes, threads: usize) -> Result<Measured, Failure> {
    let loaded = sandbox.compile(bytes.clone()).await?;
    let function = loaded.find(None, "validate")?;
    let order = Arc::new([json!({
        "orderId": "ORD-001",
        "customerId": "CUST-123",
        "items": [{ "productId": "PROD-A", "quantity": 2, "price": 99.99 }],
        "metadata": { "channel": "web" },
        "paymentMethod": "card",
        "shipTo": "12 Main St",
    })]);
    let reader = Arc::new(InMemory::default());
    let sandbox = sandbox.clone();
    measure(threads, move || {
        let session = Session::new(TenantId::default(), reader.clone());
        call_once(sandbox.clone(), loaded.clone(), function, order.clone(), session)
    })
    .await
}

async fn call_once(
    sandbox: Sandbox,
    loaded: Arc<Loaded>,
    function: FunctionHandle,
    args: Arc<[Value; 1]>,
    session: Session,
) -> Result<(), Failure> {
    let call = Call {
        loaded: &loaded,
        function,
        component: "orders".into(),
        args: &*args,
        limits: Limits {
            fuel: FUEL,
            memory_bytes: 64 << 20,
            deadline: Instant::now() + Duration::from_secs(30),
        },
        context: Context {
            workflow_id: WorkflowId(uuid::Uuid::nil()),
            definition: "bench".into(),
            step: "validate_order".into(),
            attempt: 1,
            deadline: None,
            tenant: TenantId::default(),
            call_number: 1,
            direction: Direction::Forward,
        },
        session: &session,
    };
    let report = sandbox.call(call).await?;
    match report.outcome {
        Ok(value) if value["total"] == 19_998 => Ok(()),
        other => Err(format!("unexpected answer: {other:?}").into()),
    }
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

async fn measure_floor(sandbox: &Sandbox, bytes: &Bytes, threads: usize) -> Result<Measured, Failure> {
    let engine = sandbox.engine();
    let component = Component::from_binary(engine, bytes)?;
    let mut linker = Linker::<Bare>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // Ours, which this function never calls.
    linker.define_unknown_imports_as_traps(&component)?;
    let pre = linker.instantiate_pre(&component)?;
    let interface =
        component.get_export_index(None, "ecommerce:orders/orders@0.1.0").ok_or("no interface")?;
    let function = component.get_export_index(Some(&interface), "validate").ok_or("no function")?;
    let params = Arc::new([order()]);
    measure(threads, move || floor_once(pre.clone(), function, params.clone())).await
}

async fn floor_once(
    pre: InstancePre<Bare>,
    function: ComponentExportIndex,
    params: Arc<[Val; 1]>,
) -> Result<(), Failure> {
    let state = Bare { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
    let mut store = Store::new(pre.engine(), state);
    store.set_fuel(FUEL)?;
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    let instance = pre.instantiate_async(&mut store).await?;
    let function = instance.get_func(&mut store, function).ok_or("no function")?;
    let mut results = [Val::Bool(false)];
    function.call_async(&mut store, &*params, &mut results).await?;
    match &results[0] {
        Val::Result(Ok(_)) => Ok(()),
        other => Err(format!("unexpected answer: {other:?}").into()),
    }
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
