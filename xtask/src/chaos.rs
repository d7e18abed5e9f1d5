//! Builds a host with release settings and runs the chaos test against it: `docs/CHAOS.md`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long to inject faults
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Seed for the submissions and the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of hosts that share the database
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    hosts: u8,
    /// Submissions a second, if the hosts can keep up
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Keep the logs of hosts and Postgres even if nothing is wrong
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    build::release_host(workspace, &mut stages)?;
    let build = ["build", "--release", "--package", "aster-tests", "--bin", "aster-chaos"];
    stages.run("chaos", workspace.cargo(build))?;
    // A Ctrl-C is for the other program, which cleans up before it ends.
    let _interrupt = Interrupt::install()?;
    let Arguments { minutes, seed, hosts, rate, keep } = arguments;
    let status = Command::new(workspace.release("aster-chaos"))
        .args(["--minutes", &minutes.to_string(), "--seed", &seed.to_string()])
        .args(["--hosts", &hosts.to_string(), "--rate", &rate.to_string()])
        .args(keep.then_some("--keep"))
        .env("ASTER_BIN", workspace.release_host())
        .env("ASTER_COMPONENTS", workspace.components())
        .status()
        .context("can't run `aster-chaos`")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => bail!("a check failed: see VIOLATION above"),
        _ => bail!("the result is unknown: chaos could not complete ({status})"),
    }
}
