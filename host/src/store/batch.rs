//! Which transitions go together, and how a batch is sent: as one statement, all of it or nothing.

use std::collections::{HashMap, HashSet};

use aster_core::id::WorkflowId;
use aster_core::keyvalue::{Key, Version};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::commit::{Prepared, Row, refused_run};
use super::entries::{Entries, Standing, Ticket, Value};
use super::{Error, HostId};

/// What a batch does with one key: its transitions one after the other.
#[derive(Debug)]
pub(super) struct Chain {
    key: Key,
    /// What the first one has read; none: whatever is there is overwritten.
    read: Option<Version>,
    writes: i64,
    value: Value,
    /// Of the last one that writes it.
    ticket: Ticket,
}

/// A batch as it grows.
#[derive(Debug, Default)]
pub(super) struct Plan {
    chains: HashMap<Key, Chain>,
    runs: HashSet<WorkflowId>,
    host: Option<HostId>,
}

/// Whether a transition can go with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Taken,
    /// Not with this one.
    Later,
    /// It has read what was never committed, or isn't there any more.
    Stale(Vec<Key>),
}

impl Plan {
    /// Takes a transition into the batch, behind those that it has already, and notes in it which versions its keys will have.
    pub(super) fn take(&mut self, transition: &mut Prepared, ticket: Ticket, entries: &Entries) -> Fit {
        if self.host.is_some_and(|host| host != transition.host)
            || self.runs.contains(&transition.workflow_id)
        {
            return Fit::Later;
        }
        let mut stale = Vec::new();
        let mut reads = Vec::with_capacity(transition.keys.len());
        for key in &transition.keys {
            let chain = self.chains.get(&key.key);
            let standing = key.read.map(|read| entries.standing_of(&key.key, read));
            match (standing, chain) {
                (Some(Standing::Gone), _) => stale.push(key.key.clone()),
                (Some(Standing::OnTheWay(read)), Some(chain)) if chain.ticket == read => reads.push(None),
                (Some(Standing::OnTheWay(_)), _) => return Fit::Later,
                (Some(Standing::Committed(read)), Some(chain)) => match chain.writes {
                    0 if chain.read == Some(read) => reads.push(None),
                    // One of the two is stale, which Postgres knows.
                    0 => return Fit::Later,
                    _ => stale.push(key.key.clone()),
                },
                (Some(Standing::Committed(read)), None) => reads.push(Some(read)),
                (None, _) => reads.push(None),
            }
        }
        if !stale.is_empty() {
            return Fit::Stale(stale);
        }
        self.host = Some(transition.host);
        self.runs.insert(transition.workflow_id);
        for (key, read) in transition.keys.iter_mut().zip(reads) {
            let chain = self.chains.entry(key.key.clone()).or_insert_with(|| Chain {
                key: key.key.clone(),
                read,
                writes: 0,
                value: None,
                ticket: Ticket::default(),
            });
            if let Some(value) = &key.write {
                chain.writes += 1;
                chain.value = value.clone();
                chain.ticket = ticket;
                key.written = chain.read.map(|read| Version(read.0 + chain.writes));
            }
        }
        Fit::Taken
    }

    /// In the order in which every batch locks them.
    pub(super) fn into_chains(self) -> Vec<Chain> {
        let mut chains: Vec<Chain> = self.chains.into_values().collect();
        chains.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        chains
    }
}

/// Why a batch wasn't committed.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By their places in the batch.
    pub(super) runs: Vec<(usize, Error)>,
    /// Whose versions aren't those that were read.
    pub(super) keys: HashSet<Key>,
    /// What was in the way is gone.
    pub(super) again: bool,
}

impl Refusals {
    pub(super) fn is_none(&self) -> bool {
        self.runs.is_empty() && self.keys.is_empty() && !self.again
    }
}

/// Sends a batch of transitions of `host`, sorted by their runs, no two of one run. Everything is committed, unless there are
/// refusals: then nothing is.
pub(super) async fn send(
    connection: &mut PgConnection,
    host: HostId,
    batch: &[&Prepared],
    chains: &[Chain],
) -> Result<Refusals, sqlx::Error> {
    fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }

    let events =
        Events::of(batch.iter().map(|transition| (transition.last_sequence, &transition.events[..])));
    let changed: Vec<(i32, &Prepared, &Row)> =
        (1..).zip(batch).filter_map(|(ordinal, t)| Some((ordinal, *t, t.row.as_ref()?))).collect();
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
        &column(batch, |t| t.last_sequence) as &[i64],
        &column(batch, |t| t.at) as &[DateTime<Utc>],
        &events.runs as &[i32],
        &events.sequences as &[i64],
        &events.types as &[&str],
        &events.payloads as &[&str],
        &column(&changed, |(ordinal, ..)| *ordinal) as &[i32],
        &column(&changed, |(_, t, _)| t.new_sequence) as &[i64],
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
    /// Of each run the sequence before its first event, and types and payloads.
    pub(super) fn of(runs: impl Iterator<Item = (i64, &'a [(&'static str, String)])>) -> Self {
        let mut columns = Self::default();
        for (ordinal, (last_sequence, events)) in (1..).zip(runs) {
            for (sequence, (event_type, payload)) in (last_sequence + 1..).zip(events) {
                columns.runs.push(ordinal);
                columns.sequences.push(sequence);
                columns.types.push(event_type);
                columns.payloads.push(payload);
            }
        }
        columns
    }
}
