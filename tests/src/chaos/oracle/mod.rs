//! Checks what must be true of the database when all runs are over.

mod ledger;
mod log;
mod rest;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::cluster::Cluster;
use super::load::{Accepted, Book};
use super::sql::Sql;
use super::submission::{Fate, Submission};
use log::Event;

/// The time for reading everything that a long run has left.
const PATIENCE: Duration = Duration::from_secs(900);
/// The number of runs that are read at once, with their events.
const PAGE: i64 = 2_000;
/// Violations beyond this number are counted but not listed.
const MOST_TOLD: usize = 50;

/// The findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Ends by their status and cause, for example `COMPENSATED STEP`.
    pub(crate) ends: BTreeMap<String, u64>,
    pub(crate) definitions: BTreeMap<String, u64>,
    /// Runs of which a step or a compensation lost its host three times. That is right, and rare.
    pub(crate) host_lost: u64,
    /// Runs that are COMPENSATION_FAILED for no other reason.
    pub(crate) stuck_by_host_lost: u64,
    /// Attempts that were started again because their host was lost.
    pub(crate) reruns: u64,
    pub(crate) events: u64,
    /// Runs that completed although a host had said that they are cancelled.
    pub(crate) completed_though_cancelled: u64,
    pub(crate) violations: Violations,
}

/// The violations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Violations {
    pub(crate) told: Vec<String>,
    pub(crate) count: usize,
}

impl Violations {
    pub(crate) fn add(&mut self, what: impl Into<String>) {
        self.count += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(what.into());
        }
    }
}

/// A run as its row shows it.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    workflow_id: Uuid,
    definition: String,
    key: Option<String>,
    status: String,
    cause: Option<String>,
    error: Option<Json<Failure>>,
    last_sequence: i64,
    /// Whether the run ended after its deadline.
    is_late: bool,
    is_driven: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Failure {
    code: String,
    message: String,
}

/// The facts about a run that the ledger's check needs.
#[derive(Debug)]
struct Run {
    n: u64,
    is_completed: bool,
    /// The effects of the run that were found, as bits of [`ledger::Kind`].
    effects: u8,
}

type Runs = HashMap<Uuid, Run>;

/// Returns how many runs aren't over.
pub(crate) fn unfinished(sql: &Sql) -> Result<i64> {
    sql.ask(Duration::from_secs(10), async |connection| {
        let unfinished = sqlx::query_scalar(
            "select count(*) from workflow_run where status in ('READY', 'RUNNING', 'COMPENSATING')",
        );
        Ok(unfinished.fetch_one(connection).await?)
    })
}

/// Checks everything. Nothing may write to the database meanwhile.
pub(crate) fn examine(sql: &Sql, cluster: &Cluster, seed: u64, book: &Book) -> Result<Findings> {
    let mut findings = Findings::default();
    for key in &book.given_up {
        findings.violations.add(format!("{key}: was never accepted"));
    }
    for answer in &book.unexpected {
        findings.violations.add(answer.clone());
    }
    let runs = sql.ask(PATIENCE, async |connection| {
        let mut runs = examine_runs(connection, seed, book, &mut findings).await?;
        ledger::examine(connection, seed, &mut runs, &mut findings.violations).await?;
        Ok(runs)
    })?;
    for (n, accepted) in &book.accepted {
        if !runs.contains_key(&accepted.workflow_id) {
            let key = Submission::nth(seed, *n).key;
            findings.violations.add(format!("{key}: its run {} is lost", accepted.workflow_id));
        }
    }
    rest::examine(cluster, sql, &runs, &mut findings)?;
    Ok(findings)
}

async fn examine_runs(
    connection: &mut PgConnection,
    seed: u64,
    book: &Book,
    findings: &mut Findings,
) -> Result<Runs> {
    let mut runs = Runs::new();
    let mut after = Uuid::nil();
    loop {
        let rows = rows(connection, after).await?;
        let Some(last) = rows.last().map(|row| row.workflow_id) else { break };
        let mut events = events(connection, after, last).await?;
        for row in rows {
            let events = events.remove(&row.workflow_id).unwrap_or_default();
            if let Some((n, run)) = examine_run(seed, book, &row, &events, findings) {
                runs.insert(row.workflow_id, Run { n, ..run });
            }
        }
        for stray in events.keys() {
            findings.violations.add(format!("{stray}: has events and no row"));
        }
        after = last;
    }
    let keys_with_several: Vec<String> = sqlx::query_scalar(
        "select definition || ' ' || key from workflow_run group by definition, key having count(*) > 1",
    )
    .fetch_all(connection)
    .await?;
    for key in keys_with_several {
        findings.violations.add(format!("{key}: has several runs"));
    }
    Ok(runs)
}

