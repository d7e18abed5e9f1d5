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
    /// Queries and cursors
    Cursors,
    /// Bytes offered as a component
    Uploads,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Values => "values",
            Self::Cursors => "cursors",
            Self::Uploads => "uploads",
        }
    }

    /// Folders with inputs to begin with, besides those that it found before. They are only read.
    fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::Language => &["crates/dsl/tests/cases", "workflows"],
            // These make their own.
            Self::Values | Self::Cursors | Self::Uploads => &[],
        }
    }

    /// How it is built. The host is safe code: the address sanitizer would find nothing in it, and slow it down.
    fn build(self) -> &'static [&'static str] {
        match self {
            Self::Language | Self::Values => &[],
            Self::Cursors | Self::Uploads => &["--features=host", "--sanitizer=none"],
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Language => &["-dict=fuzz/language.dict", "-max_len=16384"],
            Self::Values => &["-max_len=4096"],
            Self::Cursors => &["-dict=fuzz/cursors.dict", "-max_len=4096"],
            // Components from the start, which are longer than what libFuzzer begins with.
            Self::Uploads => &["-max_len=65536", "-len_control=0"],
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
        fuzz.current_dir(workspace.folder(""))
            .args(target.build())
            .arg(target.name())
            .arg(corpus)
            .args(target.seeds());
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
