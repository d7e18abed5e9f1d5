//! The command line. `aster serve` and `aster check` do their work themselves; every other command asks a running host.
//!
//! Data goes to stdout and everything else to stderr, so that output can be piped. Commands that read have the flag
//! `--format json` for programs. The exit code is 0 if all is well, 1 if the thing that was checked or sent has faults,
//! and 2 if aster itself failed.

mod check;
mod client;
mod component;
mod deploy;
mod print;
mod run;
mod runs;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::client::Client;
use crate::sandbox;

/// Runs durable workflows whose steps are WebAssembly components.
#[derive(Parser, Debug)]
#[command(name = "aster", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a host.
    Serve(Box<serve::Serve>),
    /// Run a host that redeploys the components and workflows of a folder when they change (not built yet).
    Dev {
        /// The folder to watch.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Check workflow files without a host.
    Check(check::Check),
    /// Manage the components on a host.
    #[command(subcommand)]
    Component(component::Component),
    /// Deploy workflow files to a host.
    Deploy(deploy::Deploy),
    /// Start a run.
    Run(run::Run),
    /// Look at runs, and cancel them.
    #[command(subcommand)]
    Runs(runs::Runs),
    /// Compile the component on standard input. A host starts this command for each component that it compiles.
    #[command(name = sandbox::SUBCOMMAND, hide = true)]
    CompileComponent { order: Vec<String> },
}

/// The host to ask, and the tenant and user to act for.
#[derive(Args, Debug)]
struct HostArgs {
    /// URL of the host.
    #[arg(long, env = "ASTER_HOST", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    host: String,

    /// Tenant to act for.
    #[arg(long, env = "ASTER_TENANT", value_name = "NAME")]
    tenant: Option<String>,

    /// Name of the acting user, for the host's log.
    #[arg(long, env = "ASTER_USER", value_name = "NAME")]
    user: Option<String>,
}

impl HostArgs {
    fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.host, self.tenant.clone(), self.user.clone())
    }
}

/// The format of a command's output.
#[derive(Args, Clone, Copy, Debug)]
struct FormatArgs {
    /// Print for people, or for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Fine,
    /// The thing that was checked or sent has faults.
    Faulty,
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Dev { dir } => Err(anyhow::anyhow!(
            "`aster dev {}` is not built yet: use `aster serve`, `aster component push` and `aster deploy` instead",
            dir.display()
        )),
        Command::Check(check) => check.run(),
        Command::Component(component) => component.run(),
        Command::Deploy(deploy) => deploy.run(),
        Command::Run(run) => run.run(),
        Command::Runs(runs) => runs.run(),
        Command::CompileComponent { order } => match sandbox::Order::parse(&order) {
            Some(order) => return sandbox::compile_ordered(&order),
            None => Err(anyhow::anyhow!("`aster {}` is only for use by hosts", sandbox::SUBCOMMAND)),
        },
    };
    match done {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Faulty) => ExitCode::from(1),
        // The reader of the output has closed the pipe, which is no error.
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<client::Refusal>() {
            Some(refusal) => {
                refusal.print();
                ExitCode::from(if refusal.is_fault_of_the_content() { 1 } else { 2 })
            }
            None => {
                print::error(&error);
                ExitCode::from(2)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_that_scripts_rely_on_are_there() {
        for line in [
            "aster serve --listen 127.0.0.1:8080 --database-url postgres://localhost/aster",
            "aster serve --data-dir d",
            "aster dev",
            "aster dev dir",
            "aster check a.aster b.aster --components dir --format json",
            "aster component push NAME FILE",
            "aster deploy a.aster b.aster",
            "aster run fulfillOrder --input order.json --key k --wait",
            "aster run fulfillOrder --host http://localhost:1",
            "aster runs list",
            "aster runs list --status COMPLETED --format json",
            "aster runs show 019a",
            "aster runs events 019a --format json",
            "aster runs cancel 019a",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["aster serve --data-dir d --database-url u", "aster check", "aster deploy"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
