//! Checks whether generated files in the repository are current.

use std::process::Command;

use anyhow::Result;

use crate::progress::Stages;
use crate::workspace::Workspace;

/// A file or folder that a command generates from something else.
struct Generated {
    /// The name that the check's output shows.
    name: &'static str,
    /// Arguments of cargo for a command that fails if the committed file differs from the generated one.
    check: &'static [&'static str],
}

/// `cargo xtask test` checks these entries.
const GENERATED: &[Generated] = &[];

/// Checks the entries. `database_url` is that of a database server that the checks may use.
pub(crate) fn check(workspace: &Workspace, stages: &mut Stages, database_url: &str) -> Result<()> {
    for generated in GENERATED {
        let mut cargo: Command = workspace.cargo([]);
        cargo.args(generated.check).env("DATABASE_URL", database_url);
        stages.run(&format!("{} is current", generated.name), cargo)?;
    }
    Ok(())
}
