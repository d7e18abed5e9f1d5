//! The clients, `aster-load`. They are a program of their own, so that they cost little.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::database;
use crate::progress::Stages;
use crate::workspace::Workspace;

pub(super) fn build(workspace: &Workspace, stages: &mut Stages) -> Result<()> {
    let build = ["build", "--release", "--package", "aster-tests", "--bin", "aster-load"];
    stages.run("clients", workspace.cargo(build))
}

pub(super) struct Clients<'a> {
    workspace: &'a Workspace,
    address: &'a str,
    /// The number of the next request.
    next: u64,
}

pub(super) struct Requests<'a> {
    pub(super) path: &'a str,
    pub(super) body: &'a str,
    pub(super) concurrency: u32,
    pub(super) seconds: f64,
}

/// What the clients saw of their runs, all of which completed.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) runs: f64,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

impl<'a> Clients<'a> {
    pub(super) fn new(workspace: &'a Workspace, address: &'a str) -> Self {
        Self { workspace, address, next: 0 }
    }

    pub(super) fn send(&mut self, requests: &Requests<'_>) -> Result<Seen> {
        let Requests { path, body, concurrency, seconds } = requests;
        let mut clients = Command::new(self.workspace.release("aster-load"));
        clients
            .args(["--address", self.address, "--path", path, "--body", body])
            .args(["--first", &self.next.to_string(), "--concurrency", &concurrency.to_string()])
            .args(["--seconds", &seconds.to_string()]);
        let seen: Value =
            serde_json::from_str(&database::output(clients)?).context("`aster-load` didn't print JSON")?;
        let figure =
            |name: &str| seen[name].as_f64().with_context(|| format!("`aster-load` printed no `{name}`"));
        let runs = figure("runs")?;
        ensure!(
            seen["statuses"].as_object().is_some_and(|all| all.keys().all(|status| status == "COMPLETED")),
            "some runs ended in another status: {}",
            seen["statuses"]
        );
        self.next += 100 * u64::from(*concurrency) + (100.0 * runs).ceil() as u64;
        Ok(Seen {
            runs,
            per_second: runs / figure("seconds")?,
            p50_ms: figure("p50_ms")?,
            p99_ms: figure("p99_ms")?,
        })
    }
}
