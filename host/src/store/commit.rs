//! One transition as it is sent, a batch of them as one statement, and how a lost answer is settled.

use aster_core::id::{Fence, WorkflowId};
use aster_core::keyvalue::{Key, Version};
use aster_core::transition::{Driver, Transition};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, HostId, Store, check_name, instant, signed, to_json, unsigned};

/// A transition that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Under which the run goes on: raised if the answer was lost and had to be settled.
    pub fence: Fence,
}

/// What became of a run whose commit wasn't answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// The run's fence from now on. Whatever was sent under an older one can't arrive any more.
    pub(super) fence: Fence,
    /// Of the newest event that is durable.
    pub(super) last_sequence: u64,
    /// Whether the host still owns the run; if not, the transition that handed it back or ended it was committed.
    pub(super) owned: bool,
}

impl Store {
    /// Commits a transition of a run that `host` owns: durable as a whole, or refused as a whole.
    ///
    /// Transitions that wait at the same time share one statement; none of them suffers from another one's fault. The caller
    /// sends one transition of a run at a time, and the next one only after the answer.
    ///
    /// The answer says for sure what became of the transition: while Postgres is away it is waited for, and an answer that was
    /// lost is settled when Postgres is back.
    ///
    /// # Errors
    /// - [`Error::NotOwner`], [`Error::NotFound`]: the run isn't the host's any more, or its log doesn't end where the
    ///   caller believes.
    /// - [`Error::Conflict`]: something that was read has changed. Nothing was written.
    /// - [`Error::Refused`]: the data can't be stored.
    /// - [`Error::NotCommitted`]: the answer was lost before anything was written; send it again under the new fence.
    ///
    /// # Cancel safety
    /// Once it was polled the transition may be committed, also if the future is dropped.
    pub async fn commit(&self, host: HostId, transition: Transition) -> Result<Committed, Error> {
        self.writer.commit(Prepared::new(host, transition)?).await
    }
}

/// A transition as it is sent: checked, and its JSON written, by the task that commits it and not by the one writer.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) host: HostId,
    pub(super) workflow_id: WorkflowId,
    pub(super) fence: Fence,
    last_sequence: i64,
    new_sequence: i64,
    at: DateTime<Utc>,
    status: &'static str,
    cause: Option<&'static str>,
    result: Option<String>,
    error: Option<String>,
    /// Whether the host keeps the run.
    stays: bool,
    wake_at: Option<DateTime<Utc>>,
    /// Type and payload.
    events: Vec<(&'static str, String)>,
    /// Each key once.
    pub(super) keys: Vec<KeyUse>,
    /// About what it adds to the statement.
    pub(super) size_bytes: usize,
}

/// What a transition does with one key.
#[derive(Debug)]
pub(super) struct KeyUse {
    pub(super) key: Key,
    /// None: it is overwritten whatever is there.
    read: Option<Version>,
    /// None: it was only read.
    write: Option<Option<Vec<u8>>>,
}

impl KeyUse {
    pub(super) fn is_written(&self) -> bool {
        self.write.is_some()
    }
}

impl Prepared {
    pub(super) fn new(host: HostId, transition: Transition) -> Result<Self, Error> {
        let Transition { workflow_id, fence, last_sequence, at, events, effects, run } = transition;
        let events: Vec<_> = events.iter().map(|event| (event.event_type(), event.payload())).collect();
        let keys = merge(effects)?;
        let result = run.result.as_ref().map(|result| to_json("the result", result)).transpose()?;
        let error = run.error.as_ref().map(|error| to_json("the error", error)).transpose()?;
        let size_bytes = events.iter().map(|(_, payload)| payload.len()).sum::<usize>()
            + keys.iter().flat_map(|key| &key.write).flatten().map(Vec::len).sum::<usize>()
            + result.as_ref().map_or(0, String::len);
        let (stays, wake_at) = match run.driver {
            Driver::Owner => (true, None),
            Driver::ClaimableAt(at) => (false, Some(instant(at))),
            Driver::Nobody => (false, None),
        };
        let last_sequence = signed(last_sequence);
        Ok(Self {
            host,
            workflow_id,
            fence,
            last_sequence,
            new_sequence: last_sequence.saturating_add(signed(events.len() as u64)),
            at: instant(at),
            status: run.status.as_str(),
            cause: run.cause.map(|cause| cause.as_str()),
            result,
            error,
            stays,
            wake_at,
            events,
            keys,
            size_bytes,
        })
    }

