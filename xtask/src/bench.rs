//! Measurements, each beside its floor: the cost of a call, the runs that a host carries, the time of lists, the memory
//! in use.

mod database;
mod example;
mod growth;
mod history;
mod language;
mod load;
mod memory;
mod neighbours;
mod past;
mod recovery;
mod report;
mod saga;
mod sandbox;
mod stand;
mod store;
mod usage;

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(required = true)]
    name: Vec<Name>,
    #[command(flatten)]
    saga: saga::Load,
    #[command(flatten)]
    neighbours: neighbours::Burners,
    /// saga, neighbours: the host to measure, for comparison with the one built here
    #[arg(long)]
    program: Option<PathBuf>,
    #[command(flatten)]
    growth: growth::Sizes,
    /// recovery, history: how many runs there are [default: 100000 and 1000000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1_000..))]
    runs: Option<u32>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    /// Parsing, checking and lowering of source texts
    Language,
    /// Calls of a component, without a database
    Sandbox,
    /// Acceptances and transitions, without HTTP and guests
    Store,
    /// Orders over REST, through the host, into a durable Postgres
    Saga,
    /// A host that starts with many runs in flight, and with many that wait
    Recovery,
    /// Lists, runs and events in a database with many runs
    History,
    /// The cost of a run in a small database, and in one with a million runs
    Growth,
    /// Small runs beside another tenant's guests that hold threads
    Neighbours,
    /// The host's memory: at rest, with runs in flight, and with runs that wait
    Memory,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    for name in &arguments.name {
        match name {
            Name::Language => language::run(workspace)?,
            Name::Sandbox => sandbox::run(workspace)?,
            Name::Store => store::run(workspace)?,
            Name::Recovery => recovery::run(workspace, arguments.runs.unwrap_or(recovery::RUNS))?,
            Name::History => history::run(workspace, arguments.runs.unwrap_or(history::RUNS))?,
            Name::Growth => growth::run(workspace, &arguments.growth)?,
            Name::Neighbours => {
                neighbours::run(workspace, &arguments.neighbours, arguments.program.as_deref())?
            }
            Name::Memory => memory::run(workspace)?,
            Name::Saga => saga::run(workspace, &arguments.saga, arguments.program.as_deref())?,
        }
    }
    Ok(())
}
