//! How many orders a host carries: good orders by REST from many clients, until the last run is over.
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

/// Products are drawn in turn: with one, every order would wait for the same row.
const PRODUCTS: u32 = 100;
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub(crate) struct Load {
    /// saga: how many orders are sent
    #[arg(long, default_value_t = 10_000)]
    orders: u32,
    /// saga: how many clients send them, one after the other each
    #[arg(long, default_value_t = 32)]
    clients: u32,
}

struct Measured {
    /// From the first order to the last answer.
    accepting: Duration,
    /// From the first order until no run is unfinished.
    all: Duration,
    /// Of each order's answer, sorted.
    answers: Vec<Duration>,
}

pub(crate) fn run(workspace: &Workspace, load: &Load) -> Result<()> {
    ensure!(load.orders > 0 && load.clients > 0, "there is nothing to measure without orders and clients");
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
        stock(host.api(), load)
    })?;
    let measured = stages.doing("orders", || measure(host.api(), load, &interrupt))?;
    drop(host);
    stages.finish("measured");
    output::line(&report(load, &measured));
    Ok(())
}

fn stock(api: &Api, load: &Load) -> Result<()> {
    (0..PRODUCTS).try_for_each(|n| api.put_value("inventory", "stock", &product(n), &load.orders.to_string()))
}

fn measure(api: &Api, load: &Load, interrupt: &Interrupt) -> Result<Measured> {
    let next = AtomicU32::new(0);
    let start = Instant::now();
    let client = || -> Result<Vec<Duration>> {
        let mut answers = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= load.orders {
                return Ok(answers);
            }
            ensure!(!interrupt.has_come(), "interrupted");
            let sent = Instant::now();
            api.trigger("/api/orders", &order(n))?;
            answers.push(sent.elapsed());
        }
    };
    let mut answers = thread::scope(|scope| -> Result<Vec<Duration>> {
        let clients: Vec<_> = (0..load.clients).map(|_| scope.spawn(client)).collect();
        let mut answers = Vec::new();
        for client in clients {
            answers.extend(client.join().expect("a client returns its errors")?);
        }
        Ok(answers)
    })?;
    let accepting = start.elapsed();
    wait_until_drained(api, load, interrupt)?;
    answers.sort_unstable();
    Ok(Measured { accepting, all: start.elapsed(), answers })
}

fn wait_until_drained(api: &Api, load: &Load, interrupt: &Interrupt) -> Result<()> {
    let start = Instant::now();
    loop {
        let counts = api.metrics()?;
        let count = |status: &str| counts[status].as_u64().unwrap_or(0);
        if ["READY", "RUNNING", "COMPENSATING"].into_iter().map(count).sum::<u64>() == 0 {
            let completed = count("COMPLETED");
            ensure!(
                completed == u64::from(load.orders),
                "of {} orders, {completed} were completed",
                load.orders
            );
            return Ok(());
        }
        ensure!(!interrupt.has_come(), "interrupted");
        ensure!(start.elapsed() < DRAIN_PATIENCE, "runs are unfinished after {DRAIN_PATIENCE:?}: {counts}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn report(load: &Load, measured: &Measured) -> String {
    let per_second = |time: Duration| f64::from(load.orders) / time.as_secs_f64();
    let percentile = |percent: usize| {
        let index = (measured.answers.len() * percent / 100).min(measured.answers.len() - 1);
        measured.answers[index].as_secs_f64() * 1_000.0
    };
    format!(
        "saga: {} orders from {} clients: accepted {:.0}/s, completed {:.0}/s; answers p50 {:.1} ms, p99 {:.1} ms",
        load.orders,
        load.clients,
        per_second(measured.accepting),
        per_second(measured.all),
        percentile(50),
        percentile(99)
    )
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
    fn the_report_has_rates_and_percentiles() {
        let load = Load { orders: 100, clients: 4 };
        let answers = (1..=100).map(Duration::from_millis).collect();
        let measured = Measured { accepting: Duration::from_secs(1), all: Duration::from_secs(2), answers };
        assert_eq!(
            report(&load, &measured),
            "saga: 100 orders from 4 clients: accepted 100/s, completed 50/s; answers p50 51.0 ms, p99 100.0 ms"
        );
    }
}
