//! The slowdown of small runs beside another tenant's guests that hold threads, in several ways.
//!
//! The floor is the same load beside busy threads of another process, which shows the effect of the operating system's
//! scheduler.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::database::Database;
use super::load::{self, Clients, Seen};
use super::report::{self, Column, median, rounded};
use super::stand::Stand;
use crate::api::Api;
use crate::progress::Stages;
use crate::workspace::Workspace;

const SMALL: &str = include_str!("workflows/small.aster");
const BURN: &str = include_str!("workflows/burn.aster");
const ORDER: &str = r#"{"orderId":"ORD-{n}","customerId":"CUST-{n}","items":[{"productId":"PROD-A","quantity":1,"price":9.99}]}"#;

const ROUNDS: usize = 3;
const SECONDS: f64 = 4.0;
const WARM_UP: f64 = 2.0;
/// The time for runs to begin and to end.
const PATIENCE: Duration = Duration::from_secs(30);

const COLUMNS: [Column; 10] = [
    ("name", "small runs"),
    ("concurrency", "clients"),
    ("per_second", "runs/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("step_p50_ms", "step p50 ms"),
    ("step_p99_ms", "step p99 ms"),
    ("ratio", "p99, times alone"),
    ("neighbours_per_second", "neighbours' runs/s"),
    ("leases_lost", "leases lost"),
];

#[derive(clap::Args)]
pub(crate) struct Burners {
    /// neighbours: how many runs of the other tenant compute
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    burners: u32,
    /// neighbours: how many clients send small runs
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// Guests that compute without end.
    Spinning,
    /// Busy threads of another process.
    Threads,
    /// Runs of this workflow, so many at the same time, each followed by the next.
    Bulk(&'static Bulk, u32),
}

/// A step with one or more calls that don't yield.
#[derive(PartialEq, Eq)]
struct Bulk {
    name: &'static str,
    workflow: &'static str,
    call: &'static str,
    calls: u32,
}

/// Nearly the largest value, as often as an attempt may take it.
const BYTES: Bulk =
    Bulk { name: "60 list<u8> of 780 kB", workflow: "bytes", call: "Hostile.hugeList(780000)", calls: 60 };
/// A value that is too large, and refused.
const BOOLS: Bulk = Bulk {
    name: "list<bool> of 1.4 million",
    workflow: "bools",
    call: "Hostile.manyBools(1400000)",
    calls: 1,
};
const TOUCH: Bulk = Bulk {
    name: "50 MiB touched, then asleep",
    workflow: "touch",
    call: "Hostile.fillAndSleep(52428800, 200)",
    calls: 1,
};
const FILL: Bulk =
    Bulk { name: "60 MiB filled at once", workflow: "fill", call: "Hostile.fill(62914560)", calls: 1 };
const BULKS: [&Bulk; 4] = [&BYTES, &BOOLS, &TOUCH, &FILL];

impl Bulk {
    fn definition(&self) -> String {
        format!("bench.{0}.{0}", self.workflow)
    }

    fn source(&self) -> String {
        let Self { workflow, call, calls, .. } = self;
        let mut source = format!(
            "This module is bench.{workflow}.\n\nTo {workflow}, produce Json with IO. It performs io with Hostile:\n\n  \
             workflow:\n\n    step only:\n"
        );
        for n in 1..=*calls {
            writeln!(source, "      Let answer{n} be {call}.").expect("writing to a `String` can't fail");
        }
        source.push_str("      Return 1.\n      timeout: 1 minute.\n\n    timeout: 2 minutes.\n  .\n");
        source
    }
}

impl Beside {
    const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Spinning,
        Self::Threads,
        Self::Bulk(&BYTES, 1),
        Self::Bulk(&BYTES, 4),
        Self::Bulk(&BOOLS, 4),
        Self::Bulk(&TOUCH, 16),
        Self::Bulk(&FILL, 16),
    ];

    fn name(self) -> String {
        match self {
            Self::Nobody => "alone".into(),
            Self::Spinning => "beside guests that spin".into(),
            Self::Threads => "beside as many busy threads of another process".into(),
            Self::Bulk(bulk, at_once) => format!("beside {at_once} with {}", bulk.name),
        }
    }
}

/// What the clients saw, and how long the steps of the same runs took.
struct Round {
    beside: Beside,
    seen: Seen,
    step_p50_ms: f64,
    step_p99_ms: f64,
    /// The number of the other tenant's runs that ended.
    neighbours: u32,
    leases_lost: u32,
}

pub(crate) fn run(workspace: &Workspace, burners: &Burners, program: Option<&Path>) -> Result<()> {
    let mut stages = Stages::new();
    load::build(workspace, &mut stages)?;
    let stand = Stand::set_up_with(workspace, program, &mut stages)?;
    let other = stand.host.api().of_tenant("burner");
    stages.doing("small runs and others", || {
        stand.host.api().deploy(SMALL)?;
        let hostile = workspace.components().join("hostile.wasm");
        other.put_component("hostile", &fs::read(hostile).context("can't read `hostile.wasm`")?)?;
        other.deploy(BURN)?;
        BULKS.iter().try_for_each(|bulk| other.deploy(&bulk.source()))
    })?;

    let mut clients = Clients::new(workspace, stand.host.address());
    let mut send = |seconds| {
        clients.send(&load::Requests {
            path: "/api/definitions/bench.small.oneStep/runs",
            body: ORDER,
            concurrency: burners.clients,
            seconds,
        })
    };
    stages.doing("warm-up", || send(WARM_UP))?;
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        for beside in Beside::ALL {
            stages.doing(&format!("round {round}, {}", beside.name()), || {
                stand.check_wanted()?;
                let began = stand.database.ask("select now()")?;
                let hosts = |database: &Database| -> Result<u32> {
                    Ok(database.ask("select count(*) from host")?.trim().parse()?)
                };
                let hosts_before = hosts(&stand.database)?;
                let (seen, neighbours) = match beside {
                    Beside::Nobody => (send(SECONDS)?, 0),
                    Beside::Spinning => (beside_spinning(&other, burners.burners, || send(SECONDS))?, 0),
                    Beside::Threads => (beside_threads(burners.burners, || send(SECONDS))?, 0),
                    Beside::Bulk(bulk, at_once) => beside_runs(&other, bulk, at_once, || send(SECONDS))?,
                };
                let (step_p50_ms, step_p99_ms) = steps_since(&stand.database, &began)?;
                // A host that has lost its lease registers as a new one.
                let leases_lost = hosts(&stand.database)? - hosts_before;
                rounds.push(Round { beside, seen, step_p50_ms, step_p99_ms, neighbours, leases_lost });
                Ok(())
            })?;
        }
    }
    stand.take_down();
    stages.finish("measured");
    let rows: Vec<Value> = Beside::ALL.iter().map(|&beside| row(&rounds, beside, burners.clients)).collect();
    report::print("neighbours", &COLUMNS, &rows);
    Ok(())
}

