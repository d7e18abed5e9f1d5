//! The five-step order through HTTP, from its submission to its end: how long one takes, how many a host carries, and
//! how many commits each costs.
//!
//! Host and Postgres are as in production (release build, durable settings), on this machine together with the clients.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::demo;
use crate::host::{self, Host};
use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::Workspace;
use crate::{build, output};

/// Orders are spread over so many, so that few meet at the same row.
const PRODUCTS: u32 = 1_000;
const CONCURRENCY: [u32; 3] = [1, 16, 64];
/// Sent before anything is measured: connections, caches and Postgres's plans are warm then.
const WARM_UP: u32 = 200;

#[derive(clap::Args)]
pub(crate) struct Load {
    /// saga: how many orders are sent at each concurrency
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    orders: u32,
}

/// What came of the orders at one concurrency.
struct Measured {
    concurrency: u32,
    /// From the first submission to the last end.
    all: Duration,
    /// Of each order, from its submission to its end, sorted.
    each: Vec<Duration>,
    /// Of the host, meanwhile.
    commits: u64,
}

pub(crate) fn run(workspace: &Workspace, load: &Load) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    build::release_host(workspace, &mut stages)?;
    // On the disk that holds the build, since a temporary folder may be memory.
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(workspace.target())
        .context("can't make a folder for the database")?;
    let address = host::free_address("127.0.0.1:0")?;
    let interrupt = Interrupt::install()?;
    let host = stages.doing("host starts", || {
        Host::start(&workspace.release_host(), folder.path(), &address, || !interrupt.has_come())
    })?;
    stages.doing("components and workflows", || {
        demo::deploy(workspace, host.api())?;
        (0..PRODUCTS).try_for_each(|n| host.api().put_value("inventory", "stock", &product(n), "1000000"))
    })?;
    let next = AtomicU32::new(0);
    stages.doing("warm-up", || measure(host.api(), &next, WARM_UP, 4, &interrupt))?;
    let mut rows = Vec::new();
    for concurrency in CONCURRENCY {
        let what = format!("{} orders, {concurrency} at a time", load.orders);
        rows.push(stages.doing(&what, || measure(host.api(), &next, load.orders, concurrency, &interrupt))?);
    }
    drop(host);
    stages.finish("measured");
    report(&rows).iter().for_each(|line| output::line(line));
    Ok(())
}

/// Lets `concurrency` clients send `orders` orders, each waiting for the end of one before it sends the next.
fn measure(
    api: &Api,
    next: &AtomicU32,
    orders: u32,
    concurrency: u32,
    interrupt: &Interrupt,
) -> Result<Measured> {
    let last = next.load(Ordering::Relaxed) + orders;
    let commits_before = api.commits()?;
    let start = Instant::now();
    let client = || -> Result<Vec<Duration>> {
        let mut each = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= last {
                return Ok(each);
            }
            ensure!(!interrupt.has_come(), "interrupted");
            let sent = Instant::now();
            let state = api.run_to_end("fulfillOrder", &order(n))?;
            ensure!(state["status"] == "COMPLETED", "an order was not completed: {state}");
            each.push(sent.elapsed());
        }
    };
    let each = thread::scope(|scope| -> Result<Vec<Duration>> {
        let clients: Vec<_> = (0..concurrency).map(|_| scope.spawn(client)).collect();
        let mut each = Vec::new();
        for client in clients {
            each.extend(client.join().expect("a client returns its errors")?);
        }
        Ok(each)
    });
    let all = start.elapsed();
    next.store(last, Ordering::Relaxed);
    let mut each = each?;
    each.sort_unstable();
    Ok(Measured { concurrency, all, each, commits: api.commits()? - commits_before })
}

impl Measured {
    fn runs(&self) -> f64 {
        f64::from(u32::try_from(self.each.len()).unwrap_or(u32::MAX))
    }

    fn percentile_ms(&self, percent: usize) -> f64 {
        let index = (self.each.len() * percent / 100).min(self.each.len() - 1);
        rounded(self.each[index].as_secs_f64() * 1_000.0)
    }

    fn commits_per_run(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let commits = self.commits as f64;
        rounded(commits / self.runs())
    }

    fn row(&self) -> Value {
        json!({
            "name": "order",
            "concurrency": self.concurrency,
            "per_second": (self.runs() / self.all.as_secs_f64()).round(),
            "p50_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "commits_per_run": self.commits_per_run(),
        })
    }
}

/// A table for people, and as its last line the same for programs.
fn report(rows: &[Measured]) -> Vec<String> {
    let rows: Vec<Value> = rows.iter().map(Measured::row).collect();
    let mut lines = vec![format!(
        "{:<8} {:>11} {:>8} {:>8} {:>8} {:>12}",
        "workflow", "concurrency", "runs/s", "p50 ms", "p99 ms", "commits/run"
    )];
    for row in &rows {
        lines.push(format!(
            "{:<8} {:>11} {:>8} {:>8} {:>8} {:>12}",
            row["name"].as_str().unwrap_or_default(),
            row["concurrency"].to_string(),
            row["per_second"].to_string(),
            row["p50_ms"].to_string(),
            row["p99_ms"].to_string(),
            row["commits_per_run"].to_string(),
        ));
    }
    lines.push(json!({ "bench": "saga", "rows": rows }).to_string());
    lines
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn order(n: u32) -> Value {
    json!({
        "orderId": format!("ORD-{n}"),
        "customerId": format!("CUST-{n}"),
        "items": [{"productId": product(n), "quantity": 1, "price": 9.99}],
        "paymentMethod": "card",
        "shipTo": "12 Main St",
    })
}

fn product(n: u32) -> String {
    format!("PROD-{}", n % PRODUCTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_a_table_and_ends_with_the_same_as_json() {
        let each = (1..=100).map(Duration::from_millis).collect();
        let measured = Measured { concurrency: 4, all: Duration::from_secs(2), each, commits: 600 };
        let report = report(&[measured]);
        assert_eq!(report.len(), 3);
        let last: Value = serde_json::from_str(&report[2]).expect("the last line is JSON");
        assert_eq!(
            last,
            json!({"bench": "saga", "rows": [{"name": "order", "concurrency": 4, "per_second": 50.0,
                "p50_ms": 51.0, "p99_ms": 100.0, "commits_per_run": 6.0}]})
        );
    }
}
