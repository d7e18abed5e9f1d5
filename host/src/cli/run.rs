//! `aster run`

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use ureq::http::StatusCode;

use super::client::{Client, encode};
use super::{Format, FormatArgs, HostArgs, Outcome, print};

/// How often the client asks for the state of a run that takes long.
const POLL: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(super) struct Run {
    /// Full name of the definition, `module.function`, or only the function's name if it is unique.
    definition: String,

    /// JSON file with the workflow's input; `-` reads it from stdin. Without it, the input is empty.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Idempotency key. The same key with the same input names the same run.
    #[arg(long)]
    key: Option<String>,

    /// Wait until the run is over, and exit with 1 unless it is COMPLETED.
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    host: HostArgs,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let input = self.input.as_deref().map(read_input).transpose()?.unwrap_or_default();
        let client = self.host.client()?;
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(self.key.as_deref().map(|key| ("Idempotency-Key", key)));
        headers.extend(self.wait.then_some(("Prefer", "wait=20")));
        let path = format!("/api/definitions/{}/runs", encode(&self.definition));
        let answer = client.send("POST", &path, &headers, input)?;
        let started: Value = answer.json()?;
        let id = started["workflowId"].as_str().context("the host's answer has no `workflowId`")?.to_owned();
        if !self.wait {
            match self.format.format {
                Format::Json => print::json(&started)?,
                Format::Text => print::data(&id)?,
            }
            if started["created"] == false {
                print::note("this run was started earlier, with the same key and input");
            }
            print::tip(format_args!("aster runs show {id}"));
            return Ok(Outcome::Fine);
        }
        let state = if answer.status == StatusCode::OK { started } else { wait(&client, &id)? };
        self.print(&id, &state)?;
        Ok(if state["status"] == "COMPLETED" { Outcome::Fine } else { Outcome::Faulty })
    }

    fn print(&self, id: &str, state: &Value) -> anyhow::Result<()> {
        if self.format.format == Format::Json {
            return print::json(state);
        }
        print::note(format_args!("{id} {}", state["status"].as_str().unwrap_or_default()));
        match state["error"]["message"].as_str() {
            Some(message) => print::note(format_args!("  {message}")),
            None => print::json(&state["result"])?,
        }
        print::tip(format_args!("aster runs events {id}"));
        Ok(())
    }
}

fn read_input(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut input = Vec::new();
        std::io::stdin().lock().read_to_end(&mut input).context("can't read the input from stdin")?;
        return Ok(input);
    }
    fs::read(path).with_context(|| format!("can't read the input `{}`", path.display()))
}

/// Waits until the run is over, and returns its state.
fn wait(client: &Client, id: &str) -> anyhow::Result<Value> {
    print::note(format_args!("waiting for {id}; interrupting this command does not stop the run"));
    loop {
        let state: Value = client.get(&format!("/api/workflows/{}", encode(id)))?;
        let status: aster_core::state::Status = state["status"].as_str().unwrap_or_default().parse()?;
        if status.is_over() {
            return Ok(state);
        }
        thread::sleep(POLL);
    }
}
