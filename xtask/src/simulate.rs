//! Simulations of the whole engine: thousands of seeds, or one that failed, again.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `--seed N`: one, told in full. `--from N --seeds N`: many (10000 by default). `--bug NAME|all`: with a planted bug.
    /// `--log`: with the logs of the hosts
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut cargo =
        workspace.cargo(["run", "--quiet", "--package", "aster-host", "--features", "simulation"]);
    cargo.args(["--example", "simulate", "--"]);
    match cargo.args(&arguments.arguments).status()?.success() {
        true => Ok(()),
        false => bail!("what must never happen did"),
    }
}
