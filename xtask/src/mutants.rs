//! Mutants of the core and of the language's checker, with cargo-mutants: it finds changes of the code that no test
//! notices.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::progress::Stages;
use crate::workspace::{Workspace, has_cargo_command};

/// A mutant that never ends may also record events without end, and would take all memory before its time is over.
const MEMORY: u64 = 8 << 30;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to mutate [default: both, one after the other]
    target: Option<Target>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// The saga: its decisions, its state and its orders
    Core,
    /// The language's checker, and its types
    Dsl,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Dsl => "dsl",
        }
    }

    /// The package that is changed, and whose own tests have to notice.
    fn package(self) -> &'static str {
        match self {
            Self::Core => "aster-core",
            Self::Dsl => "aster-dsl",
        }
    }

    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Core => {
                &["crates/core/src/saga.rs", "crates/core/src/state.rs", "crates/core/src/order.rs"]
            }
            Self::Dsl => &["crates/dsl/src/check/*.rs", "crates/dsl/src/types/*.rs"],
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if !has_cargo_command("mutants") {
        bail!("mutants need cargo-mutants, and it isn't there: `cargo install cargo-mutants --locked`");
    }
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    setrlimit(Resource::As, limit).context("can't limit the memory of the tests")?;
    let mut stages = Stages::new();
    for target in arguments.target.map_or(Target::value_variants().to_vec(), |target| vec![target]) {
        let output = workspace.target().join("mutants").join(target.name());
        std::fs::create_dir_all(&output)?;
        let mut mutants = workspace.cargo(["mutants", "--package", target.package(), "--output"]);
        mutants.arg(output);
        for file in target.files() {
            mutants.args(["--file", file]);
        }
        stages.run_openly(target.name(), mutants)?;
    }
    stages.finish("every mutant was noticed");
    Ok(())
}
