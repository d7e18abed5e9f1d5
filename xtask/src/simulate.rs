//! Simulations of the whole engine: thousands of seeds, or one that failed.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `--seed N`: simulate one seed and print everything. `--from N --seeds N`: simulate many (10000 by default).
    /// `--bug NAME|all`: with a planted bug. `--log`: with the logs of the hosts
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut cargo = workspace.cargo(["run", "--quiet", "--package", "aster-simulation", "--"]);
    match cargo.args(&arguments.arguments).status()?.success() {
        true => Ok(()),
        false => bail!("the simulation found a violation"),
    }
}
