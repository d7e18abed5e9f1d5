//! Reading runs and their events.

use std::collections::HashMap;

use aster_core::event::{Cause, Event};
use aster_core::id::{Digest, Fence, HostId, ReleaseId, TenantId, WorkflowId};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::listed::{Listed, PAGE_BYTES};
use super::{Error, JsonText, Store, count, digest, signed, unsigned};

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
    pub input: JsonText,
    pub status: Status,
    pub cause: Option<Cause>,
    pub result: Option<JsonText>,
    /// A [`Failure`](aster_core::event::Failure).
    pub error: Option<JsonText>,
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
    pub workflow_id: WorkflowId,
    pub sequence: u64,
    pub event_type: String,
    pub payload: JsonText,
    pub occurred_at: Timestamp,
}

impl RecordedEvent {
    /// What it means, for replay.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if this host can't read it.
    pub fn event(&self) -> Result<Event, Error> {
        let event = self.payload.parse().and_then(|payload| Event::parse(&self.event_type, payload));
        event.map_err(|error| {
            Error::corrupt(format!("event {} of run {}: {error}", self.sequence, self.workflow_id))
        })
    }
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
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"select r as "run!: RunRow" from run_row r where r.workflow_id = $1"#,
                    workflow_id.0,
                )
                .fetch_optional(connection)
            })
            .await?;
        Ok(self.with_logs(row).await?.pop())
    }

    /// None: there is no such run.
    pub async fn status_of(&self, workflow_id: WorkflowId) -> Result<Option<Status>, Error> {
        let status = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!("select status from workflow_run where workflow_id = $1", workflow_id.0)
                    .fetch_optional(connection)
            })
            .await?;
        status.as_deref().map(parse_status).transpose()
    }

    /// Those of `ids` that there are, in no certain order.
    pub(super) async fn load_runs(&self, ids: &[WorkflowId]) -> Result<Vec<Run>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"select r as "run!: RunRow" from run_row r where r.workflow_id = any ($1)"#,
                    &ids,
                )
                .fetch_all(connection)
            })
            .await?;
        self.with_logs(rows).await
    }

    /// Runs by their rows, and where these may be behind by their logs.
    async fn with_logs(&self, rows: impl IntoIterator<Item = RunRow>) -> Result<Vec<Run>, Error> {
        let mut runs = rows.into_iter().map(Run::try_from).collect::<Result<Vec<_>, _>>()?;
        let under_way = |run: &&mut Run| matches!(run.status, Status::Running | Status::Compensating);
        let mut behind: HashMap<Uuid, &mut Run> =
            runs.iter_mut().filter(under_way).map(|run| (run.workflow_id.0, run)).collect();
        if !behind.is_empty() {
            let ids: Vec<Uuid> = behind.keys().copied().collect();
            let ends = self
                .connection()
                .await?
                .ask(|connection| {
                    sqlx::query!(
                        r#"select e.workflow_id, e.sequence, e.occurred_at
                        from unnest($1::uuid[]) as run (id)
                        cross join lateral (
                            select workflow_id, sequence, occurred_at
                            from workflow_events
                            where workflow_id = run.id
                                -- Tells the planner which partitions there are to open.
                                and workflow_id = any ($1)
                            order by sequence desc
                            limit 1
                        ) e"#,
                        &ids,
                    )
                    .fetch_all(connection)
                })
                .await?;
            for end in ends {
                let Some(run) = behind.get_mut(&end.workflow_id) else { continue };
                if unsigned(end.sequence) > run.last_sequence {
                    run.last_sequence = unsigned(end.sequence);
                    run.updated_at = end.occurred_at.into();
                }
            }
        }
        Ok(runs)
    }

    /// The events of a run from `from_sequence` on, in order.
    pub async fn load_events(
        &self,
        workflow_id: WorkflowId,
        from_sequence: u64,
        limit: usize,
    ) -> Result<Listed<RecordedEvent>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select e.sequence as "sequence!", e.event_type as "event_type!", e.payload::text as "payload!",
                        e.occurred_at as "occurred_at!", e.found as "found!"
                    from (
                        select sequence, event_type, payload, occurred_at, count(*) over () as found,
                            sum(octet_length(payload::text)) over (order by sequence) - octet_length(payload::text) as bytes_before
                        from (
                            select sequence, event_type, payload, occurred_at
                            from workflow_events
                            where workflow_id = $1
                                and sequence >= $2
                            order by sequence
                            limit $3
                        ) page
                    ) e
                    where e.bytes_before < $4
                    order by e.sequence"#,
                    workflow_id.0,
                    signed(from_sequence),
                    count(limit + 1),
                    PAGE_BYTES,
                )
                .fetch_all(connection)
            })
            .await?;
        let found = rows.first().map_or(0, |row| row.found);
        let events = rows.into_iter().map(|row| {
            Ok(RecordedEvent {
                workflow_id,
                sequence: unsigned(row.sequence),
                event_type: row.event_type,
                payload: JsonText::of("an event", row.payload)?,
                occurred_at: row.occurred_at.into(),
            })
        });
        Ok(Listed::first_of(found, limit, events.collect::<Result<_, Error>>()?))
    }

    /// Runs of a tenant, newest first.
    ///
    /// Each statement for ids reads an index from where the page begins, whatever the planner believes: it asks for the order of that
    /// index, and compares rows, so that no other one will do. Else a plan that is kept for all parameters walks through runs
    /// that aren't asked for, a million at worst.
    pub async fn list_runs(
        &self,
        tenant: &TenantId,
        filter: &RunFilter,
        limit: usize,
    ) -> Result<Listed<Run>, Error> {
        let one_more = limit + 1;
        let (found, rows) = self
            .connection()
            .await?
            .ask(|connection| async move {
                let ids = match filter {
                    RunFilter { cause: Some(cause), .. } => {
                        list_by_cause(connection, tenant, *cause, filter, one_more).await?
                    }
                    RunFilter { status: None, definition: None, .. } => {
                        list_all(connection, tenant, filter.before, one_more).await?
                    }
                    _ => list_by_release(connection, tenant, filter, one_more).await?,
                };
                let rows = load_page(connection, &ids).await?;
                Ok::<_, sqlx::Error>((ids.len(), rows))
            })
            .await?;
        let runs = self.with_logs(rows).await?;
        Ok(Listed::first_of(i64::try_from(found).unwrap_or(i64::MAX), limit, runs))
    }

    /// Ids only, newest first.
    pub async fn run_ids_by_status(
        &self,
        tenant: &TenantId,
        status: Status,
        limit: usize,
    ) -> Result<Vec<WorkflowId>, Error> {
        let ids = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select l.workflow_id
                    from release e
                    cross join lateral (
                        select r.workflow_id
                        from workflow_run r
                        where r.release_id = e.release_id
                            and r.status >= $2
                            and r.status <= $2
                        order by r.status desc, r.workflow_id desc
                        limit $3
                    ) l
                    where e.tenant = $1
                    order by l.workflow_id desc
                    limit $3",
                    tenant.as_str(),
                    status.as_str(),
                    count(limit),
                )
                .fetch_all(connection)
            })
            .await?;
        Ok(ids.into_iter().map(WorkflowId).collect())
    }

    /// All seven statuses with their counts, in the order of [`Status::ALL`]; of one tenant, or of all.
    pub async fn count_by_status(&self, tenant: Option<&TenantId>) -> Result<[(Status, u64); 7], Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select status, sum(n)::bigint as "n!" from run_count where $1::text is null or tenant = $1 group by status"#,
                    tenant.map(TenantId::as_str),
                )
                .fetch_all(connection)
            })
            .await?;
        Ok(Status::ALL.map(|status| {
            let row = rows.iter().find(|row| row.status == status.as_str());
            (status, row.map_or(0, |row| unsigned(row.n)))
        }))
    }

    /// Adds what hosts have counted that are gone to what nobody counts any more; how many rows went.
    pub async fn fold_counts(&self) -> Result<u64, Error> {
        let folded = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"with gone as (
                        delete from run_count c
                        using host h
                        where h.host_id = c.host_id
                            and h.retired_at is not null
                        returning c.tenant, c.definition, c.status, c.n
                    ),
                    folded as (
                        insert into run_count as c (host_id, by_acceptance, tenant, definition, status, n)
                        select '00000000-0000-0000-0000-000000000000', false, gone.tenant, gone.definition, gone.status, sum(gone.n)
                        from gone
                        group by gone.tenant, gone.definition, gone.status
                        order by gone.tenant, gone.definition, gone.status
                        on conflict (tenant, definition, status, host_id, by_acceptance) do update set n = c.n + excluded.n
                    )
                    select count(*) as "n!" from gone"#,
                )
                .fetch_one(connection)
            })
            .await?;
        Ok(unsigned(folded))
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
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"select r as "run!: RunRow"
                    from workflow_key k
                    join run_row r on r.workflow_id = k.workflow_id
                    where k.tenant = $1
                        and k.definition = $2
                        and k.key = $3"#,
                    tenant.as_str(),
                    definition,
                    key,
                )
                .fetch_optional(connection)
            })
            .await?;
        Ok(self.with_logs(row).await?.pop())
    }
}

