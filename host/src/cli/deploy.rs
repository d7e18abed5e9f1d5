//! `aster deploy`

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::check::{diagnostics_of, read_source, summary};
use super::client::{Client, Refusal, encode};
use super::{HostArgs, Outcome, print};

#[derive(Args, Debug)]
pub(super) struct Deploy {
    /// Workflow files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    definitions: Vec<Definition>,
    diagnostics: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Definition {
    name: String,
    triggers: Vec<Trigger>,
    created: bool,
}

#[derive(Debug, Deserialize)]
struct Trigger {
    method: String,
    path: String,
}

impl Deploy {
    /// Tries every file, because a fault in one says nothing about the others.
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let client = self.host.client()?;
        let mut outcome = Outcome::Fine;
        for path in &self.files {
            let (file, source) = read_source(path)?;
            let name = path.file_name().map_or(file.clone().into(), |name| name.to_string_lossy());
            if deploy(&client, &file, &name, &source)? == Outcome::Faulty {
                outcome = Outcome::Faulty;
            }
        }
        Ok(outcome)
    }
}

/// Sends only the file's `name` to the host, not its path on this machine.
fn deploy(client: &Client, file: &str, name: &str, source: &str) -> anyhow::Result<Outcome> {
    let path = format!("/api/definitions?file={}", encode(name));
    let headers = [("Content-Type", "text/plain; charset=utf-8")];
    let sent = client.send("POST", &path, &headers, source.as_bytes().to_vec());
    let deployment: Deployment = match sent {
        Ok(answer) => answer.json()?,
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if !refusal.diagnostics.is_empty() => {
                report(file, source, &refusal.diagnostics);
                print::note(format_args!("`{file}` is not deployed"));
                return Ok(Outcome::Faulty);
            }
            _ => return Err(error),
        },
    };
    if !deployment.diagnostics.is_empty() {
        report(file, source, &deployment.diagnostics);
    }
    for definition in &deployment.definitions {
        print::data(&definition.name)?;
        let what = if definition.created { "deployed" } else { "already deployed:" };
        print::note(format_args!("{what} {}", definition.name));
        for Trigger { method, path } in &definition.triggers {
            print::note(format_args!("  answers {method} {path}"));
        }
        print::tip(format_args!("aster run {} --input FILE --wait", definition.name));
    }
    Ok(Outcome::Fine)
}

/// Reports to stderr, because stdout is for the definitions that were deployed.
fn report(file: &str, source: &str, found: &[Value]) {
    let known = diagnostics_of(found);
    print::note(aster_dsl::render(file, source, &known, print::color_of_notes()).trim_end());
    for unknown in found.iter().filter(|found| diagnostics_of(std::slice::from_ref(found)).is_empty()) {
        print::note(unknown);
    }
    print::note(summary(&known, 1));
}
