//! How fast sources are read, checked and lowered. This runs an example of the language's crate.

use anyhow::Result;

use super::example;
use super::report::{self, Column};
use crate::progress::Stages;
use crate::workspace::Workspace;

const COLUMNS: [Column; 9] = [
    ("name", "source"),
    ("steps", "steps"),
    ("bytes", "bytes"),
    ("parse_per_second", "parse MB/s"),
    ("per_second", "check MB/s"),
    ("p50_ms", "check ms"),
    ("us_per_step", "us/step"),
    ("floor_per_second", "words MB/s"),
    ("ratio", "ratio"),
];

const SHAPES: [Column; 6] = [
    ("name", "shape"),
    ("bytes", "bytes"),
    ("diagnostics", "diagnostics"),
    ("plan_bytes", "plan bytes"),
    ("check_ms", "check ms"),
    ("render_ms", "render ms"),
];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    let rows = example::rows(workspace, &mut stages, "aster-dsl", "bench_language")?;
    let shapes = example::rows(workspace, &mut stages, "aster-dsl", "bench_shapes")?;
    stages.finish("measured");
    report::print("language", &COLUMNS, &rows);
    report::print("shapes", &SHAPES, &shapes);
    Ok(())
}
