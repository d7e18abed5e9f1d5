//! Five-step workflows over HTTP, from their submission to their end: the latency of one, the throughput of a host, and
//! the cost of each.
//!
//! Host and Postgres run as in production (release build, durable settings), on one machine together with the clients
//! (`aster-load`). The floor is what the same Postgres does in the same minute with hand-written SQL and no engine:
//! pgbench with seven commits a workflow, as in a program that keeps a row of state and an event for each step.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aster_postgres::{Embedded, Options, Programs};
use serde_json::{Map, Value, json};

use super::report::{self, Column, median, rounded};
use super::usage::Usage;
use crate::api::Api;
use crate::build;
use crate::demo;
use crate::host::{self, Host};
use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::Workspace;

/// The number of products among which orders are spread, so that few orders meet at the same row.
const PRODUCTS: u32 = 1_000;
/// The time of load before anything is measured, to warm up connections, caches and Postgres's plans.
const WARM_UP: f64 = 2.0;

#[derive(clap::Args)]
pub(crate) struct Load {
    /// saga: which workflows to run [default: all]
    #[arg(long)]
    workload: Vec<Workload>,
    /// saga: how many clients, each with one workflow at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    concurrency: Vec<u32>,
    /// saga: how long each measurement takes
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// saga: how often each is made; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// saga: the program of another host, which is measured in turns with this one on a database of its own
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    /// Five steps that change nothing
    Pure,
    /// The order, with the key-value effects of its steps, over 1,000 products
    Order,
    /// The same, and one in five is declined and undone
    Declined,
    /// The same order, all for one product
    Hot,
}

impl Workload {
    const ALL: [Self; 4] = [Self::Pure, Self::Order, Self::Declined, Self::Hot];

    fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure steps",
            Self::Order => "order",
            Self::Declined => "order, 20 % declined",
            Self::Hot => "order, one product",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Pure => "/api/definitions/bench.pure.fiveSteps/runs",
            _ => "/api/definitions/io.aster.ecommerce.order_fulfillment.fulfillOrder/runs",
        }
    }

    fn products(self) -> u32 {
        if self == Self::Hot { 1 } else { PRODUCTS }
    }

    fn declined_percent(self) -> u32 {
        if self == Self::Declined { 20 } else { 0 }
    }
}

const ORDER: &str = r#"{"orderId":"ORD-{n}","customerId":"CUST-{n}","items":[{"productId":"PROD-{product}","quantity":1,"price":9.99}],"metadata":{"channel":"web"},"paymentMethod":"{payment}","shipTo":"12 Main St"}"#;

pub(super) const PURE: &str = include_str!("workflows/pure.aster");

const COLUMNS: [Column; 13] = [
    ("name", "workflow"),
    ("host", "host"),
    ("concurrency", "clients"),
    ("per_second", "runs/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("p999_ms", "p99.9 ms"),
    ("host_cpu_us", "host us"),
    ("postgres_cpu_us", "Postgres us"),
    ("client_cpu_us", "clients us"),
    ("commits_per_run", "commits/run"),
    ("floor_per_second", "plain SQL/s"),
    ("ratio", "ratio"),
];

/// The result of one round.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// Processor time for one run.
    host_cpu_us: f64,
    postgres_cpu_us: f64,
    client_cpu_us: f64,
    commits_per_run: f64,
}

/// The environment of the measurements.
struct Bench<'a> {
    workspace: &'a Workspace,
    postgres: &'a Embedded,
    programs: Programs,
    interrupt: &'a Interrupt,
    /// The number of the next order.
    next: u64,
}

/// The names of the hosts in the table.
const THIS: &str = "this";
const OTHER: &str = "other";

