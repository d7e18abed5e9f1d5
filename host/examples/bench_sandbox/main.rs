//! The cost of a call: instance, conversion, the call itself, and the end of the instance
//! (`cargo xtask bench sandbox`).
//!
//! The step is `orders.validate` with a small order, with one instance for each call, on one thread and on two. Beside
//! it, the same function is called through Wasmtime alone, with ready-made values and without capture or conversion: on
//! the same engine, and on engines that lack fuel, or epochs, or both. Those cost most when a guest computes, so the
//! same engines also run a loop.
//!
//! All subjects take turns, round after round, and a figure is the median of its rounds. So anything else that the
//! machine does affects all alike. This prints one JSON array of rows.

#![expect(clippy::print_stdout, reason = "its result is what it is for")]

mod bare;
mod measure;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aster_core::id::{TenantId, WorkflowId};
use aster_host::sandbox::{Allocation, Call, FunctionHandle, Loaded, Options, Sandbox};
use aster_runner::call::{CallLimits, Context, Direction};
use aster_runner::session::{InMemory, Session};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

use bare::{FUEL, Loop, Parts, Settings, Validate};
use measure::{Subject, median};

const ROUNDS: usize = 3;

type Failure = Box<dyn Error + Send + Sync>;

/// Through the host's sandbox, and through the same engine without it.
const CALLS: [(Allocation, &str, &str); 3] = [
    (Allocation::Pool, "a call, tuned pool", "alone, tuned pool"),
    (Allocation::PoolDefaults, "a call, default pool", "alone, default pool"),
    (Allocation::OnDemand, "a call, on demand", "alone, on demand"),
];

/// Engines made here, with the tuned pool.
const ENGINES: [(Settings, &str, &str); 4] = [
    (Settings::BOTH, "alone, fuel and epochs", "a loop, fuel and epochs"),
    (Settings { fuel: false, epochs: true }, "alone, no fuel", "a loop, no fuel"),
    (Settings { fuel: true, epochs: false }, "alone, no epochs", "a loop, no epochs"),
    (Settings { fuel: false, epochs: false }, "alone, neither", "a loop, neither"),
];

/// The comparisons: the name of a row, its subject, and the floor's.
const ROWS: [(&str, &str, &str); 10] = [
    ("a call, tuned pool", "a call, tuned pool", "alone, tuned pool"),
    ("a call, default pool", "a call, default pool", "alone, default pool"),
    ("a call, on demand", "a call, on demand", "alone, on demand"),
    ("with a pool", "a call, tuned pool", "a call, on demand"),
    ("with fuel", "alone, fuel and epochs", "alone, no fuel"),
    ("with epochs", "alone, fuel and epochs", "alone, no epochs"),
    ("with both", "alone, fuel and epochs", "alone, neither"),
    ("a loop with fuel", "a loop, fuel and epochs", "a loop, no fuel"),
    ("a loop with epochs", "a loop, fuel and epochs", "a loop, no epochs"),
    ("a loop with both", "a loop, fuel and epochs", "a loop, neither"),
];

