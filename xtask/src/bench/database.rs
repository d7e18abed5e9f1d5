//! The host's database, queried beside the host.

use std::process::Command;

use anyhow::{Context, Result, bail};
use aster_postgres::Programs;

pub(super) struct Database {
    pub(super) programs: Programs,
    pub(super) url: String,
}

impl Database {
    pub(super) fn new(url: &str) -> Result<Self> {
        Ok(Self { programs: Programs::find()?, url: url.to_owned() })
    }

    pub(super) fn psql(&self) -> Command {
        let mut psql = self.programs.command("psql");
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "-v",
            "ON_ERROR_STOP=1",
            "--dbname",
            &self.url,
        ]);
        psql
    }

    /// Executes each statement in a transaction of its own. No text in the statements may contain a semicolon.
    pub(super) fn execute(&self, sql: &str) -> Result<()> {
        self.ask(sql).map(drop)
    }

    /// Returns the answer of the statements: a line for each row, with columns separated by `|`.
    pub(super) fn ask(&self, sql: &str) -> Result<String> {
        let mut psql = self.psql();
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            psql.args(["--command", statement]);
        }
        output(psql)
    }
}

/// Counts the runs as hosts would have done. Runs made by SQL are not counted otherwise.
pub(super) const COUNT_RUNS: &str = "delete from run_count;
    insert into run_count (host_id, by_acceptance, tenant, definition, status, n)
    select '00000000-0000-0000-0000-000000000000', false, tenant, definition, status, count(*)
    from workflow_run
    group by tenant, definition, status";

/// Returns the output of a program.
pub(super) fn output(mut command: Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("can't run `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
