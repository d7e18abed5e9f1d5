//! The program behind `cargo xtask chaos`, which builds a host and components for it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use aster_tests::chaos::{self, Bell, Options};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Injects faults into hosts and Postgres while runs are under way, and checks the result")]
struct Arguments {
    /// How long to inject faults
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Seed for the submissions and the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of hosts that share the database
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    hosts: u8,
    /// Submissions a second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Keep the logs of hosts and Postgres even if nothing is wrong
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = Options {
        length: Duration::try_from_secs_f64(arguments.minutes * 60.0)
            .context("`--minutes` is not a valid time")?,
        seed: arguments.seed,
        hosts: arguments.hosts.into(),
        rate: arguments.rate,
    };
    let interrupt = Bell::default();
    let rings = interrupt.clone();
    ctrlc::set_handler(move || rings.ring()).context("can't handle Ctrl-C")?;
    // The folder is below one that the user of Postgres can enter.
    let folder = tempfile::Builder::new().prefix("aster-chaos-").tempdir_in("/tmp")?;
    let report = chaos::run(&options, folder.path(), &interrupt, &|line| note(&line));
    let is_fine = report.as_ref().is_ok_and(|report| report.violations().is_empty());
    if arguments.keep || !(is_fine || interrupt.has_rung()) {
        note(&format!("the logs are in `{}`", folder.keep().display()));
    }
    for line in report?.lines() {
        // A reader that closed the pipe has read enough.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a line about the progress.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
