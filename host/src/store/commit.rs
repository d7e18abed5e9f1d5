//! One transition as it is sent, and how a lost answer is settled.

use std::time::Duration;

use aster_core::id::{Fence, HostId, WorkflowId};
use aster_core::journal::{Committed, Position};
use aster_core::keyvalue::Key;
use aster_core::transition::{Driver, Transition};
use aster_runner::line::key_uses;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::wire::Prepared;
use super::{Error, Store, check_name, instant, to_json, unsigned};

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
        self.commit_in_line(host, transition, || ()).await
    }

    /// For how long Postgres has owed the answer to a commit. `None` means that it owes none.
    pub fn unanswered_for(&self) -> Option<Duration> {
        self.line.unanswered_for()
    }

    /// The same; calls `in_line` as soon as the transition's place among the host's commits is fixed. From then on others read what
    /// it writes and depend on it, and are committed with it or after it, or not at all.
    pub async fn commit_in_line(
        &self,
        host: HostId,
        transition: Transition,
        in_line: impl FnOnce(),
    ) -> Result<Committed, Error> {
        Ok(self.line.commit(prepare(host, transition)?, in_line).await?)
    }
}

/// The part of a transition that only Postgres looks at.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) at: DateTime<Utc>,
    /// `None` means that the run's row stays as it is.
    pub(super) row: Option<Row>,
    /// Type and payload of each event.
    pub(super) events: Vec<(&'static str, String)>,
}

/// What a transition makes of its run's row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) old_status: &'static str,
    pub(super) status: &'static str,
    pub(super) cause: Option<&'static str>,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
    pub(super) wake_at: Option<DateTime<Utc>>,
}

/// Checks a transition and writes its JSON. The task that commits does this, and not the one writer.
fn prepare(host: HostId, transition: Transition) -> Result<Prepared, Error> {
    let Transition { workflow_id, fence, last_sequence, at, was, is_quiet, events, effects, run } =
        transition;
    let events: Vec<_> = events.iter().map(|event| (event.event_type(), event.payload())).collect();
    let keys = key_uses(effects);
    keys.iter().try_for_each(|key| check_key(&key.key))?;
    let (stays, wake_at) = match run.driver {
        Driver::Owner => (true, None),
        Driver::ClaimableAt(at) => (false, Some(instant(at))),
        Driver::Nobody => (false, None),
    };
    // A driver that gives the run up writes that to the row, whatever it believes.
    let row = match is_quiet && stays {
        true => None,
        false => Some(Row {
            old_status: was.as_str(),
            status: run.status.as_str(),
            cause: run.cause.map(|cause| cause.as_str()),
            result: run.result.as_ref().map(|result| to_json("the result", result)).transpose()?,
            error: run.error.as_ref().map(|error| to_json("the error", error)).transpose()?,
            wake_at,
        }),
    };
    let size_bytes = events.iter().map(|(_, payload)| payload.len()).sum::<usize>()
        + keys.iter().flat_map(|key| &key.write).flatten().map(|value| value.len()).sum::<usize>()
        + row.as_ref().and_then(|row| row.result.as_ref()).map_or(0, String::len);
    Ok(Prepared {
        host,
        workflow_id,
        fence,
        last_sequence,
        new_sequence: last_sequence.saturating_add(events.len() as u64),
        stays,
        keys,
        size_bytes,
        payload: Payload { at: instant(at), row, events },
    })
}

pub(super) fn check_key(key: &Key) -> Result<(), Error> {
    check_name("component", &key.component)?;
    check_name("bucket", &key.bucket)?;
    check_name("key", &key.key)
}

/// Why a batch was refused for a run of it: what Postgres has of that run now.
pub(super) fn refused_run(
    transition: &Prepared,
    fence: Option<i64>,
    sequence: Option<i64>,
) -> aster_runner::Error {
    use aster_runner::Error;

    let held = transition.fence;
    let Some(current) = fence.map(Fence) else {
        return Error::NotFound { what: format!("run {}", transition.workflow_id) };
    };
    if let Some(sequence) = sequence
        && unsigned(sequence) != transition.last_sequence
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

/// Raises the fence of a run if it is still `held`, and says where the run stands then. May be repeated.
pub(super) async fn settle(
    connection: &mut PgConnection,
    host: HostId,
    workflow_id: WorkflowId,
    held: Fence,
) -> Result<Position, Error> {
    sqlx::query!(
        "update workflow_run set fence = fence + 1 where workflow_id = $1 and fence = $2 and owner = $3",
        workflow_id.0,
        held.0,
        host.0,
    )
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query!(
        r#"select
            fence,
            owner,
            coalesce((select max(e.sequence) from workflow_events e where e.workflow_id = $1), 0) as "last_sequence!"
        from workflow_run
        where workflow_id = $1"#,
        workflow_id.0,
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| Error::not_found(format!("run {workflow_id}")))?;
    Ok(Position {
        fence: Fence(row.fence),
        owner: row.owner.map(HostId),
        last_sequence: unsigned(row.last_sequence),
    })
}
