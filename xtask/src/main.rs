//! What is done to the project itself: `cargo xtask help`.

mod api;
mod bench;
mod build;
mod chaos;
mod demo;
mod fuzz;
mod generated;
mod host;
mod interrupt;
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
    /// Check everything: format, lints, documentation, and all tests against a real Postgres
    Test(test::Arguments),
    /// Run the three workflows on a host of their own, and tell what happened
    Demo(demo::Arguments),
    /// Run the engine on a model of the database, under thousands of seeds, while everything goes wrong
    Simulate(simulate::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// Kill, freeze and cut off hosts and Postgres while runs go on, and look at what is left
    Chaos(chaos::Arguments),
    /// Throw random texts, types and values at the language and the core (nightly and cargo-fuzz are needed)
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
            // Not the debug form, which adds a backtrace where RUST_BACKTRACE is set: these are no faults of this program.
            output::note(&format!("error: {error}"));
            error.chain().skip(1).for_each(|cause| output::note(&format!("  caused by: {cause}")));
            ExitCode::FAILURE
        }
    }
}