fn row(rounds: &[Round], beside: Beside, clients: u32) -> Value {
    let of = |beside, figure: fn(&Round) -> f64| {
        median(rounds.iter().filter(|round| round.beside == beside).map(figure).collect())
    };
    let p99 = |beside| of(beside, |round| round.seen.p99_ms);
    Value::Object(Map::from_iter([
        ("name".to_owned(), json!(beside.name())),
        ("concurrency".to_owned(), json!(clients)),
        ("per_second".to_owned(), json!(of(beside, |round| round.seen.per_second).round())),
        ("p50_ms".to_owned(), json!(rounded(of(beside, |round| round.seen.p50_ms)))),
        ("p99_ms".to_owned(), json!(rounded(p99(beside)))),
        ("step_p50_ms".to_owned(), json!(rounded(of(beside, |round| round.step_p50_ms)))),
        ("step_p99_ms".to_owned(), json!(rounded(of(beside, |round| round.step_p99_ms)))),
        ("ratio".to_owned(), json!(rounded(p99(beside) / p99(Beside::Nobody)))),
        (
            "neighbours_per_second".to_owned(),
            json!(rounded(of(beside, |r| f64::from(r.neighbours) / SECONDS))),
        ),
        ("leases_lost".to_owned(), json!(of(beside, |round| f64::from(round.leases_lost)))),
    ]))
}

/// Does `work` while this many runs of the other tenant compute, and cancels those afterwards.
fn beside_spinning<T>(other: &Api, burners: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stamp = Instant::now();
    let ids = (0..burners)
        .map(|n| other.start("bench.burn.burn", &format!("{stamp:?}-{n}"), &Value::Null))
        .collect::<Result<Vec<_>>>()?;
    let count = |status: &str, n: u64| {
        let began = Instant::now();
        while other.count(status)? != n {
            ensure!(began.elapsed() < PATIENCE, "there are not {n} runs {status} after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    count("RUNNING", u64::from(burners))?;
    let done = work();
    ids.iter().try_for_each(|id| other.cancel(id))?;
    count("RUNNING", 0)?;
    done
}

/// Does `work` while the other tenant keeps this many runs of a workflow under way, and returns how many of them ended.
fn beside_runs<T>(
    other: &Api,
    bulk: &Bulk,
    at_once: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, u32)> {
    let (over, ended) = (AtomicBool::new(false), AtomicU32::new(0));
    let definition = bulk.definition();
    thread::scope(|scope| {
        let runs: Vec<_> = (0..at_once)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while !over.load(Ordering::Relaxed) {
                        other.run_to_end(&definition, &Value::Null)?;
                        if !over.load(Ordering::Relaxed) {
                            ended.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let done = work();
        over.store(true, Ordering::Relaxed);
        for run in runs {
            run.join().expect("no panic")?;
        }
        Ok((done?, ended.load(Ordering::Relaxed)))
    })
}

/// Does `work` while this many threads of this process are busy.
fn beside_threads<T>(threads: u32, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut turns = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    turns = black_box(turns.wrapping_add(1));
                }
            });
        }
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

/// Returns how long the steps of the default tenant's runs have taken since `began`, as their events record.
fn steps_since(database: &Database, began: &str) -> Result<(f64, f64)> {
    let answer = database.ask(&format!(
        "select percentile_cont(array[0.5, 0.99]) within group (order by (e.payload->>'durationMicros')::float8 / 1000)::text[]
        from workflow_run r
        join workflow_events e on e.workflow_id = r.workflow_id
        where r.accepted_at >= '{began}' and r.definition = 'bench.small.oneStep' and e.event_type = 'STEP_COMPLETED'"
    ))?;
    let (p50, p99) =
        answer.trim_matches(['{', '}']).split_once(',').context("two percentiles were asked for")?;
    Ok((p50.parse()?, p99.parse()?))
}