/// Every run.
async fn list_all(
    connection: &mut PgConnection,
    tenant: &TenantId,
    before: Option<WorkflowId>,
    limit: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select workflow_id
        from workflow_run
        where tenant >= $1
            and (tenant, workflow_id) < ($1, $2)
        order by tenant desc, workflow_id desc
        limit $3",
        tenant.as_str(),
        before.map_or(Uuid::max(), |id| id.0),
        count(limit),
    )
    .fetch_all(connection)
    .await
}

/// By status, definition, or both: of every release and status the newest, and of these the newest.
///
/// Where the list isn't of one status, runs that are over come first, and of the others only those are looked for that are newer
/// than a whole page of them: until the next vacuum, the index has an entry for every run that was once RUNNING.
async fn list_by_release(
    connection: &mut PgConnection,
    tenant: &TenantId,
    filter: &RunFilter,
    limit: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let wanted = |status: &Status| filter.status.is_none_or(|wanted| wanted == *status);
    let (over, open): (Vec<_>, Vec<_>) =
        Status::ALL.into_iter().filter(wanted).partition(|status| status.is_over());
    let names = |statuses: Vec<Status>| statuses.into_iter().map(Status::as_str).collect::<Vec<_>>();
    sqlx::query_scalar!(
        r#"with over as materialized (
            select l.workflow_id
            from release e
            cross join unnest($3::text[]) as s (status)
            cross join lateral (
                select r.workflow_id
                from workflow_run r
                where r.release_id = e.release_id
                    and r.status >= s.status
                    and (r.status, r.workflow_id) < (s.status, $5)
                order by r.status desc, r.workflow_id desc
                limit $6
            ) l
            where e.tenant = $1
                and ($2::text is null or e.definition = $2)
            order by l.workflow_id desc
            limit $6
        )
        select p.workflow_id as "workflow_id!"
        from (
            select over.workflow_id
            from over
            union all
            select l.workflow_id
            from release e
            cross join unnest($4::text[]) as s (status)
            cross join lateral (
                select r.workflow_id
                from workflow_run r
                where r.release_id = e.release_id
                    and (r.status, r.workflow_id) > (
                        s.status,
                        coalesce(
                            (select o.workflow_id from over o order by o.workflow_id desc offset $6 - 1 limit 1),
                            '00000000-0000-0000-0000-000000000000'
                        )
                    )
                    and (r.status, r.workflow_id) < (s.status, $5)
                order by r.status desc, r.workflow_id desc
                limit $6
            ) l
            where e.tenant = $1
                and ($2::text is null or e.definition = $2)
        ) p
        order by p.workflow_id desc
        limit $6"#,
        tenant.as_str(),
        filter.definition,
        &names(over) as &[&str],
        &names(open) as &[&str],
        filter.before.map_or(Uuid::max(), |id| id.0),
        count(limit),
    )
    .fetch_all(connection)
    .await
}

