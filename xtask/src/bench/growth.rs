//! The cost of a run after few earlier runs, and after a million. It should be the same.
//!
//! Each size gets a database of its own, filled by SQL with copies of real runs (`past`), and then a short load of pure
//! runs. The load itself adds runs, so the smallest sizes are larger at its end.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::load::{self, Clients, Requests};
use super::past;
use super::report::{self, Column, median, rounded};
use super::saga::PURE;
use super::stand::Stand;
use super::usage::Usage;
use crate::output;
use crate::progress::Stages;
use crate::workspace::Workspace;

const CONCURRENCY: u32 = 64;
const WARM_UP: f64 = 1.0;
const SECONDS: f64 = 3.0;
const ROUNDS: usize = 3;

const COLUMNS: [Column; 7] = [
    ("name", "runs before"),
    ("runs_after", "runs after"),
    ("per_second", "runs/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("host_cpu_us", "host us"),
    ("postgres_cpu_us", "Postgres us"),
];

#[derive(clap::Args)]
pub(crate) struct Sizes {
    /// growth: how many runs exist before
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    sizes: Vec<u32>,
    /// growth: draw docs/growth.svg
    #[arg(long)]
    plot: bool,
}

#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    host_cpu_us: f64,
    postgres_cpu_us: f64,
}

/// The medians of a size.
struct Point {
    runs: u32,
    runs_after: u64,
    of_one: Round,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Sizes) -> Result<()> {
    let mut stages = Stages::new();
    load::build(workspace, &mut stages)?;
    let mut points = Vec::new();
    for &runs in &arguments.sizes {
        points.push(measured(workspace, &mut stages, runs)?);
    }
    stages.finish("measured");
    let rows: Vec<Value> = points.iter().map(Point::row).collect();
    report::print("growth", &COLUMNS, &rows);
    if arguments.plot {
        let path = workspace.document("growth.svg");
        fs::write(&path, plot(&points)).with_context(|| format!("can't write {}", path.display()))?;
        output::note(&format!("drawn: {}", path.display()));
    }
    Ok(())
}

fn measured(workspace: &Workspace, stages: &mut Stages, runs: u32) -> Result<Point> {
    let stand = Stand::set_up(workspace, stages)?;
    stand.host.api().deploy(PURE)?;
    stages.doing(&format!("{runs} runs"), || {
        let kinds = past::real_runs(stand.host.api())?;
        past::copy(&stand.database, &kinds, runs)?;
        past::tidy_up(&stand.database)
    })?;
    let mut clients = Clients::new(workspace, stand.host.address());
    let rounds = stages.doing(&format!("load beside {runs} runs"), || {
        round(&stand, &mut clients, WARM_UP)?;
        (0..ROUNDS).map(|_| round(&stand, &mut clients, SECONDS)).collect::<Result<Vec<_>>>()
    })?;
    let runs_after = stand.database.ask("select count(*) from workflow_run")?.parse()?;
    stand.take_down();
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    Ok(Point {
        runs,
        runs_after,
        of_one: Round {
            per_second: of(|round| round.per_second),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
            host_cpu_us: of(|round| round.host_cpu_us),
            postgres_cpu_us: of(|round| round.postgres_cpu_us),
        },
    })
}

fn round(stand: &Stand, clients: &mut Clients<'_>, seconds: f64) -> Result<Round> {
    stand.check_wanted()?;
    let postgres = || Usage::of_children_of(stand.postgres.pid().context("Postgres is gone")?);
    let host = || Usage::of_process(stand.host.pid());
    let (host_before, postgres_before) = (host()?, postgres()?);
    let seen = clients.send(&Requests {
        path: "/api/definitions/bench.pure.fiveSteps/runs",
        body: r#"{"orderId":"ORD-{n}","customerId":"CUST-{n}","items":[{"productId":"PROD-A","quantity":1,"price":9.99}]}"#,
        concurrency: CONCURRENCY,
        seconds,
    })?;
    let of_one = |usage: std::time::Duration| usage.as_secs_f64() * 1e6 / seen.runs;
    Ok(Round {
        per_second: seen.per_second,
        p50_ms: seen.p50_ms,
        p99_ms: seen.p99_ms,
        host_cpu_us: of_one(host()?.since(host_before)),
        postgres_cpu_us: of_one(postgres()?.since(postgres_before)),
    })
}

impl Point {
    fn row(&self) -> Value {
        let Round { per_second, p50_ms, p99_ms, host_cpu_us, postgres_cpu_us } = self.of_one;
        json!({
            "name": self.runs.to_string(),
            "runs_after": self.runs_after,
            "per_second": per_second.round(),
            "p50_ms": rounded(p50_ms),
            "p99_ms": rounded(p99_ms),
            "host_cpu_us": host_cpu_us.round(),
            "postgres_cpu_us": postgres_cpu_us.round(),
        })
    }
}

/// Plots the processor time of a run over the number of earlier runs. The marks are powers of ten.
fn plot(points: &[Point]) -> String {
    let (left, right, top, bottom) = (70.0, 600.0, 40.0, 260.0);
    let costs = |point: &Point| [point.of_one.host_cpu_us, point.of_one.postgres_cpu_us];
    let highest = points.iter().flat_map(costs).fold(1.0, f64::max);
    let unit = 10_f64.powf(highest.log10().floor());
    let highest = (highest / unit).ceil() * unit;
    let logs = || points.iter().map(|point| f64::from(point.runs).log10());
    let (from, to) = (logs().fold(f64::MAX, f64::min), logs().fold(0.0, f64::max));
    let x = |point: &Point| {
        left + 20.0 + (right - left - 40.0) * (f64::from(point.runs).log10() - from) / (to - from).max(1e-9)
    };
    let y = |cost: f64| bottom - (bottom - top) * cost / highest;

    let mut svg = String::from(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 330" font-family="sans-serif" font-size="12" fill="currentColor" role="img" aria-label="Processor time of a run over the number of runs that were there before">
<text x="70" y="22">processor time of a run, in microseconds</text>
"#,
    );
    let mut line = |text: String| writeln!(svg, "{text}").expect("writing to a `String` can't fail");
    for quarter in 0..=4 {
        let cost = highest * f64::from(quarter) / 4.0;
        let at = y(cost);
        line(format!(
            r##"<path d="M{left} {at:.1}H{right}" stroke="#8888" fill="none"/><text x="{:.0}" y="{:.1}" text-anchor="end">{cost:.0}</text>"##,
            left - 8.0,
            at + 4.0,
        ));
    }
    for point in points {
        let Round { per_second, p99_ms, .. } = point.of_one;
        line(format!(
            r#"<text x="{0:.1}" y="280" text-anchor="middle">{1}</text><text x="{0:.1}" y="296" text-anchor="middle">{per_second:.0} runs/s</text><text x="{0:.1}" y="312" text-anchor="middle">p99 {p99_ms:.0} ms</text>"#,
            x(point),
            point.runs,
        ));
    }
    for (name, colour, i) in [("host", "#2a6fbb", 0), ("Postgres", "#c2571a", 1)] {
        let marks: Vec<(f64, f64)> = points.iter().map(|point| (x(point), y(costs(point)[i]))).collect();
        let path: Vec<String> = marks.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        line(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        ));
        for (x, y) in &marks {
            line(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#));
        }
        if let Some((x, y)) = marks.last() {
            line(format!(
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="end" fill="{colour}">{name}</text>"#,
                y - 8.0
            ));
        }
    }
    line("</svg>".to_owned());
    svg
}
