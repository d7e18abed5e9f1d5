//! Files in the repository that are made from others, and whether they are current.

use std::process::Command;

use anyhow::Result;

use crate::progress::Stages;
use crate::workspace::Workspace;

/// A file or folder that a command makes from something else.
struct Generated {
    /// For the line that says what is checked.
    name: &'static str,
    /// Fails if what is committed differs from what would be made; arguments of cargo.
    check: &'static [&'static str],
}

/// An entry here is checked by `cargo xtask test`.
const GENERATED: &[Generated] = &[];

/// `database_url` is that of a database server that the checks may use.
pub(crate) fn check(workspace: &Workspace, stages: &mut Stages, database_url: &str) -> Result<()> {
    for generated in GENERATED {
        let mut cargo: Command = workspace.cargo([]);
        cargo.args(generated.check).env("DATABASE_URL", database_url);
        stages.run(&format!("{} is current", generated.name), cargo)?;
    }
    Ok(())
}