pub(crate) fn run(workspace: &Workspace, load: &Load, program: Option<&Path>) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    if program.is_none() {
        build::release_host(workspace, &mut stages)?;
    }
    let clients = ["build", "--release", "--package", "aster-tests", "--bin", "aster-load"];
    stages.run("clients", workspace.cargo(clients))?;
    // The folder is on the disk that holds the build, because a temporary folder may be in memory.
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(workspace.target())
        .context("can't make a folder for the database")?;
    let interrupt = Interrupt::install()?;
    let postgres = stages.doing("Postgres", || {
        let options = Options::new(folder.path().join("postgres"));
        Ok(Embedded::start(Options { max_connections: 400, ..options })?)
    })?;
    let programs = Programs::find()?;
    let mut bench = Bench { workspace, postgres: &postgres, programs, interrupt: &interrupt, next: 0 };
    let mut hosts = Vec::new();
    let program = program.map_or_else(|| workspace.release_host(), Path::to_owned);
    let mut programs = vec![(THIS, program, postgres.url().to_owned())];
    if let Some(other) = &load.against {
        bench.execute("create database other")?;
        let url = postgres.url().replacen("/aster?", "/other?", 1);
        ensure!(url != postgres.url(), "`{url}` doesn't name the database `aster`");
        programs.push((OTHER, other.clone(), url));
    }
    for (name, program, url) in programs {
        let address = host::free_address("127.0.0.1:0")?;
        let log = folder.path().join(format!("{name}.log"));
        let host = stages.doing(&format!("{name} host starts"), || {
            Host::start_on(&program, &url, "5s", &log, &address, || !interrupt.has_come())
        })?;
        stages.doing("components and workflows", || {
            demo::deploy(workspace, host.api())?;
            host.api().deploy(PURE)?;
            seed_stock(host.api())
        })?;
        hosts.push((name, host));
    }
    let mut floors = BTreeMap::new();
    for &concurrency in &load.concurrency {
        let what = format!("plain SQL, {concurrency} at a time");
        floors.insert(concurrency, stages.doing(&what, || bench.floor(concurrency, load))?);
    }
    let mut rows = Vec::new();
    let wanted: &[Workload] = if load.workload.is_empty() { &Workload::ALL } else { &load.workload };
    for &workload in wanted {
        for (_, host) in &hosts {
            stages.doing("warm-up", || bench.round(host, workload, 16, WARM_UP))?;
        }
        for &concurrency in &load.concurrency {
            let what = format!("{}, {concurrency} at a time", workload.name());
            let mut rounds = vec![Vec::new(); hosts.len()];
            stages.doing(&what, || {
                for _ in 0..load.rounds {
                    for ((_, host), rounds) in hosts.iter().zip(&mut rounds) {
                        rounds.push(bench.round(host, workload, concurrency, load.seconds)?);
                    }
                }
                Ok(())
            })?;
            for ((name, _), rounds) in hosts.iter().zip(&rounds) {
                rows.push(row(workload, name, concurrency, rounds, floors[&concurrency]));
            }
        }
    }
    drop(hosts);
    postgres.stop();
    stages.finish("measured");
    report::print("saga", &COLUMNS, &rows);
    Ok(())
}

fn seed_stock(api: &Api) -> Result<()> {
    (0..PRODUCTS).try_for_each(|n| api.put_value("inventory", "stock", &format!("PROD-{n}"), "1000000000"))
}

fn row(workload: Workload, host: &str, concurrency: u32, rounds: &[Round], floor: Option<f64>) -> Value {
    let of = |figure: fn(&Round) -> f64| rounded(median(rounds.iter().map(figure).collect()));
    let mut row = Map::from_iter([
        ("name".to_owned(), json!(workload.name())),
        ("host".to_owned(), json!(host)),
        ("concurrency".to_owned(), json!(concurrency)),
        ("p50_ms".to_owned(), json!(of(|round| round.p50_ms))),
        ("p99_ms".to_owned(), json!(of(|round| round.p99_ms))),
        ("p999_ms".to_owned(), json!(of(|round| round.p999_ms))),
        ("host_cpu_us".to_owned(), json!(of(|round| round.host_cpu_us).round())),
        ("postgres_cpu_us".to_owned(), json!(of(|round| round.postgres_cpu_us).round())),
        ("client_cpu_us".to_owned(), json!(of(|round| round.client_cpu_us).round())),
        ("commits_per_run".to_owned(), json!(of(|round| round.commits_per_run))),
    ]);
    let per_second = of(|round| round.per_second);
    match floor {
        Some(floor) => report::with_floor(row, per_second, floor),
        None => {
            row.insert("per_second".into(), json!(per_second.round()));
            Value::Object(row)
        }
    }
}

