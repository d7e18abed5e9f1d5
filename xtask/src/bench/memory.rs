//! The host's memory: at rest, with runs in flight, and with runs that only wait.
//!
//! A run in flight has a live guest, which sleeps in its step with a memory and a stack of its own. A run that waits
//! for another attempt is only in the database. The floor is the host without any runs or components.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::report::{self, Column, rounded};
use super::stand::Stand;
use crate::api::Api;
use crate::host::Host;
use crate::progress::Stages;
use crate::workspace::Workspace;

const IDLE: &str = include_str!("workflows/idle.aster");
/// The number of runs that a host drives at once by default.
const ACTIVE: u32 = 1_000;
const PARKED: u32 = 5_000;
/// The number of clients that start runs.
const CLIENTS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the interval of anything that a host does periodically.
const PAUSE: Duration = Duration::from_secs(3);

const COLUMNS: [Column; 6] = [
    ("name", "host"),
    ("runs", "runs"),
    ("resident_kib", "resident KiB"),
    ("anonymous_kib", "of which its own"),
    ("kib_per_run", "KiB/run"),
    ("ratio", "times at rest"),
];

/// The memory of a process.
#[derive(Clone, Copy)]
struct Held {
    resident_kib: u64,
    /// The resident memory without the program's code and other files.
    anonymous_kib: u64,
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    let stand = Stand::set_up_empty(workspace, &mut stages)?;
    let api = stand.host.api();
    let at_rest = stages.doing("at rest", || held_after_a_while(&stand.host))?;
    stages.doing("components and workflows", || {
        crate::demo::deploy(workspace, api)?;
        let hostile = workspace.components().join("hostile.wasm");
        api.put_component("hostile", &fs::read(hostile).context("can't read `hostile.wasm`")?)?;
        api.deploy(IDLE)
    })?;
    let deployed = stages.doing("at rest", || held_after_a_while(&stand.host))?;
    let parked = stages.doing(&format!("{PARKED} runs that wait"), || {
        start_all(api, "bench.idle.wait", PARKED)?;
        wait_until(|| {
            let waiting = "select count(*) from workflow_run where wake_at > now() + interval '1 minute'";
            Ok(stand.database.ask(waiting)? == PARKED.to_string())
        })?;
        held_after_a_while(&stand.host)
    })?;
    let started = stages.doing(&format!("{ACTIVE} runs in flight"), || {
        let ids = start_all(api, "bench.idle.sleep", ACTIVE)?;
        wait_until(|| {
            let in_flight = "select count(*) from workflow_run where owner is not null and last_sequence = 2";
            Ok(stand.database.ask(in_flight)? == ACTIVE.to_string())
        })?;
        Ok(ids)
    })?;
    let active = held_after_a_while(&stand.host)?;
    let after = stages.doing("all are cancelled", || {
        started.iter().try_for_each(|id| api.cancel(id))?;
        wait_until(|| {
            Ok(stand.database.ask("select count(*) from workflow_run where owner is not null")? == "0")
        })?;
        held_after_a_while(&stand.host)
    })?;
    stand.take_down();
    stages.finish("measured");
    let row = |name: &str, runs: u32, held: Held, before: Held| {
        let mut row = json!({
            "name": name,
            "resident_kib": held.resident_kib,
            "anonymous_kib": held.anonymous_kib,
            "ratio": rounded(held.resident_kib as f64 / at_rest.resident_kib as f64),
        });
        if runs > 0 {
            let more = held.resident_kib as f64 - before.resident_kib as f64;
            row["runs"] = json!(runs);
            row["kib_per_run"] = json!(rounded(more / f64::from(runs)));
        }
        row
    };
    let rows: [Value; 5] = [
        row("at rest, empty", 0, at_rest, at_rest),
        row("at rest, 7 components", 0, deployed, deployed),
        row("with runs that wait", PARKED, parked, deployed),
        row("with runs in flight beside them", ACTIVE, active, parked),
        row("when those are over", 0, after, active),
    ];
    report::print("memory", &COLUMNS, &rows);
    Ok(())
}

/// Starts this many runs, and returns their ids.
fn start_all(api: &Api, definition: &str, runs: u32) -> Result<Vec<String>> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    let numbers = (client..runs).step_by(CLIENTS as usize);
                    let start = |n| api.start(definition, &format!("{definition}-{n}"), &Value::Null);
                    numbers.map(start).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut ids = Vec::new();
        for client in clients {
            ids.extend(client.join().expect("the thread doesn't panic")?);
        }
        Ok(ids)
    })
}

fn wait_until(so: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !so()? {
        ensure!(began.elapsed() < PATIENCE, "the condition doesn't hold after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn held_after_a_while(host: &Host) -> Result<Held> {
    thread::sleep(PAUSE);
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid()))
        .context("only Linux reports the memory of a process")?;
    let field = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    };
    Ok(Held { resident_kib: field("VmRSS:")?, anonymous_kib: field("RssAnon:")? })
}