/// Checks the run's row and log. Returns `None` if no client sent the run.
fn examine_run(
    seed: u64,
    book: &Book,
    row: &Row,
    events: &[Event],
    findings: &mut Findings,
) -> Option<(u64, Run)> {
    let id = row.workflow_id;
    let key = row.key.as_deref().unwrap_or_default();
    let Some((n, submission)) = Submission::of_key(seed, key) else {
        findings.violations.add(format!("{id}: nobody sent its key `{key}`"));
        return None;
    };
    let cause = row.cause.as_deref().map(|cause| format!(" {cause}")).unwrap_or_default();
    *findings.ends.entry(format!("{}{cause}", row.status)).or_default() += 1;
    *findings.definitions.entry(row.definition.clone()).or_default() += 1;
    findings.events += events.len() as u64;
    findings.reruns += log::reruns(events);

    let mut wrong = log::faults(submission.fate.workflow(), row, events);
    match book.accepted.get(&n) {
        None => wrong.push("no client was told of it".to_owned()),
        Some(accepted) => {
            if accepted.workflow_id != id {
                wrong.push(format!("its client was told of {}", accepted.workflow_id));
            }
            wrong.extend(wrong_end(submission.fate, row, accepted));
            if accepted.cancel_accepted && row.status == "COMPLETED" {
                findings.completed_though_cancelled += 1;
            }
        }
    }
    if row.definition != submission.fate.workflow().definition {
        wrong.push(format!("is a run of {}", row.definition));
    }
    if row.is_driven {
        wrong.push("is over and still has an owner or a time to wake".to_owned());
    }
    if row.error.as_ref().is_some_and(|error| error.code == "HOST_LOST") {
        findings.host_lost += 1;
    }
    if row.status == "COMPENSATION_FAILED" {
        match log::is_stuck_by_host_lost(events) {
            true => findings.stuck_by_host_lost += 1,
            false => wrong.push("a compensation failed for another reason than a lost host".to_owned()),
        }
    }
    if !wrong.is_empty() {
        let log = log::summary(events);
        findings.violations.add(format!("{id} ({key}, {}{cause}): {}; {log}", row.status, wrong.join("; ")));
    }
    Some((n, Run { n, is_completed: row.status == "COMPLETED", effects: 0 }))
}

/// Returns what is wrong with the run's end, if anything.
fn wrong_end(fate: Fate, row: &Row, accepted: &Accepted) -> Option<String> {
    let error = row.error.as_ref();
    let (code, message) = error.map_or(("", ""), |error| (error.code.as_str(), error.message.as_str()));
    match (row.status.as_str(), row.cause.as_deref()) {
        ("COMPLETED", None) => {
            fate.failure().map(|message| format!("was completed, and had to fail with `{message}`"))
        }
        ("FAILED" | "COMPENSATED" | "COMPENSATION_FAILED", Some(cause)) => match cause {
            "CANCEL" if accepted.cancel_asked => None,
            "CANCEL" => Some("nobody cancelled it".to_owned()),
            "TIMEOUT" if row.is_late => None,
            "TIMEOUT" => Some("ended before its deadline".to_owned()),
            _ if code == "HOST_LOST" || row.status == "COMPENSATION_FAILED" => None,
            _ if fate.failure().is_some_and(|expected| message.starts_with(expected)) => None,
            _ => Some(format!("failed with {code} `{message}`, and its fate was {fate:?}")),
        },
        _ => Some("isn't over, or has a cause that makes no sense".to_owned()),
    }
}

async fn rows(connection: &mut PgConnection, after: Uuid) -> Result<Vec<Row>> {
    let rows = sqlx::query_as(
        "select workflow_id, definition, key, status, cause, error, last_sequence, updated_at >= deadline as is_late,
            owner is not null or wake_at is not null as is_driven
        from workflow_run
        where workflow_id > $1
        order by workflow_id
        limit $2",
    );
    Ok(rows.bind(after).bind(PAGE).fetch_all(connection).await?)
}

async fn events(connection: &mut PgConnection, after: Uuid, last: Uuid) -> Result<HashMap<Uuid, Vec<Event>>> {
    let events: Vec<(Uuid, i64, String, Json<log::Payload>)> = sqlx::query_as(
        "select workflow_id, sequence, event_type, payload
        from workflow_events
        where workflow_id > $1 and workflow_id <= $2
        order by workflow_id, sequence",
    )
    .bind(after)
    .bind(last)
    .fetch_all(connection)
    .await?;
    let mut by_run: HashMap<Uuid, Vec<Event>> = HashMap::new();
    for (workflow_id, sequence, event_type, Json(payload)) in events {
        by_run.entry(workflow_id).or_default().push(Event { sequence, event_type, payload });
    }
    Ok(by_run)
}