impl Bench<'_> {
    /// Makes this many clients send one workflow after the other.
    fn round(&mut self, host: &Host, workload: Workload, concurrency: u32, seconds: f64) -> Result<Round> {
        ensure!(!self.interrupt.has_come(), "interrupted");
        let commits_before = host.api().commits()?;
        let host_before = Usage::of_process(host.pid())?;
        let postgres_before = self.postgres_usage()?;
        let clients_before = Usage::of_ended_children()?;
        let output = Command::new(self.workspace.release("aster-load"))
            .args(["--address", host.address(), "--path", workload.path(), "--body", ORDER])
            .args(["--products", &workload.products().to_string()])
            .args(["--declined", &workload.declined_percent().to_string()])
            .args(["--first", &self.next.to_string(), "--concurrency", &concurrency.to_string()])
            .args(["--seconds", &seconds.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("can't run `aster-load`")?;
        ensure!(output.status.success(), "`aster-load` failed ({})", output.status);
        let seen: Value = serde_json::from_slice(&output.stdout).context("`aster-load` didn't print JSON")?;
        let figure =
            |name: &str| seen[name].as_f64().with_context(|| format!("`aster-load` printed no `{name}`"));
        let runs = figure("runs")?;
        for (status, n) in seen["statuses"].as_object().into_iter().flatten() {
            let is_wanted =
                status == "COMPLETED" || (status == "COMPENSATED" && workload.declined_percent() > 0);
            ensure!(is_wanted, "{n} runs ended {status}");
        }
        // Each round uses its own numbers, because an order that is already known would be no work.
        self.next += 100 * u64::from(concurrency) + (100.0 * runs).ceil() as u64;
        let of_one = |usage: Duration| usage.as_secs_f64() * 1e6 / runs;
        Ok(Round {
            per_second: runs / figure("seconds")?,
            p50_ms: figure("p50_ms")?,
            p99_ms: figure("p99_ms")?,
            p999_ms: figure("p999_ms")?,
            host_cpu_us: of_one(Usage::of_process(host.pid())?.since(host_before)),
            postgres_cpu_us: of_one(self.postgres_usage()?.since(postgres_before)),
            client_cpu_us: of_one(Usage::of_ended_children()?.since(clients_before)),
            commits_per_run: (host.api().commits()? - commits_before) as f64 / runs,
        })
    }

    fn postgres_usage(&self) -> Result<Usage> {
        Usage::of_children_of(self.postgres.pid().context("Postgres is gone")?)
    }

    /// Measures workflows a second with hand-written SQL. Returns `None` if this machine has no pgbench.
    fn floor(&self, concurrency: u32, load: &Load) -> Result<Option<f64>> {
        self.execute(FLOOR_SCHEMA)?;
        let script = tempfile::Builder::new().suffix(".sql").tempfile()?;
        fs::write(&script, floor_script())?;
        self.programs.hand_over(script.path())?;
        let mut rounds = Vec::new();
        for round in 0..load.rounds {
            ensure!(!self.interrupt.has_come(), "interrupted");
            // Each round uses its own numbers.
            let first = format!("n={}", u64::from(round) * 10_000_000);
            let output = self
                .programs
                .command("pgbench")
                .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "1", "--define", &first])
                .args([
                    "--client",
                    &concurrency.to_string(),
                    "--time",
                    &load.seconds.ceil().to_string(),
                    "--file",
                ])
                .arg(script.path())
                .arg(self.postgres.url())
                .output();
            let Ok(output) = output else { return Ok(None) };
            let text = String::from_utf8_lossy(&output.stdout);
            let tps =
                text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
            let Some(tps) = tps else { bail!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)) };
            rounds.push(tps);
        }
        self.execute("drop table floor_event; drop table floor_run")?;
        Ok(Some(median(rounds)))
    }

    fn execute(&self, sql: &str) -> Result<()> {
        let mut psql = self.programs.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "--dbname", self.postgres.url()]);
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            psql.args(["--command", statement]);
        }
        let output = psql.output().context("can't run psql")?;
        ensure!(output.status.success(), "psql failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

const FLOOR_SCHEMA: &str = "
    create table floor_run (id bigint primary key, status text not null, input json not null, result json, updated_at timestamptz not null) with (fillfactor = 80);
    create table floor_event (id bigint not null, sequence bigint not null, event_type text not null, payload json not null, occurred_at timestamptz not null, primary key (id, sequence))";

/// One workflow: acceptance, five steps, and end. Each is an autocommit statement with its events, 12 in all.
fn floor_script() -> String {
    let payload = r#"'{"v":1,"step":"reserve_inventory","attempt":1,"value":{"orderId":"ORD-1","state":"reserved"},"fuelUsed":21000,"durationMicros":120,"component":"inventory","function":"reserve"}'"#;
    let mut script = format!(
        "\\set n :n + 1\n\\set id :client_id * 1000000000 + :n\n\
        with run as (insert into floor_run values (:id, 'RUNNING', {payload}, null, now())) \
        insert into floor_event values (:id, 1, 'WORKFLOW_STARTED', {payload}, now());\n"
    );
    for step in 1..=5 {
        script += &format!(
            "with run as (update floor_run set updated_at = now() where id = :id) \
            insert into floor_event values (:id, {}, 'STEP_STARTED', {payload}, now()), (:id, {}, 'STEP_COMPLETED', {payload}, now());\n",
            2 * step,
            2 * step + 1,
        );
    }
    script += &format!(
        "with run as (update floor_run set status = 'COMPLETED', result = {payload}, updated_at = now() where id = :id) \
        insert into floor_event values (:id, 12, 'WORKFLOW_COMPLETED', {payload}, now());\n"
    );
    script
}