    /// The answer after its statement was answered without a refusal.
    pub(super) fn committed(&self) -> Committed {
        let raised = i64::from(!self.stays);
        Committed { fence: Fence(self.fence.0 + raised) }
    }

    /// The answer that follows from where its run stands, after its own was lost.
    pub(super) fn settled(&self, settled: Settled) -> Result<Committed, Error> {
        // A hand-back without events leaves the log alone and takes the owner away.
        let applied = match self.events.is_empty() {
            false => signed(settled.last_sequence) >= self.new_sequence,
            true => self.stays || !settled.owned,
        };
        match applied {
            true => Ok(Committed { fence: settled.fence }),
            false if settled.owned => Err(Error::NotCommitted { fence: settled.fence }),
            false => Err(Error::NotOwner { held: self.fence, current: settled.fence }),
        }
    }
}

/// One entry for each key that is read, written or both.
fn merge(effects: aster_core::keyvalue::Effects) -> Result<Vec<KeyUse>, Error> {
    let mut keys = std::collections::BTreeMap::new();
    for read in effects.reads {
        keys.insert(read.key, (Some(read.version), None));
    }
    for write in effects.writes {
        keys.entry(write.key).or_insert((None, None)).1 = Some(write.value);
    }
    for key in keys.keys() {
        check_key(key)?;
    }
    Ok(keys.into_iter().map(|(key, (read, write))| KeyUse { key, read, write }).collect())
}

pub(super) fn check_key(key: &Key) -> Result<(), Error> {
    check_name("component", &key.component)?;
    check_name("bucket", &key.bucket)?;
    check_name("key", &key.key)
}

/// Why one transition of a batch stands in the way of it.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its place in the batch.
    pub(super) transition: usize,
    pub(super) error: Error,
}

/// Sends a batch, in which no two transitions are of one run, and none writes a key that another one uses.
///
/// Everything is committed, unless there are refusals: then nothing is.
pub(super) async fn send(
    connection: &mut PgConnection,
    batch: &[&Prepared],
) -> Result<Vec<Refusal>, sqlx::Error> {
    fn column<'a, T>(batch: &[&'a Prepared], of: impl Fn(&'a Prepared) -> T) -> Vec<T> {
        batch.iter().copied().map(of).collect()
    }
    /// Ordinals are from 1 in SQL.
    fn ordinal(i: usize) -> i32 {
        i32::try_from(i + 1).unwrap_or(i32::MAX)
    }

    let mut events = Columns::default();
    let mut keys: Vec<(usize, &KeyUse)> = Vec::new();
    for (i, &transition) in batch.iter().enumerate() {
        for (sequence, (event_type, payload)) in (transition.last_sequence + 1..).zip(&transition.events) {
            events.runs.push(ordinal(i));
            events.sequences.push(sequence);
            events.types.push(event_type);
            events.payloads.push(payload);
        }
        keys.extend(transition.keys.iter().map(|key| (i, key)));
    }
    keys.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
    fn key_column<'a, T>(keys: &[(usize, &'a KeyUse)], of: impl Fn(&'a KeyUse) -> T) -> Vec<T> {
        keys.iter().map(|(_, key)| of(key)).collect()
    }

    let rows = sqlx::query!(
        r#"select refused_run, refused_key, current_fence, current_sequence
        from commit_transitions(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
            $13, $14, $15, $16,
            $17, $18, $19, $20, $21, $22, $23, $24
        )"#,
        &column(batch, |t| t.workflow_id.0) as &[Uuid],
        &column(batch, |t| t.host.0) as &[Uuid],
        &column(batch, |t| t.fence.0) as &[i64],
        &column(batch, |t| t.last_sequence) as &[i64],
        &column(batch, |t| t.new_sequence) as &[i64],
        &column(batch, |t| t.at) as &[DateTime<Utc>],
        &column(batch, |t| t.status) as &[&str],
        &column(batch, |t| t.cause) as &[Option<&str>],
        &column(batch, |t| t.result.as_deref()) as &[Option<&str>],
        &column(batch, |t| t.error.as_deref()) as &[Option<&str>],
        &column(batch, |t| t.stays) as &[bool],
        &column(batch, |t| t.wake_at) as &[Option<DateTime<Utc>>],
        &events.runs as &[i32],
        &events.sequences as &[i64],
        &events.types as &[&str],
        &events.payloads as &[&str],
        &keys.iter().map(|&(i, _)| ordinal(i)).collect::<Vec<_>>() as &[i32],
        &key_column(&keys, |key| key.key.tenant.as_str()) as &[&str],
        &key_column(&keys, |key| &*key.key.component) as &[&str],
        &key_column(&keys, |key| &*key.key.bucket) as &[&str],
        &key_column(&keys, |key| &*key.key.key) as &[&str],
        &key_column(&keys, |key| key.read.map(|version| version.0)) as &[Option<i64>],
        &key_column(&keys, KeyUse::is_written) as &[bool],
        &key_column(&keys, |key| key.write.as_ref().and_then(Option::as_deref)) as &[Option<&[u8]>],
    )
    .fetch_all(connection)
    .await?;

    let mut refusals: Vec<Refusal> = Vec::new();
    for row in rows {
        let place = |ordinal: Option<i32>| usize::try_from(ordinal.unwrap_or(0)).unwrap_or(0).checked_sub(1);
        let Some((transition, held)) = place(row.refused_run).and_then(|i| Some((i, batch.get(i)?.fence)))
        else {
            return Err(sqlx::Error::Protocol("a refusal names no transition of the batch".into()));
        };
        let stale = place(row.refused_key).and_then(|i| keys.get(i)).map(|(_, key)| key.key.clone());
        let known = refusals.iter_mut().find(|refusal| refusal.transition == transition);
        match (known, stale) {
            (Some(Refusal { error: Error::Conflict { keys }, .. }), Some(key)) => keys.push(key),
            // The run itself was refused: its keys don't matter.
            (Some(_), _) => {}
            (None, Some(key)) => {
                refusals.push(Refusal { transition, error: Error::Conflict { keys: vec![key] } });
            }
            (None, None) => {
                let error = refused_run(batch[transition], held, row.current_fence, row.current_sequence);
                refusals.push(Refusal { transition, error });
            }
        }
    }
    Ok(refusals)
}

