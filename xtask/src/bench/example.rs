//! Benchmarks that are examples of the crates whose inside they use. They print their rows as a JSON array, and nothing
//! else.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::progress::Stages;
use crate::workspace::Workspace;

/// Builds the example with release settings, and runs it.
pub(super) fn rows(
    workspace: &Workspace,
    stages: &mut Stages,
    package: &str,
    name: &str,
) -> Result<Vec<Value>> {
    let program = build(workspace, stages, package, name)?;
    run(&program, stages, ("ASTER_COMPONENTS", workspace.components().as_ref()))
}

pub(super) fn build(
    workspace: &Workspace,
    stages: &mut Stages,
    package: &str,
    name: &str,
) -> Result<PathBuf> {
    let build = ["build", "--release", "--package", package, "--example", name];
    stages.run("build", workspace.cargo(build))?;
    Ok(workspace.release("examples").join(name))
}

/// Runs the example with one more environment variable.
pub(super) fn run(program: &Path, stages: &mut Stages, variable: (&str, &OsStr)) -> Result<Vec<Value>> {
    stages.doing("measures", || {
        let name = program.display();
        let output = Command::new(program).env(variable.0, variable.1).output();
        let output = output.with_context(|| format!("can't run `{name}`"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{name}` failed ({}): {errors}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("`{name}` didn't print a JSON array"))
    })
}
