//! `aster component …`

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;

use super::client::encode;
use super::{HostArgs, Outcome, print};

#[derive(Subcommand, Debug)]
pub(super) enum Component {
    /// Upload a version of a component and make it the active one.
    Push(Push),
}

#[derive(Args, Debug)]
pub(super) struct Push {
    /// Name under which workflows call it; only the words of the name matter.
    name: String,

    /// The component, a `.wasm` file.
    file: PathBuf,

    /// Upload the version without making it the active one.
    #[arg(long)]
    stage: bool,

    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Upload {
    name: String,
    digest: String,
    size_bytes: u64,
    active: bool,
    created: bool,
    warnings: Vec<String>,
}

impl Component {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::Push(push) => push.run(),
        }
    }
}

impl Push {
    fn run(self) -> anyhow::Result<Outcome> {
        let bytes = fs::read(&self.file).with_context(|| format!("can't read `{}`", self.file.display()))?;
        let query = if self.stage { "?activate=false" } else { "" };
        let path = format!("/api/components/{}{query}", encode(&self.name));
        let headers = [("Content-Type", "application/wasm")];
        let upload: Upload = self.host.client()?.send("PUT", &path, &headers, bytes)?.json()?;
        print::data(&upload.digest)?;
        let size = upload.size_bytes.div_ceil(1024);
        let what = if upload.created { "pushed" } else { "already uploaded:" };
        let state = if upload.active { "active" } else { "staged" };
        print::note(format_args!("{what} {} ({size} KiB), {state}", upload.name));
        for warning in &upload.warnings {
            print::note(format_args!("warning: {warning}"));
        }
        Ok(Outcome::Fine)
    }
}
