//! The time to read lists, runs and events with a million runs and ten million events.
//!
//! A few real runs are copied in the database, each copy with its own ids, spread over the last five weeks. Then one
//! client sends requests over HTTP with random parameters. The floor is one connection that runs the same queries in
//! SQL, as prepared statements that contain nothing else.

mod queries;

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use self::queries::{QUERIES, Query};
use super::database::{self, Database};
use super::past::{self, Sample};
use super::report::{self, Column, median, percentile, rounded};
use super::stand::Stand;
use crate::output;
use crate::progress::Stages;
use crate::workspace::Workspace;

/// How often a round sends each query, unless that takes too long.
const REQUESTS: usize = 300;
const ROUND: Duration = Duration::from_secs(2);
/// How often a round sends each query, however long it takes.
const AT_LEAST: usize = 5;
const ROUNDS: usize = 3;
/// How often each query is sent before anything is measured.
const WARM_UP: usize = 10;
/// A query is reported as slow if its 99th percentile is above this.
const SLOW_MS: f64 = 10.0;

const COLUMNS: [Column; 8] = [
    ("name", "query"),
    ("requests", "requests"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("floor_p50_ms", "SQL p50 ms"),
    ("floor_p99_ms", "SQL p99 ms"),
    ("ratio", "ratio"),
    ("bytes_per_run", "bytes/run"),
];

/// The number of runs. There are eleven times as many events.
pub(super) const RUNS: u32 = 1_000_000;

pub(crate) fn run(workspace: &Workspace, runs: u32) -> Result<()> {
    let mut stages = Stages::new();
    let stand = Stand::set_up(workspace, &mut stages)?;
    let kinds = stages.doing("a run of each kind", || past::real_runs(stand.host.api()))?;
    stages.doing(&format!("{runs} runs and their events"), || past::copy(&stand.database, &kinds, runs))?;
    let samples = past::samples(&stand.database, REQUESTS)?;
    stages.doing("vacuum", || past::tidy_up(&stand.database))?;
    check_counts(&stand)?;

    let mut measured: Vec<Measured> = QUERIES.iter().map(|_| Measured::default()).collect();
    stages.doing("warm-up", || {
        QUERIES.iter().try_for_each(|query| asked_by_http(&stand, query, &samples[..WARM_UP]).map(drop))
    })?;
    for round in 1..=ROUNDS {
        stages.doing(&format!("round {round}"), || {
            for (query, measured) in QUERIES.iter().zip(&mut measured) {
                stand.check_wanted()?;
                measured.add(
                    &asked_by_http(&stand, query, &samples)?,
                    &asked_by_sql(&stand.database, query, &samples)?,
                );
            }
            Ok(())
        })?;
    }
    let mut rows = Vec::new();
    for (query, measured) in QUERIES.iter().zip(&measured) {
        rows.push(measured.row(query.name));
        if measured.p99_ms() > SLOW_MS {
            let plan = explained(&stand.database, query, &samples[0])?;
            output::note(&format!("\n{}: {:.0} ms. By SQL:\n{plan}", query.name, measured.p99_ms()));
        }
    }
    let volume = past::volume(&stand.database)?;
    rows.extend(
        volume.sizes.iter().map(|size| json!({"name": size.what, "bytes_per_run": size.bytes_per_run})),
    );
    stand.take_down();
    stages.finish("measured");
    output::line(&format!("{} runs, {} events", volume.runs, volume.events));
    report::print("history", &COLUMNS, &rows);
    Ok(())
}

/// Checks that the maintained counts equal the real ones.
fn check_counts(stand: &Stand) -> Result<()> {
    let answered: Value = serde_json::from_slice(&stand.host.api().get("/api/workflows/metrics")?)?;
    let there = stand.database.ask("select status, count(*) from workflow_run group by status")?;
    let answered = answered.as_object().context("counts are an object")?;
    let mut all = 0;
    for line in there.lines() {
        let (status, n) = line.split_once('|').context("a line has two columns")?;
        ensure!(
            answered[status] == n.parse::<u64>()?,
            "{n} runs are {status}, but the host answers {}",
            answered[status]
        );
        all += n.parse::<u64>()?;
    }
    ensure!(
        answered.values().filter_map(Value::as_u64).sum::<u64>() == all,
        "there are {all} runs: {answered:?}"
    );
    Ok(())
}

/// The percentiles of each round.
#[derive(Default)]
struct Measured {
    requests: usize,
    p50: Vec<f64>,
    p99: Vec<f64>,
    floor_p50: Vec<f64>,
    floor_p99: Vec<f64>,
}

impl Measured {
    /// Adds a round, in milliseconds.
    fn add(&mut self, http: &[f64], sql: &[f64]) {
        self.requests += http.len();
        self.p50.push(percentile(http, 0.5));
        self.p99.push(percentile(http, 0.99));
        self.floor_p50.push(percentile(sql, 0.5));
        self.floor_p99.push(percentile(sql, 0.99));
    }

    fn p99_ms(&self) -> f64 {
        median(self.p99.clone())
    }

    fn row(&self, name: &str) -> Value {
        let (p50, floor_p50) = (median(self.p50.clone()), median(self.floor_p50.clone()));
        Value::Object(Map::from_iter([
            ("name".to_owned(), json!(name)),
            ("requests".to_owned(), json!(self.requests)),
            ("p50_ms".to_owned(), json!(rounded(p50))),
            ("p99_ms".to_owned(), json!(rounded(self.p99_ms()))),
            ("floor_p50_ms".to_owned(), json!(rounded(floor_p50))),
            ("floor_p99_ms".to_owned(), json!(rounded(median(self.floor_p99.clone())))),
            ("ratio".to_owned(), json!(rounded(p50 / floor_p50))),
        ]))
    }
}

fn asked_by_http(stand: &Stand, query: &Query, samples: &[Sample]) -> Result<Vec<f64>> {
    let began = Instant::now();
    let mut taken = Vec::with_capacity(samples.len());
    let list =
        samples.first().map(query.path).and_then(|path| Some(path.split_once("cursor=")?.0.to_owned()));
    let cursor = list.map(|list| first_cursor(stand, &list)).transpose()?;
    for sample in samples {
        let mut path = (query.path)(sample);
        if let (Some(cursor), Some((list, run))) = (&cursor, path.split_once("cursor=")) {
            path = format!("{list}cursor={}", behind(cursor, run)?);
        }
        let asked = Instant::now();
        stand.host.api().get(&path)?;
        taken.push(asked.elapsed().as_secs_f64() * 1e3);
        if began.elapsed() > ROUND && taken.len() >= AT_LEAST {
            break;
        }
    }
    Ok(taken)
}

/// Returns the cursor of a list's second page.
fn first_cursor(stand: &Stand, list: &str) -> Result<String> {
    let page: Value = serde_json::from_slice(&stand.host.api().get(&format!("{list}limit=1"))?)?;
    let cursor = page["nextCursor"].as_str();
    cursor.map(str::to_owned).with_context(|| format!("{list} has fewer than two runs"))
}

/// Makes the cursor of the page that begins after a run. Clients take cursors from the previous page and don't make
/// them, but walking through a million runs to a random one would take too long here. So this replaces the run in a
/// real cursor. The eight bytes before it identify the list.
fn behind(cursor: &str, run: &str) -> Result<String> {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor)?;
    bytes.truncate(8);
    bytes.extend_from_slice(run.as_bytes());
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// Runs the queries with psql, which prints how long it waited for each answer.
fn asked_by_sql(database: &Database, query: &Query, samples: &[Sample]) -> Result<Vec<f64>> {
    // A slow query runs less often.
    let mut taken = executed(database, query, &samples[..AT_LEAST])?;
    if taken.iter().sum::<f64>() < ROUND.as_secs_f64() * 1e3 * AT_LEAST as f64 / REQUESTS as f64 {
        taken = executed(database, query, samples)?;
    }
    Ok(taken)
}

fn executed(database: &Database, query: &Query, samples: &[Sample]) -> Result<Vec<f64>> {
    let mut script = format!("\\o /dev/null\nprepare asked as {};\n\\timing on\n", query.sql);
    for sample in samples {
        script += &format!("execute asked{};\n", (query.arguments)(sample));
    }
    let mut psql = database.psql();
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut psql = psql.spawn().context("can't run psql")?;
    let mut input = psql.stdin.take().context("it is piped")?;
    // psql prints a short line for each statement, less in all than a pipe can hold.
    input.write_all(script.as_bytes())?;
    drop(input);
    let output = psql.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let taken: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())
        .collect();
    ensure!(
        taken.len() == samples.len(),
        "psql gave an unexpected answer: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(taken)
}

fn explained(database: &Database, query: &Query, sample: &Sample) -> Result<String> {
    let mut psql = database.psql();
    psql.args(["--command", &format!("prepare asked as {}", query.sql)]);
    let execute = format!("explain (analyze, buffers, costs off) execute asked{}", (query.arguments)(sample));
    psql.args(["--command", &execute]);
    database::output(psql)
}