fn main() -> Result<(), Failure> {
    let folder = std::env::var_os("ASTER_COMPONENTS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/components")),
        PathBuf::from,
    );
    let path = folder.join("orders.wasm");
    let bytes: Bytes = std::fs::read(&path)
        .map_err(|error| format!("{}: {error}: run `cargo xtask build` first", path.display()))?
        .into();
    let runtimes = [1, 2].map(|threads| (threads, runtime(threads)));

    let mut subjects = Vec::new();
    for (allocation, call, alone) in CALLS {
        let sandbox = Sandbox::new(Options { allocation, ..Options::default() })?;
        if sandbox.allocation() != allocation {
            // This machine doesn't allow the subject, so its rows are left out.
            continue;
        }
        let validate = Validate::new(sandbox.engine(), Settings::BOTH, &bytes)?;
        subjects.push(Subject::new(alone, move || discard(validate.clone().call())));
        subjects.push(runtimes[0].1.block_on(step(call, sandbox, bytes.clone()))?);
    }
    let mut parts = None;
    for (settings, call, turn) in ENGINES {
        let engine = bare::engine(settings)?;
        let validate = Validate::new(&engine, settings, &bytes)?;
        parts.get_or_insert(validate.clone());
        subjects.push(Subject::new(call, move || discard(validate.clone().call())));
        let turns = Loop::new(&engine, settings)?;
        subjects.push(Subject::new(turn, move || turns.clone().call()));
    }
    for _ in 0..ROUNDS {
        for (threads, runtime) in &runtimes {
            subjects.iter_mut().try_for_each(|subject| subject.round(runtime, *threads))?;
        }
    }

    let mut rows = Vec::new();
    for row in ROWS {
        rows.extend(runtimes.iter().filter_map(|(threads, _)| compared(&subjects, row, *threads)));
    }
    if let Some(validate) = parts {
        rows.extend(runtimes[0].1.block_on(taken_apart(&subjects, validate))?);
    }
    println!("{}", Value::Array(rows));
    Ok(())
}

fn runtime(threads: usize) -> Runtime {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    runtime.expect("a runtime can be made")
}

fn compared(
    subjects: &[Subject],
    (name, subject, floor): (&str, &str, &str),
    threads: usize,
) -> Option<Value> {
    let find = |name| subjects.iter().find(|subject| subject.name == name);
    let (measured, least) = (find(subject)?.measured(threads), find(floor)?.measured(threads));
    Some(json!({
        "name": name,
        "concurrency": threads,
        "per_second": measured.per_second.round(),
        "cpu_us": rounded(measured.cpu * 1e6, 2),
        "p50_ms": rounded(measured.p50 * 1e3, 4),
        "p99_ms": rounded(measured.p99 * 1e3, 4),
        "floor": floor,
        "floor_per_second": least.per_second.round(),
        "ratio": rounded(measured.per_second / least.per_second, 3),
    }))
}

/// Distributes the time of a call: Wasmtime's part, and then the host's.
async fn taken_apart(subjects: &[Subject], validate: Validate) -> Result<Vec<Value>, Failure> {
    let median_of = |name| subjects.iter().find(|s| s.name == name).map(|s| s.measured(1).p50);
    let (Some(whole), Some(alone)) = (median_of(CALLS[0].1), median_of(CALLS[0].2)) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        all.push(validate.clone().call().await?);
    }
    let of =
        |part: fn(&Parts) -> Duration| median(all.iter().map(|parts| part(parts).as_secs_f64()).collect());
    let parts = [
        ("part: store", of(|parts| parts.store)),
        ("part: instance", of(|parts| parts.instance)),
        ("part: the call itself", of(|parts| parts.call)),
        ("part: drop", of(|parts| parts.drop)),
        ("part: conversion, output, limits", whole - alone),
    ];
    let row = |(name, seconds): (&str, f64)| {
        json!({
            "name": name,
            "concurrency": 1,
            "p50_ms": rounded(seconds * 1e3, 4),
            "floor": "the p50 of a call",
            "ratio": rounded(seconds / whole, 3),
        })
    };
    Ok(parts.into_iter().map(row).collect())
}

async fn discard(call: impl Future<Output = Result<Parts, Failure>>) -> Result<(), Failure> {
    call.await.map(drop)
}

/// A call as a step makes it.
async fn step(name: &'static str, sandbox: Sandbox, bytes: Bytes) -> Result<Subject, Failure> {
    let loaded = sandbox.compile(aster_host::sandbox::Behalf::Host, bytes).await?;
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
    Ok(Subject::new(name, move || {
        let session = Session::new(TenantId::default(), reader.clone());
        call_once(sandbox.clone(), loaded.clone(), function, order.clone(), session)
    }))
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
        args: args.to_vec(),
        limits: CallLimits {
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

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}
