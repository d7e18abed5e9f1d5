//! Reading runs and their events, and claiming those that nobody drives.

use aster_core::event::{Cause, Event, Failure};
use aster_core::id::{Digest, Fence, TenantId, WorkflowId};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::error::Fault;
use super::{Error, HostId, ReleaseId, Store, count, digest, instant, parse_json, signed, unsigned};

/// A run as it stands: what was accepted, and what its events made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub workflow_id: WorkflowId,
    pub tenant: TenantId,
    /// The full name.
    pub definition: String,
    /// SHA-256 of the definition's source.
    pub definition_digest: Digest,
    pub release: ReleaseId,
    pub key: Option<String>,
    /// The failed run from which it took the key.
    pub previous: Option<WorkflowId>,
    pub input: Value,
    pub status: Status,
    pub cause: Option<Cause>,
    pub result: Option<Value>,
    pub error: Option<Failure>,
    pub accepted_at: Timestamp,
    pub updated_at: Timestamp,
    pub deadline: Timestamp,
    pub owner: Option<HostId>,
    pub fence: Fence,
    /// Of its newest event, and so also how many it has.
    pub last_sequence: u64,
    pub wake_at: Option<Timestamp>,
}

/// One event in its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    pub sequence: u64,
    pub event: Event,
    pub occurred_at: Timestamp,
}

/// Which runs a list holds; what is none doesn't matter.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub status: Option<Status>,
    /// The full name.
    pub definition: Option<String>,
    pub cause: Option<Cause>,
    /// Only runs before this one, which was the last of the page before.
    pub before: Option<WorkflowId>,
}

impl Store {
    pub async fn load_run(&self, workflow_id: WorkflowId) -> Result<Option<Run>, Error> {
        let row = sqlx::query_as!(
            RunRow,
            r#"select r.workflow_id, r.tenant, r.definition, e.definition_digest, r.release_id, r.key,
                r.previous_workflow_id, r.input::text as "input!", r.status, r.cause, r.result::text, r.error::text,
                r.accepted_at, r.updated_at, r.deadline, r.owner, r.fence, r.last_sequence, r.wake_at
            from workflow_run r
            join release e on e.release_id = r.release_id
            where r.workflow_id = $1"#,
            workflow_id.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Run::try_from).transpose()
    }

