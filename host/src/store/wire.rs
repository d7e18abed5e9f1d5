//! How batches of the commit line reach Postgres: each as one statement, all of it or nothing.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{Fence, HostId, WorkflowId};
use aster_core::journal::Position;
use aster_runner::Error;
use aster_runner::line::{self, Chain, Refusals, Unanswered};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::commit::{Payload, Row, refused_run, settle};
use super::connections::{Connections, Line, in_time};
use super::error::fault;
use super::signed;

pub(super) type Prepared = line::Prepared<Payload>;

/// For the answer to a batch. A connection that is silent for longer is given up: what was lost is settled, and if Postgres was
/// only slow, the settling waits for it.
const ANSWER: Duration = Duration::from_secs(3);

/// Commits have a connection of their own, so that they wait for nobody else's reads.
#[derive(Debug)]
pub(super) struct Wire {
    connections: Connections,
    /// Locked by the line's writer only, which sends one batch at a time.
    line: Mutex<Line>,
    /// The same, for commits that are to give up soon if somebody else holds a lock.
    hasty: Mutex<Line>,
}

impl Wire {
    pub(super) fn new(connections: Connections) -> Arc<Self> {
        let line = Line::for_lookups(&connections.pool);
        let hasty = Line::for_lookups(&connections.pool).giving_up_locks_after("50ms");
        Arc::new(Self { connections, line: Mutex::new(line), hasty: Mutex::new(hasty) })
    }
}

impl line::Wire for Wire {
    type Payload = Payload;

    async fn send(
        &self,
        host: HostId,
        batch: &[&Prepared],
        chains: &[Chain],
        hasty: bool,
    ) -> Result<Refusals, Unanswered> {
        let limit = self.connections.patience.answer.min(ANSWER);
        let mut line = if hasty { self.hasty.lock().await } else { self.line.lock().await };
        let taken = line.take(limit).await;
        let mut connection = taken.map_err(|error| Unanswered::NotSent(error.to_string()))?;
        let sent = in_time(limit, send(&mut connection, host, batch, chains)).await;
        line.keep(connection, &sent);
        sent.map_err(|error| Unanswered::Failed(fault(&error), error.to_string()))
    }

    async fn settle(&self, host: HostId, workflow_id: WorkflowId, held: Fence) -> Result<Position, Error> {
        let mut taken = self.connections.take().await?;
        Ok(taken.ask(|connection| settle(connection, host, workflow_id, held)).await?)
    }
}

/// The batch is sorted by its runs, which it locks in that order.
async fn send(
    connection: &mut PgConnection,
    host: HostId,
    batch: &[&Prepared],
    chains: &[Chain],
) -> Result<Refusals, sqlx::Error> {
    fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }

    let events = Events::of(batch.iter().map(|t| (t.last_sequence, &t.payload.events[..])));
    let changed: Vec<(i32, &Prepared, &Row)> =
        (1..).zip(batch).filter_map(|(ordinal, t)| Some((ordinal, *t, t.payload.row.as_ref()?))).collect();
    let rows = sqlx::query!(
        "select refused_run, refused_key, current_fence, current_sequence
        from append_batch(
            $1, $2, $3, $4, $5,
            $6, $7, $8, $9,
            $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, $22, $23, $24, $25
        )",
        host.0,
        &column(batch, |t| t.workflow_id.0) as &[Uuid],
        &column(batch, |t| t.fence.0) as &[i64],
        &column(batch, |t| signed(t.last_sequence)) as &[i64],
        &column(batch, |t| t.payload.at) as &[DateTime<Utc>],
        &events.runs as &[i32],
        &events.sequences as &[i64],
        &events.types as &[&str],
        &events.payloads as &[&str],
        &column(&changed, |(ordinal, ..)| *ordinal) as &[i32],
        &column(&changed, |(_, t, _)| signed(t.new_sequence)) as &[i64],
        &column(&changed, |(.., row)| row.old_status) as &[&str],
        &column(&changed, |(.., row)| row.status) as &[&str],
        &column(&changed, |(.., row)| row.cause) as &[Option<&str>],
        &column(&changed, |(.., row)| row.result.as_deref()) as &[Option<&str>],
        &column(&changed, |(.., row)| row.error.as_deref()) as &[Option<&str>],
        &column(&changed, |(_, t, _)| t.stays) as &[bool],
        &column(&changed, |(.., row)| row.wake_at) as &[Option<DateTime<Utc>>],
        &column(chains, |chain| chain.key.tenant.as_str()) as &[&str],
        &column(chains, |chain| &*chain.key.component) as &[&str],
        &column(chains, |chain| &*chain.key.bucket) as &[&str],
        &column(chains, |chain| &*chain.key.key) as &[&str],
        &column(chains, |chain| chain.read.map(|version| version.0)) as &[Option<i64>],
        &column(chains, |chain| chain.writes) as &[i64],
        &column(chains, |chain| chain.value.as_deref()) as &[Option<&[u8]>],
    )
    .fetch_all(connection)
    .await?;

    let mut refusals = Refusals::default();
    let place = |ordinal: i32| usize::try_from(ordinal).unwrap_or(0).checked_sub(1);
    for row in rows {
        match (row.refused_run, row.refused_key) {
            (Some(run), _) => {
                let run = place(run).and_then(|i| Some((i, *batch.get(i)?)));
                let (i, transition) = run.ok_or_else(|| unexpected("a refusal names no transition"))?;
                let error = refused_run(transition, row.current_fence, row.current_sequence);
                refusals.runs.push((i, error));
            }
            (None, Some(key)) => {
                let chain = place(key).and_then(|i| chains.get(i));
                let chain = chain.ok_or_else(|| unexpected("a refusal names no key"))?;
                refusals.keys.insert(chain.key.clone());
            }
            (None, None) => refusals.again = true,
        }
    }
    Ok(refusals)
}

fn unexpected(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(what.to_owned())
}

/// The events of several runs, as columns.
#[derive(Debug, Default)]
pub(super) struct Events<'a> {
    /// Ordinals of their runs, from 1.
    pub(super) runs: Vec<i32>,
    pub(super) sequences: Vec<i64>,
    pub(super) types: Vec<&'a str>,
    pub(super) payloads: Vec<&'a str>,
}

impl<'a> Events<'a> {
    /// For each run: the preceding sequence and its (type, payload) pairs.
    pub(super) fn of(runs: impl Iterator<Item = (u64, &'a [(&'static str, String)])>) -> Self {
        let mut columns = Self::default();
        for (ordinal, (last_sequence, events)) in (1..).zip(runs) {
            for (sequence, (event_type, payload)) in (signed(last_sequence) + 1..).zip(events) {
                columns.runs.push(ordinal);
                columns.sequences.push(sequence);
                columns.types.push(event_type);
                columns.payloads.push(payload);
            }
        }
        columns
    }
}
