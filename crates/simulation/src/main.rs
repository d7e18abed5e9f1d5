//! Simulations of the whole engine, for many seeds or one: see `cargo xtask simulate`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aster_simulation::{Bug, Counts, Outcome, simulate};
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// Simulate only this seed, and print everything
    #[arg(long, conflicts_with_all = ["from", "seeds"])]
    seed: Option<u64>,
    /// The first of many seeds
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The number of seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Plant one of the known bugs, by its name in the code; `all` tries each and prints the seed that finds it
    #[arg(long)]
    bug: Option<String>,
    /// Print the logs of the hosts
    #[arg(long)]
    log: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is what this is for")]
fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    if arguments.bug.as_deref() == Some("all") {
        return hunt(arguments.seeds);
    }
    let bug = match &arguments.bug {
        None => None,
        Some(name) => match Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == *name) {
            Some(bug) => Some(bug),
            None => {
                eprintln!("there is no bug `{name}`; there are {:?}", Bug::ALL);
                return 2.into();
            }
        },
    };
    let (from, seeds) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let began = Instant::now();
    let (counts, failed) = run(from, seeds, bug);
    for (name, n) in counts.list() {
        println!("{:>26}  {n}", name.replace('_', " "));
    }
    println!("{seeds} seeds from {from} on, {:.1?}, {} with violations", began.elapsed(), failed.len());
    if !failed.is_empty() {
        println!("at commit {}", commit());
    }
    for outcome in &failed {
        println!("seed {}:", outcome.seed);
        outcome.violations.iter().for_each(|violation| println!("  {violation}"));
        println!("  again: cargo xtask simulate --seed {}", outcome.seed);
    }
    u8::from(!failed.is_empty()).into()
}

/// Returns the version of the code, since a seed means something only together with the code.
fn commit() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// A simulation takes milliseconds. One that takes this long is in a loop, and its clock stands still.
const STUCK: Duration = Duration::from_secs(60);

/// Runs each seed by itself, on all processors.
fn run(from: u64, seeds: u64, bug: Option<Bug>) -> (Counts, Vec<Outcome>) {
    let next = AtomicU64::new(from);
    let all = Mutex::new((Counts::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from.saturating_add(seeds) {
                        return;
                    }
                    let outcome = watched(seed, || simulate(seed, bug));
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.0 += outcome.counts;
                    if !outcome.violations.is_empty() {
                        all.1.push(outcome);
                    }
                }
            });
        }
    });
    let (counts, mut failed) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by_key(|outcome| outcome.seed);
    (counts, failed)
}

/// Ends the process if `simulated` doesn't end.
#[expect(clippy::print_stdout, reason = "it is what this is for")]
fn watched<T>(seed: u64, simulated: impl FnOnce() -> T) -> T {
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if is_done.recv_timeout(STUCK) == Err(RecvTimeoutError::Timeout) {
            println!("seed {seed} does not end\n  again: cargo xtask simulate --seed {seed}");
            std::process::exit(1);
        }
    });
    let simulated = simulated();
    drop(done);
    simulated
}

/// Prints which seed finds each known bug.
#[expect(clippy::print_stdout, reason = "it is what this is for")]
fn hunt(seeds: u64) -> std::process::ExitCode {
    let mut missed = 0;
    for bug in Bug::ALL {
        match (0..seeds).map(|seed| simulate(seed, Some(bug))).find(|outcome| !outcome.violations.is_empty())
        {
            Some(outcome) => println!("{bug:?}: seed {}: {}", outcome.seed, outcome.violations[0]),
            None => {
                missed += 1;
                println!("{bug:?}: NOT FOUND in {seeds} seeds");
            }
        }
    }
    u8::from(missed > 0).into()
}