    /// The events of a run from `from_sequence` on, in order.
    pub async fn load_events(
        &self,
        workflow_id: WorkflowId,
        from_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, Error> {
        let rows = sqlx::query!(
            r#"select sequence, event_type, payload::text as "payload!", occurred_at
            from workflow_events
            where workflow_id = $1
                and sequence >= $2
            order by sequence
            limit $3"#,
            workflow_id.0,
            signed(from_sequence),
            count(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let what = format!("event {} of run {workflow_id}", row.sequence);
                let payload = parse_json(&what, &row.payload)?;
                let event = Event::parse(&row.event_type, payload)
                    .map_err(|error| Error::corrupt(format!("{what}: {error}")))?;
                Ok(RecordedEvent {
                    sequence: unsigned(row.sequence),
                    event,
                    occurred_at: row.occurred_at.into(),
                })
            })
            .collect()
    }

    /// A tenant's runs, newest first.
    pub async fn list_runs(
        &self,
        tenant: &TenantId,
        filter: &RunFilter,
        limit: usize,
    ) -> Result<Vec<Run>, Error> {
        let rows = sqlx::query_as!(
            RunRow,
            r#"select r.workflow_id, r.tenant, r.definition, e.definition_digest, r.release_id, r.key,
                r.previous_workflow_id, r.input::text as "input!", r.status, r.cause, r.result::text, r.error::text,
                r.accepted_at, r.updated_at, r.deadline, r.owner, r.fence, r.last_sequence, r.wake_at
            from workflow_run r
            join release e on e.release_id = r.release_id
            where r.tenant = $1
                and ($2::text is null or r.status = $2)
                and ($3::text is null or r.definition = $3)
                and ($4::text is null or r.cause = $4)
                and ($5::uuid is null or r.workflow_id < $5)
            order by r.workflow_id desc
            limit $6"#,
            tenant.as_str(),
            filter.status.map(Status::as_str),
            filter.definition,
            filter.cause.map(Cause::as_str),
            filter.before.map(|id| id.0),
            count(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Run::try_from).collect()
    }

    /// Ids only, newest first.
    pub async fn run_ids_by_status(
        &self,
        tenant: &TenantId,
        status: Status,
        limit: usize,
    ) -> Result<Vec<WorkflowId>, Error> {
        let ids = sqlx::query_scalar!(
            "select workflow_id from workflow_run where tenant = $1 and status = $2 order by workflow_id desc limit $3",
            tenant.as_str(),
            status.as_str(),
            count(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(ids.into_iter().map(WorkflowId).collect())
    }

    /// All seven statuses with their counts, in the order of [`Status::ALL`].
    pub async fn count_by_status(&self, tenant: &TenantId) -> Result<[(Status, u64); 7], Error> {
        let rows = sqlx::query!(
            r#"select status, count(*) as "n!" from workflow_run where tenant = $1 group by status"#,
            tenant.as_str(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(Status::ALL.map(|status| {
            let row = rows.iter().find(|row| row.status == status.as_str());
            (status, row.map_or(0, |row| unsigned(row.n)))
        }))
    }

    /// The newest run of a key.
    pub async fn run_by_key(
        &self,
        tenant: &TenantId,
        definition: &str,
        key: &str,
    ) -> Result<Option<Run>, Error> {
        if key.contains('\0') {
            return Ok(None);
        }
        let row = sqlx::query_as!(
            RunRow,
            r#"select r.workflow_id, r.tenant, r.definition, e.definition_digest, r.release_id, r.key,
                r.previous_workflow_id, r.input::text as "input!", r.status, r.cause, r.result::text, r.error::text,
                r.accepted_at, r.updated_at, r.deadline, r.owner, r.fence, r.last_sequence, r.wake_at
            from workflow_key k
            join workflow_run r on r.workflow_id = k.workflow_id
            join release e on e.release_id = r.release_id
            where k.tenant = $1
                and k.definition = $2
                and k.key = $3"#,
            tenant.as_str(),
            definition,
            key,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Run::try_from).transpose()
    }

    /// Gives `host` runs whose turn has come, the longest waiting first, at most `limit`. Fewer than there are if another host
    /// claims at the same time; none if the host was retired.
    pub async fn claim(
        &self,
        host: HostId,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(WorkflowId, Fence)>, Error> {
        let waiting = sqlx::query!(
            "select workflow_id, fence from workflow_run where wake_at <= $1 order by wake_at limit $2",
            instant(now),
            count(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let mut waiting: Vec<_> = waiting.into_iter().map(|row| (row.workflow_id, row.fence)).collect();
        waiting.sort_unstable();
        let (ids, fences): (Vec<Uuid>, Vec<i64>) = waiting.into_iter().unzip();
        loop {
            // A run whose fence has moved since is someone else's and is left alone. No row is skipped or locked ahead, so
            // that this works over shards.
            let claimed = sqlx::query!(
                "update workflow_run r
                set owner = $3, fence = r.fence + 1, wake_at = null
                from unnest($1::uuid[], $2::bigint[]) as waiting (workflow_id, fence)
                where r.workflow_id = waiting.workflow_id
                    and r.fence = waiting.fence
                    and r.owner is null
                    and r.wake_at is not null
                    and exists (select from host h where h.host_id = $3 and h.retired_at is null)
                returning r.workflow_id, r.fence",
                &ids,
                &fences,
                host.0,
            )
            .fetch_all(&self.pool)
            .await;
            match claimed {
                Err(error) if Fault::of(&error) == Fault::Again => {}
                claimed => {
                    let claimed = claimed?.into_iter();
                    return Ok(claimed.map(|row| (WorkflowId(row.workflow_id), Fence(row.fence))).collect());
                }
            }
        }
    }

    /// When the next run that nobody drives is to be claimed; none if there is none.
    pub async fn next_wake_at(&self) -> Result<Option<Timestamp>, Error> {
        let at = sqlx::query_scalar!("select min(wake_at) from workflow_run where wake_at is not null")
            .fetch_one(&self.pool)
            .await?;
        Ok(at.map(Timestamp::from))
    }
}

struct RunRow {
    workflow_id: Uuid,
    tenant: String,
    definition: String,
    definition_digest: Vec<u8>,
    release_id: i64,
    key: Option<String>,
    previous_workflow_id: Option<Uuid>,
    input: String,
    status: String,
    cause: Option<String>,
    result: Option<String>,
    error: Option<String>,
    accepted_at: chrono::DateTime<chrono::Utc>,
    updated_at: chrono::DateTime<chrono::Utc>,
    deadline: chrono::DateTime<chrono::Utc>,
    owner: Option<Uuid>,
    fence: i64,
    last_sequence: i64,
    wake_at: Option<chrono::DateTime<chrono::Utc>>,
}

impl TryFrom<RunRow> for Run {
    type Error = Error;

    fn try_from(row: RunRow) -> Result<Self, Error> {
        let cause = row.cause.as_deref().map(|cause| match cause {
            "STEP" => Ok(Cause::Step),
            "TIMEOUT" => Ok(Cause::Timeout),
            "CANCEL" => Ok(Cause::Cancel),
            other => Err(Error::corrupt(format!("a run's cause `{other}`"))),
        });
        Ok(Self {
            workflow_id: WorkflowId(row.workflow_id),
            tenant: parse_tenant(&row.tenant)?,
            definition: row.definition,
            definition_digest: digest(&row.definition_digest)?,
            release: ReleaseId(row.release_id),
            key: row.key,
            previous: row.previous_workflow_id.map(WorkflowId),
            input: parse_json("a run's input", &row.input)?,
            status: parse_status(&row.status)?,
            cause: cause.transpose()?,
            result: row.result.map(|text| parse_json("a run's result", &text)).transpose()?,
            error: row.error.map(|text| parse_json("a run's error", &text)).transpose()?,
            accepted_at: row.accepted_at.into(),
            updated_at: row.updated_at.into(),
            deadline: row.deadline.into(),
            owner: row.owner.map(HostId),
            fence: Fence(row.fence),
            last_sequence: unsigned(row.last_sequence),
            wake_at: row.wake_at.map(Timestamp::from),
        })
    }
}

pub(super) fn parse_status(text: &str) -> Result<Status, Error> {
    text.parse().map_err(|error| Error::corrupt(format!("{error}")))
}

pub(super) fn parse_tenant(text: &str) -> Result<TenantId, Error> {
    text.parse().map_err(|error| Error::corrupt(format!("{error}")))
}
