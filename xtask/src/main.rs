//! Commands for the project itself: `cargo xtask help`.

mod api;
mod bench;
mod build;
mod chaos;
mod demo;
mod fuzz;
mod generated;
mod host;
mod interrupt;
mod migrations;
mod mutants;
mod output;
mod progress;
mod simulate;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks, demonstrates and measures Aster", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the host (target/release/aster) and the components (target/components/NAME.wasm)
    Build(build::Arguments),
    /// Run all checks: format, lints, documentation, and all tests against a real Postgres
    Test(test::Arguments),
    /// Run the three example workflows on their own host, and report what happens
    Demo(demo::Arguments),
    /// Run the engine on a model of the database, under thousands of seeds of faults
    Simulate(simulate::Arguments),
    /// Run benchmarks
    Bench(bench::Arguments),
    /// Kill, freeze and cut off hosts and Postgres while runs are under way, and check the result
    Chaos(chaos::Arguments),
    /// Feed random texts, types and values to the language and the core (needs a nightly compiler and cargo-fuzz)
    Fuzz(fuzz::Arguments),
    /// Change the core or the language's checker in many places, one at a time, and see which change no test notices
    /// (cargo-mutants is needed)
    Mutants(mutants::Arguments),
}

fn main() -> ExitCode {
    let result = Workspace::find().and_then(|workspace| match Arguments::parse().command {
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::Test(arguments) => test::run(&workspace, &arguments),
        Command::Demo(arguments) => demo::run(&workspace, &arguments),
        Command::Simulate(arguments) => simulate::run(&workspace, &arguments),
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Chaos(arguments) => chaos::run(&workspace, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Command::Mutants(arguments) => mutants::run(&workspace, &arguments),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The debug form would add a backtrace if RUST_BACKTRACE is set, but these are not faults of this program.
            output::note(&format!("error: {error}"));
            error.chain().skip(1).for_each(|cause| output::note(&format!("  caused by: {cause}")));
            ExitCode::FAILURE
        }
    }
}
