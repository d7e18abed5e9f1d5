//! Runs the fuzz targets of `fuzz/`, with a nightly compiler and cargo-fuzz.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::progress::Stages;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Target to run [default: all, one after the other]
    target: Option<Target>,
    /// Seconds that each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// Source texts
    Language,
    /// Types of components, and JSON for them
    Values,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Values => "values",
        }
    }

    /// Folders with inputs to begin with, besides those that it found before. They are only read.
    fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::Language => &["crates/dsl/tests/cases", "workflows"],
            Self::Values => &[],
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Language => &["-dict=fuzz/language.dict", "-max_len=16384"],
            Self::Values => &["-max_len=4096"],
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if !succeeds(rustup(["rustc", "--version"])) {
        bail!("fuzzing needs a nightly compiler: run `rustup toolchain install nightly`");
    }
    if !succeeds(rustup(["cargo", "fuzz", "--version"])) {
        bail!("fuzzing needs cargo-fuzz: run `cargo install cargo-fuzz`");
    }
    let mut stages = Stages::new();
    for target in arguments.target.map_or(Target::value_variants().to_vec(), |target| vec![target]) {
        let corpus = workspace.folder("fuzz").join("corpus").join(target.name());
        std::fs::create_dir_all(&corpus)?;
        let mut fuzz = rustup(["cargo", "fuzz", "run"]);
        fuzz.current_dir(workspace.folder("")).arg(target.name()).arg(corpus).args(target.seeds());
        // A text or value that takes seconds is a finding.
        fuzz.args(["--", "-timeout=10", &format!("-max_total_time={}", arguments.seconds)]);
        fuzz.args(target.options());
        stages.run_openly(target.name(), fuzz)?;
    }
    stages.finish("found nothing");
    Ok(())
}

fn rustup<const N: usize>(command: [&str; N]) -> Command {
    let mut rustup = Command::new("rustup");
    // The variable would choose the compiler that builds this program.
    rustup.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").args(["run", "nightly"]).args(command);
    rustup
}

fn succeeds(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
