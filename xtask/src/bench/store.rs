//! The throughput of the store without HTTP and guests. This runs an example of the host's crate on its own durable
//! Postgres.

use anyhow::{Context, Result};
use aster_postgres::{Embedded, Options};

use super::example;
use super::report::{self, Column};
use crate::progress::Stages;
use crate::workspace::Workspace;

const COLUMNS: [Column; 9] = [
    ("name", "transitions"),
    ("concurrency", "at a time"),
    ("per_second", "transitions/s"),
    ("rows_per_second", "events/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("batch", "batch"),
    ("floor_per_second", "plain SQL/s"),
    ("ratio", "ratio"),
];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    let program = example::build(workspace, &mut stages, "aster-host", "bench_store")?;
    // The folder is on the disk that holds the build, because a temporary folder may be in memory.
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(workspace.target())
        .context("can't make a folder for the database")?;
    let postgres =
        stages.doing("Postgres", || Ok(Embedded::start(Options::new(folder.path().join("postgres")))?))?;
    let rows = example::run(&program, &mut stages, ("ASTER_DATABASE_URL", postgres.url().as_ref()))?;
    postgres.stop();
    stages.finish("measured");
    report::print("store", &COLUMNS, &rows);
    Ok(())
}
