//! What a call of a component costs: an example of the host's crate, which knows the sandbox from inside.

use anyhow::Result;

use crate::build;
use crate::progress::Stages;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    let mut example =
        workspace.cargo(["run", "--release", "--package", "aster-host", "--example", "bench_sandbox"]);
    example.env("ASTER_COMPONENTS", workspace.components());
    stages.run_openly("sandbox", example)?;
    stages.finish("measured");
    Ok(())
}
