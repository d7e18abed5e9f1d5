//! Chaos: hosts are killed and frozen, networks are cut, Postgres is stopped and its volume fills up, while clients
//! start runs of all three workflows. Then everything is repaired, and an oracle checks the database.
//!
//! [`run`] does all of this. The submissions and the schedule of faults follow from a seed. How they meet isn't
//! repeatable, since processes and a server take part. `docs/CHAOS.md` is for those who run it.

mod bell;
mod cluster;
mod faults;
mod inject;
mod load;
mod oracle;
mod postgres;
mod progress;
mod proxy;
mod random;
mod report;
mod sql;
mod submission;
mod takeover;
mod volume;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use bell::Bell;
pub use faults::Kind;
pub use report::Report;

use cluster::Cluster;
use inject::{Injector, wait_until};
use load::Load;
use postgres::Server;
use progress::{LONGEST_PAUSE, Watch};
use proxy::Mode;
use sql::Sql;
use submission::{PRODUCTS, STOCK, product};

/// The time for all accepted runs to end when nothing hinders them any more.
const SETTLE_PATIENCE: Duration = Duration::from_secs(180);
/// The time for the first runs to end.
const WARM_UP: Duration = Duration::from_secs(3);
/// The time between two lines about the progress.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Options {
    /// How long faults are injected. Repairing and checking everything takes additional time.
    pub length: Duration,
    pub seed: u64,
    pub hosts: usize,
    /// Submissions a second by all clients together, if the hosts keep up.
    pub rate: u32,
}

/// Runs everything. The report has the violations.
///
/// `folder` gets the logs of hosts and Postgres, and its data. The server's user must be able to enter the folders
/// above it. `say` is called now and then with the progress. When this returns or panics, nothing that was started here
/// is left.
///
/// # Errors
/// Returns an error if something other than Aster fails, or if `interrupt` rings. Then the result is unknown.
pub fn run(
    options: &Options,
    folder: &Path,
    interrupt: &Bell,
    say: &(dyn Fn(String) + Sync),
) -> Result<Report> {
    ensure!(options.hosts > 0, "there must be a host");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // These are dropped from the last to the first: hosts, then Postgres, then the volume.
    let server = Mutex::new(Server::start(folder).context("can't start Postgres")?);
    let (sql, socket, has_volume) = {
        let server = server.lock().unwrap_or_else(PoisonError::into_inner);
        (Sql::new(runtime.handle().clone(), server.options()), server.socket(), server.has_volume())
    };
    let cluster = Cluster::start(runtime.handle(), &socket, options.hosts, folder)?;
    cluster.set_up()?;
    seed_stock(&cluster)?;

    let mut kinds = Kind::ALL.to_vec();
    if !has_volume {
        say("no volume can be mounted here: the disk won't be full".to_owned());
        kinds.retain(|kind| *kind != Kind::DiskFull);
    }
    let faults = faults::schedule(options.seed, options.length, options.hosts, &kinds);
    let load = Load::new(&cluster, options.seed, options.rate);
    let injector = Injector::new(&cluster, &server, &sql, say);
    let watch = Watch::default();
    let bells = Bells::default();
    let began = Instant::now();
    let times = thread::scope(|scope| -> Result<Times> {
        // However this function ends, no thread waits longer than until then.
        let _at_end = [&bells.end, &bells.give_up, &bells.over].map(Bell::ring_at_end);
        scope.spawn(|| cluster.keep(&bells.over));
        scope.spawn(|| injector.keep_server(&bells.over));
        scope.spawn(|| watch.keep(&sql, &bells.end));
        let injecting = scope.spawn(|| injector.run(scope, faults, &bells.end, &bells.over));
        let clients: Vec<_> = (0..load::CLIENTS)
            .map(|client| {
                let (load, bells) = (&load, &bells);
                scope.spawn(move || load.run_client(client, &bells.end, &bells.give_up))
            })
            .collect();

        while began.elapsed() < options.length {
            let left = options.length.saturating_sub(began.elapsed());
            ensure!(!interrupt.wait(PROGRESS.min(left)), "interrupted");
            let (seconds, by_host) = (began.elapsed().as_secs_f64(), load.accepted());
            let (runs, faults) = (by_host.iter().sum::<u64>(), injector.count());
            say(format!("{seconds:>7.1} s  {runs} accepted, by host {by_host:?}; {faults} faults"));
        }
        bells.end.ring();
        let loaded = began.elapsed();

        // When this thread has ended, every fault is undone.
        injecting.join().expect("faults return their failures");
        server.lock().unwrap_or_else(PoisonError::into_inner).ensure_running()?;
        (0..cluster.len()).for_each(|host| cluster.set_network(host, Mode::Pass));
        cluster.wait_ready()?;
        let healed = Instant::now();
        let is_settled = wait_until(SETTLE_PATIENCE, || {
            let is_accepted = clients.iter().all(|client| client.is_finished());
            interrupt.has_rung() || (is_accepted && oracle::unfinished(&sql).is_ok_and(|runs| runs == 0))
        });
        ensure!(!interrupt.has_rung(), "interrupted");
        let settled = healed.elapsed();
        let what = if is_settled { "everything is over" } else { "not everything is over" };
        say(format!("{what} {:.1} s after the last fault was undone", settled.as_secs_f64()));
        Ok(Times { loaded, settled })
    })?;
    say("looking at what is left".to_owned());
    let (book, done) = (load.into_book(), injector.into_done());
    let mut findings = oracle::examine(&sql, &cluster, options.seed, &book)?;
    let lives = cluster.lives();
    for what in lives.ended_by_themselves.iter().chain(&done.failures) {
        findings.violations.add(what.clone());
    }
    // The first runs wait for their components to be compiled.
    let progress = watch.progress(began + WARM_UP, began + times.loaded, &done.in_force);
    if progress.longest_pause > LONGEST_PAUSE {
        let seconds = progress.longest_pause.as_secs_f64();
        findings.violations.add(format!("no run ended for {seconds:.1} s while no fault was in force"));
    }
    Ok(Report { options: options.clone(), has_volume, times, book, done, lives, progress, findings })
}

/// Signals for the threads.
#[derive(Debug, Default)]
struct Bells {
    /// Ends new faults and submissions, and the faults that are in force.
    end: Bell,
    /// Submissions that aren't accepted by now are given up.
    give_up: Bell,
    /// Ends the replacement of processes.
    over: Bell,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// How long submissions were sent.
    loaded: Duration,
    /// The time from the end of all faults to the end of all runs.
    settled: Duration,
}

fn seed_stock(cluster: &Cluster) -> Result<()> {
    for product in (0..PRODUCTS).map(product) {
        let path = format!("/api/components/inventory/keyvalue/stock/{product}");
        let answer = cluster.client(0).request("PUT", &path, &[], STOCK.to_string().as_bytes());
        let status = answer.with_context(|| format!("can't put {product} on stock"))?.status;
        ensure!(matches!(status, 200..300), "{product} can't be put on stock: {status}");
    }
    Ok(())
}
