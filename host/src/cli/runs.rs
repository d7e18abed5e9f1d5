//! `aster runs …`

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, encode};
use super::{Format, FormatArgs, HostArgs, Outcome, print};

/// The most events that the host returns at once.
const EVENTS_A_TIME: usize = 1_000;

#[derive(Subcommand, Debug)]
pub(super) enum Runs {
    /// List runs, newest first.
    List(List),
    /// Show a run.
    Show(One),
    /// Show the events of a run.
    Events(One),
    /// Cancel a run, and undo what it did.
    Cancel(Cancel),
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Show only runs in this status, such as RUNNING.
    #[arg(long)]
    status: Option<String>,

    /// Show only runs of this definition.
    #[arg(long)]
    definition: Option<String>,

    /// Show only runs that failed for this cause: STEP, TIMEOUT or CANCEL.
    #[arg(long)]
    cause: Option<String>,

    /// Show at most this many runs.
    #[arg(long, default_value_t = 50)]
    limit: u32,

    /// Continue after an earlier list: its `nextCursor`.
    #[arg(long)]
    cursor: Option<String>,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args, Debug)]
pub(super) struct One {
    /// The run's id.
    #[arg(value_name = "WORKFLOW_ID")]
    id: String,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    host: HostArgs,
}

#[derive(Args, Debug)]
pub(super) struct Cancel {
    /// The run's id.
    #[arg(value_name = "WORKFLOW_ID")]
    id: String,

    #[command(flatten)]
    host: HostArgs,
}

impl Runs {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::List(list) => list.run()?,
            Self::Show(one) => one.show()?,
            Self::Events(one) => one.events()?,
            Self::Cancel(Cancel { id, host }) => {
                let path = format!("/api/workflows/{}/cancel", encode(&id));
                host.client()?.send("POST", &path, &[], Vec::new())?;
                print::tip(format_args!("aster runs events {id}"));
            }
        }
        Ok(Outcome::Fine)
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let mut path = format!("/api/workflows?limit={}", self.limit);
        let filters = [
            ("status", &self.status),
            ("definition", &self.definition),
            ("cause", &self.cause),
            ("cursor", &self.cursor),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        let page: Value = self.host.client()?.get(&path)?;
        if self.format.format == Format::Json {
            return print::json(&page);
        }
        let header = ["WORKFLOW ID", "STATUS", "DEFINITION", "KEY", "CREATED"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for run in page["items"].as_array().into_iter().flatten() {
            let fields = ["workflowId", "status", "definition", "key", "createdAt"];
            rows.push(fields.map(|field| text(&run[field])).to_vec());
        }
        match rows.len() {
            1 => print::note("no runs"),
            _ => print::table(&rows)?,
        }
        if let Some(cursor) = page["nextCursor"].as_str() {
            print::tip(format_args!("--cursor {cursor} shows more runs"));
        }
        Ok(())
    }
}

impl One {
    fn show(self) -> anyhow::Result<()> {
        let run: Value = self.host.client()?.get(&format!("/api/workflows/{}", encode(&self.id)))?;
        if self.format.format == Format::Json {
            return print::json(&run);
        }
        let fields = [
            "workflowId",
            "definition",
            "key",
            "status",
            "cause",
            "createdAt",
            "updatedAt",
            "deadline",
            "error",
        ];
        let shown = fields.iter().filter(|field| !run[**field].is_null());
        let mut rows: Vec<_> = shown.map(|field| vec![format!("{field}:"), text(&run[*field])]).collect();
        rows.extend(["input", "result"].map(|field| vec![format!("{field}:"), run[field].to_string()]));
        print::table(&rows)?;
        print::tip(format_args!("aster runs events {}", self.id));
        Ok(())
    }

    fn events(self) -> anyhow::Result<()> {
        let client = self.host.client()?;
        let events = all_events(&client, &self.id)?;
        if self.format.format == Format::Json {
            return print::json(&events);
        }
        let row = |event: &Value| {
            let payload = &event["payload"];
            let step = text(&payload["step"]);
            let what = match payload["error"]["message"].as_str() {
                Some(message) => message.to_owned(),
                None => text(&payload["cause"]),
            };
            vec![text(&event["sequence"]), text(&event["occurredAt"]), text(&event["eventType"]), step, what]
        };
        print::table(&events.iter().map(row).collect::<Vec<_>>())
    }
}

/// Loads the whole log, however long it is.
fn all_events(client: &Client, id: &str) -> anyhow::Result<Vec<Value>> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let from = events.len() + 1;
        let path = format!("/api/workflows/{}/events?fromSeq={from}&limit={EVENTS_A_TIME}", encode(id));
        let more: Vec<Value> = client.get(&path)?;
        // A page may be short because its events are large.
        if more.is_empty() {
            return Ok(events);
        }
        events.extend(more);
    }
}

/// Shows a text as it is, null as an empty text, an error by its message, and everything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.contains_key("message") => text(&fields["message"]),
        other => other.to_string(),
    }
}
