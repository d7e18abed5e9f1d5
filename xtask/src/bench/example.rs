//! Benchmarks that are examples of the crate which they know from inside: they print their rows as a JSON array, and nothing
//! else.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::progress::Stages;
use crate::workspace::Workspace;

/// Builds the example as it would be deployed and runs it.
pub(super) fn rows(
    workspace: &Workspace,
    stages: &mut Stages,
    package: &str,
    name: &str,
) -> Result<Vec<Value>> {
    let build = ["build", "--release", "--package", package, "--example", name];
    stages.run("build", workspace.cargo(build))?;
    stages.doing("measures", || {
        let program = workspace.release("examples").join(name);
        let mut command = std::process::Command::new(&program);
        let output = command.env("ASTER_COMPONENTS", workspace.components()).output();
        let output = output.with_context(|| format!("can't run `{}`", program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{name}` failed ({}): {errors}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("`{name}` printed no JSON array"))
    })
}