/// By cause, and whatever else.
async fn list_by_cause(
    connection: &mut PgConnection,
    tenant: &TenantId,
    cause: Cause,
    filter: &RunFilter,
    limit: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let wanted = |status: &Status| filter.status.is_none_or(|wanted| wanted == *status);
    let statuses: Vec<_> = Status::ALL.into_iter().filter(wanted).map(Status::as_str).collect();
    sqlx::query_scalar!(
        "select l.workflow_id
        from release e
        cross join unnest($3::text[]) as s (status)
        cross join lateral (
            select r.workflow_id
            from workflow_run r
            where r.release_id = e.release_id
                and r.cause = $4
                and r.status >= s.status
                and (r.status, r.workflow_id) < (s.status, $5)
            order by r.status desc, r.workflow_id desc
            limit $6
        ) l
        where e.tenant = $1
            and ($2::text is null or e.definition = $2)
        order by l.workflow_id desc
        limit $6",
        tenant.as_str(),
        filter.definition,
        &statuses as &[&str],
        cause.as_str(),
        filter.before.map_or(Uuid::max(), |id| id.0),
        count(limit),
    )
    .fetch_all(connection)
    .await
}

/// The runs of a page, newest first, as many as [`PAGE_BYTES`] admit.
async fn load_page(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<RunRow>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select r as "run!: RunRow"
        from (
            select s.workflow_id, sum(s.bytes) over (order by s.workflow_id desc) - s.bytes as bytes_before
            from (
                select workflow_id,
                    octet_length(input::text) + coalesce(octet_length(result::text), 0)
                        + coalesce(octet_length(error::text), 0) as bytes
                from workflow_run
                where workflow_id = any ($1)
            ) s
        ) page
        join run_row r on r.workflow_id = page.workflow_id
        where page.bytes_before < $2
        order by page.workflow_id desc"#,
        ids,
        PAGE_BYTES,
    )
    .fetch_all(connection)
    .await
}

/// The view of that name, whose columns stand here in their order.
#[derive(sqlx::Type)]
#[sqlx(type_name = "run_row")]
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
            input: JsonText::of("a run's input", row.input)?,
            status: parse_status(&row.status)?,
            cause: cause.transpose()?,
            result: row.result.map(|text| JsonText::of("a run's result", text)).transpose()?,
            error: row.error.map(|text| JsonText::of("a run's error", text)).transpose()?,
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