#[derive(Default)]
struct Columns<'a> {
    runs: Vec<i32>,
    sequences: Vec<i64>,
    types: Vec<&'a str>,
    payloads: Vec<&'a str>,
}

fn refused_run(transition: &Prepared, held: Fence, fence: Option<i64>, sequence: Option<i64>) -> Error {
    let Some(current) = fence.map(Fence) else {
        return Error::not_found(format!("run {}", transition.workflow_id));
    };
    if let Some(sequence) = sequence
        && sequence != transition.last_sequence
        && current == held
    {
        // Under its own fence nobody else writes: the host itself has lost track of the run, and mustn't go on with it.
        tracing::error!(
            run.id = %transition.workflow_id,
            "the run's log ends at {sequence}, not at {} as its driver believes", transition.last_sequence
        );
    }
    Error::NotOwner { held, current }
}

/// Raises the fence of a run if it is still `held`, and says where its log ends. May be repeated.
///
/// With a fence one above, the run was fenced by an earlier call of this (it is still the host's), handed back by the
/// commit in question (it is nobody's), or released because the host is taken for dead (also nobody's, and the log says
/// that nothing was committed). Nothing else can have been written under that fence, so the log's end tells. A run that was
/// claimed or adopted since has a higher one.
pub(super) async fn settle(
    connection: &mut PgConnection,
    host: HostId,
    workflow_id: WorkflowId,
    held: Fence,
) -> Result<Settled, Error> {
    sqlx::query!(
        "update workflow_run set fence = fence + 1 where workflow_id = $1 and fence = $2 and owner = $3",
        workflow_id.0,
        held.0,
        host.0,
    )
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query!(
        "select fence, last_sequence, owner from workflow_run where workflow_id = $1",
        workflow_id.0,
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| Error::not_found(format!("run {workflow_id}")))?;
    let owned = row.owner == Some(host.0);
    if row.fence > held.0 + 1 || (row.owner.is_some() && !owned) {
        return Err(Error::NotOwner { held, current: Fence(row.fence) });
    }
    Ok(Settled { fence: Fence(row.fence), last_sequence: unsigned(row.last_sequence), owned })
}
