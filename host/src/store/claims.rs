//! Who drives a run: claiming those that nobody drives, handing one back, and making sure of one.

use aster_core::id::{Fence, HostId, WorkflowId};
use aster_core::journal::{ClaimedRun, Claims};
use aster_core::time::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::connections::despite_deadlocks;
use super::{Error, Store, count, instant};

impl Store {
    /// Gives `host` runs whose turn has come, the longest waiting first, at most `limit`; none if the host was retired.
    pub async fn claim(&self, host: HostId, limit: usize, now: Timestamp) -> Result<Claims, Error> {
        despite_deadlocks(|| async {
            self.connection().await?.ask(|connection| claim(connection, host, limit, now)).await
        })
        .await
    }

    /// How many runs wait for a host to claim them, counted up to `limit`: new ones, and those whose instant has come.
    pub async fn count_due(&self, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let due = self
            .connection()
            .await?
            .ask(|connection| {
                // In the order of the index by which they are claimed, so that it serves this too.
                sqlx::query_scalar!(
                    r#"select count(*) as "due!"
                    from (select from workflow_run where wake_at <= $1 order by wake_at limit $2) due"#,
                    instant(now),
                    count(limit),
                )
                .fetch_one(connection)
            })
            .await?;
        Ok(usize::try_from(due).unwrap_or(usize::MAX))
    }

    /// Gives up a run that the host can't drive now: any host may claim it from `at` on.
    ///
    /// # Errors
    /// [`Error::NotOwner`] if it isn't the host's under this fence. So ends also the second call after a lost answer.
    pub async fn hand_back(
        &self,
        host: HostId,
        workflow_id: WorkflowId,
        fence: Fence,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.connection().await?.ask(|connection| hand_back(connection, host, workflow_id, fence, at)).await
    }

    /// Raises the fence of a run that `host` owns, so that only the caller can write to it: whoever held `fence`, also with
    /// a commit under way, ends as [`Error::NotOwner`].
    ///
    /// # Errors
    /// [`Error::NotOwner`] if it isn't the host's under this fence. So ends also the second call after a lost answer.
    pub async fn adopt(&self, host: HostId, workflow_id: WorkflowId, fence: Fence) -> Result<Fence, Error> {
        self.connection().await?.ask(|connection| adopt(connection, host, workflow_id, fence)).await
    }

    /// What the database says that a host owns. After an outage this can be more than the host knows of: an acceptance or a
    /// claim whose answer was lost.
    pub async fn owned(&self, host: HostId) -> Result<Vec<(WorkflowId, Fence)>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!("select workflow_id, fence from workflow_run where owner = $1", host.0)
                    .fetch_all(connection)
            })
            .await?;
        Ok(rows.into_iter().map(|row| (WorkflowId(row.workflow_id), Fence(row.fence))).collect())
    }
}

/// A run whose fence has moved since it was seen is someone else's and is left alone. One whose fence hasn't is still due, and
/// isn't asked for by `wake_at` again: right after a takeover of very many, Postgres believes that few are due, and would walk
/// that index for each. No row is skipped or locked ahead, so that this works over shards.
async fn claim(
    connection: &mut PgConnection,
    host: HostId,
    limit: usize,
    now: Timestamp,
) -> Result<Claims, sqlx::Error> {
    let due = sqlx::query!(
        "select workflow_id, fence from workflow_run where wake_at <= $1 order by wake_at limit $2",
        instant(now),
        count(limit),
    )
    .fetch_all(&mut *connection)
    .await?;
    if due.is_empty() {
        return Ok(Claims::default());
    }
    let seen = due.len();
    let mut due: Vec<_> = due.into_iter().map(|row| (row.workflow_id, row.fence)).collect();
    due.sort_unstable();
    let (ids, fences): (Vec<Uuid>, Vec<i64>) = due.into_iter().unzip();
    let claimed = sqlx::query!(
        "update workflow_run r
        set owner = $3, fence = r.fence + 1, wake_at = null
        from unnest($1::uuid[], $2::bigint[]) as due (workflow_id, fence)
        where r.workflow_id = due.workflow_id
            and r.fence = due.fence
            and r.owner is null
            and exists (select from host h where h.host_id = $3 and h.retired_at is null)
        returning r.workflow_id, r.fence, r.host_lost",
        &ids,
        &fences,
        host.0,
    )
    .fetch_all(connection)
    .await?;
    let runs = claimed.into_iter().map(|row| ClaimedRun {
        workflow_id: WorkflowId(row.workflow_id),
        fence: Fence(row.fence),
        host_lost: row.host_lost,
    });
    Ok(Claims { seen, runs: runs.collect() })
}

async fn hand_back(
    connection: &mut PgConnection,
    host: HostId,
    workflow_id: WorkflowId,
    fence: Fence,
    at: Timestamp,
) -> Result<(), Error> {
    let handed_back = sqlx::query!(
        "update workflow_run
        set owner = null, fence = fence + 1, wake_at = $4
        where workflow_id = $1 and owner = $2 and fence = $3",
        workflow_id.0,
        host.0,
        fence.0,
        instant(at),
    )
    .execute(&mut *connection)
    .await?;
    match handed_back.rows_affected() {
        0 => Err(not_owner(connection, workflow_id, fence).await),
        _ => Ok(()),
    }
}

async fn adopt(
    connection: &mut PgConnection,
    host: HostId,
    workflow_id: WorkflowId,
    fence: Fence,
) -> Result<Fence, Error> {
    // By two: one above is what settling makes of it, and then the run would still be the settler's.
    let raised = sqlx::query_scalar!(
        "update workflow_run
        set fence = fence + 2
        where workflow_id = $1 and owner = $2 and fence = $3
        returning fence",
        workflow_id.0,
        host.0,
        fence.0,
    )
    .fetch_optional(&mut *connection)
    .await?;
    match raised {
        Some(raised) => Ok(Fence(raised)),
        None => Err(not_owner(connection, workflow_id, fence).await),
    }
}

/// Why nothing was changed.
async fn not_owner(connection: &mut PgConnection, workflow_id: WorkflowId, held: Fence) -> Error {
    let current = sqlx::query_scalar!("select fence from workflow_run where workflow_id = $1", workflow_id.0)
        .fetch_optional(connection)
        .await;
    match current {
        Ok(Some(current)) => Error::NotOwner { held, current: Fence(current) },
        Ok(None) => Error::not_found(format!("run {workflow_id}")),
        Err(error) => error.into(),
    }
}
