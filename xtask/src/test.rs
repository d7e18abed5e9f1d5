//! All checks as CI runs them, the fastest first.

use std::process::Command;

use anyhow::{Context, Result};
use aster_postgres::{Embedded, Options};

use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::{WASM_TARGET, Workspace, has_cargo_command};
use crate::{build, generated, migrations};

/// Enough for a pool per test on as many cores as a developer has.
const MAX_CONNECTIONS: u32 = 300;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only the tests, without formatting, lints and documentation
    #[arg(long)]
    no_lint: bool,
    /// Run only the tests whose names contain one of these
    filter: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::new();
    // The guests' lints come before their build.
    build::add_target(&mut stages)?;
    if !arguments.no_lint {
        lint(workspace, &mut stages)?;
    }
    build::components(workspace, &mut stages)?;
    stages.run("host", workspace.cargo(["build", "--package", "aster-host", "--bin", "aster"]))?;

    // A Ctrl-C ends the command that runs. Its failure ends this process after Postgres has been stopped.
    let _interrupt = Interrupt::install()?;
    let folder =
        tempfile::Builder::new().prefix("aster-test-").tempdir().context("can't make a temporary folder")?;
    let postgres = stages.doing("Postgres", || {
        let options =
            Options { durable: false, max_connections: MAX_CONNECTIONS, ..Options::new(folder.path()) };
        Ok(Embedded::start(options)?)
    })?;
    tests(workspace, &mut stages, &postgres, &arguments.filter)?;
    if arguments.filter.is_empty() {
        stages.run("guests' tests", workspace.guest_cargo("test", ["--workspace"]))?;
        generated::check(workspace, &mut stages, postgres.url())?;
    }
    postgres.stop();
    stages.finish("all checks passed");
    Ok(())
}

fn lint(workspace: &Workspace, stages: &mut Stages) -> Result<()> {
    stages.run("format", workspace.cargo(["fmt", "--all", "--check"]))?;
    stages.run("guests' format", workspace.guest_cargo("fmt", ["--all", "--check"]))?;
    let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
    stages.run("fuzz targets' format", workspace.cargo(fuzz))?;
    stages.doing("migrations of released versions", || migrations::check(workspace))?;
    let mut clippy = workspace.cargo(["clippy", "--workspace", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    stages.run("clippy", clippy)?;
    let mut clippy =
        workspace.guest_cargo("clippy", ["--workspace", "--all-targets", "--target", WASM_TARGET]);
    clippy.args(["--", "-D", "warnings"]);
    stages.run("guests' clippy", clippy)?;
    let mut doc = workspace.cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    stages.run("documentation", doc)?;
    if has_cargo_command("deny") {
        // Advisories are not checked here: they come from elsewhere, and appear without a change of ours.
        stages.run("licences and bans", workspace.cargo(["deny", "check", "bans", "licenses", "sources"]))?;
    }
    Ok(())
}

fn tests(workspace: &Workspace, stages: &mut Stages, postgres: &Embedded, filter: &[String]) -> Result<()> {
    let run = |stages: &mut Stages, name: &str, mut command: Command| {
        command
            .env("DATABASE_URL", postgres.url())
            .env("ASTER_BIN", workspace.debug_host())
            .env("ASTER_COMPONENTS", workspace.components());
        stages.run_openly(name, command)
    };
    if has_cargo_command("nextest") {
        let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
        let mut nextest = workspace.cargo(["nextest", "run", "--workspace", "--profile", profile]);
        nextest.args(filter);
        run(stages, "tests", nextest)?;
        if filter.is_empty() {
            run(stages, "examples in the documentation", workspace.cargo(["test", "--workspace", "--doc"]))?;
        }
    } else {
        let mut test = workspace.cargo(["test", "--workspace", "--"]);
        test.args(filter);
        run(stages, "tests", test)?;
    }
    Ok(())
}
