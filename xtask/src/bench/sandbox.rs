//! The cost of a call of a component. This runs an example of the host's crate, which uses the sandbox directly.

use anyhow::Result;

use super::example;
use super::report::{self, Column};
use crate::build;
use crate::progress::Stages;
use crate::workspace::Workspace;

const COLUMNS: [Column; 9] = [
    ("name", "what"),
    ("concurrency", "threads"),
    ("per_second", "calls/s"),
    ("cpu_us", "cpu us"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("floor", "compared with"),
    ("floor_per_second", "calls/s"),
    ("ratio", "ratio"),
];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    let rows = example::rows(workspace, &mut stages, "aster-host", "bench_sandbox")?;
    stages.finish("measured");
    report::print("sandbox", &COLUMNS, &rows);
    Ok(())
}
