//! Hosts, their leases, and what becomes of the runs of one that is gone.

use std::fmt;
use std::time::Duration;

use aster_core::id::{Fence, WorkflowId};
use aster_core::time::Timestamp;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::error::Fault;
use super::{Error, Store, check_name, count, instant};

/// One start of a host: another start of the same machine is another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub Uuid);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Store {
    /// Enters a host, with a lease from now on.
    pub async fn register_host(&self, name: &str, lease: Duration) -> Result<HostId, Error> {
        check_name("host's name", name)?;
        let host = HostId(Uuid::now_v7());
        sqlx::query!(
            "insert into host (host_id, name, started_at, lease_ends_at)
            values ($1, $2, clock_timestamp(), clock_timestamp() + $3)",
            host.0,
            name,
            interval(lease),
        )
        .execute(&self.pool)
        .await?;
        Ok(host)
    }

    /// Lets the lease run from now on, and returns this now: the host sets its clock by it.
    ///
    /// # Errors
    /// [`Error::HostRetired`] if others were already given its runs.
    pub async fn renew_lease(&self, host: HostId, lease: Duration) -> Result<Timestamp, Error> {
        let now = sqlx::query_scalar!(
            r#"update host
            set lease_ends_at = clock_timestamp() + $2
            where host_id = $1
                and retired_at is null
            returning clock_timestamp() as "now!""#,
            host.0,
            interval(lease),
        )
        .fetch_optional(&self.pool)
        .await?;
        now.map(Timestamp::from).ok_or(Error::HostRetired)
    }

    /// Ends a host in good order: its runs are to be claimed by others at once. Returns how many.
    pub async fn retire_host(&self, host: HostId, now: Timestamp) -> Result<u64, Error> {
        sqlx::query!(
            "update host set retired_at = $2 where host_id = $1 and retired_at is null",
            host.0,
            instant(now),
        )
        .execute(&self.pool)
        .await?;
        self.release_runs_of_retired_hosts(now, usize::MAX).await
    }

    /// Retires every host. Right only where none can live: at the start of the one host of a private database.
    pub async fn retire_all_hosts(&self, now: Timestamp) -> Result<u64, Error> {
        sqlx::query!("update host set retired_at = $1 where retired_at is null", instant(now))
            .execute(&self.pool)
            .await?;
        self.release_runs_of_retired_hosts(now, usize::MAX).await
    }

    /// Retires the hosts whose lease ended more than `margin` ago, and releases at most `limit` runs of retired hosts.
    /// Returns how many: while it is `limit`, there may be more.
    ///
    /// The margin is for hosts' clocks, by which they stop their guests when their lease ends.
    pub async fn fence_off_dead_hosts(
        &self,
        now: Timestamp,
        margin: Duration,
        limit: usize,
    ) -> Result<u64, Error> {
        sqlx::query!(
            "update host set retired_at = $1 where retired_at is null and lease_ends_at < $1::timestamptz - $2::interval",
            instant(now),
            interval(margin),
        )
        .execute(&self.pool)
        .await?;
        let released = self.release_runs_of_retired_hosts(now, limit).await?;
        if released == 0 {
            self.forget_hosts_retired_a_day_ago(now).await?;
        }
        Ok(released)
    }

    /// What the database says that a host owns. After an outage this can be more than the host knows of: an acceptance or a
    /// claim whose answer was lost.
    pub async fn owned(&self, host: HostId) -> Result<Vec<(WorkflowId, Fence)>, Error> {
        let rows = sqlx::query!("select workflow_id, fence from workflow_run where owner = $1", host.0)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| (WorkflowId(row.workflow_id), Fence(row.fence))).collect())
    }

    async fn release_runs_of_retired_hosts(&self, now: Timestamp, limit: usize) -> Result<u64, Error> {
        loop {
            let released = sqlx::query!(
                "update workflow_run r
                set owner = null, fence = r.fence + 1, wake_at = $1
                where r.workflow_id in (
                    select o.workflow_id
                    from host h
                    join workflow_run o on o.owner = h.host_id
                    where h.retired_at is not null
                    order by o.workflow_id
                    limit $2
                )
                -- Looked at again if the row has changed while this waited for it.
                and r.owner in (select h.host_id from host h where h.retired_at is not null)",
                instant(now),
                count(limit),
            )
            .execute(&self.pool)
            .await;
            match released {
                // Rows are locked here in no certain order, and may deadlock with a batch of commits.
                Err(error) if Fault::of(&error) == Fault::Again => {}
                released => return Ok(released?.rows_affected()),
            }
        }
    }

    /// Only so late, because an acceptance on its way can still name a host that was retired.
    async fn forget_hosts_retired_a_day_ago(&self, now: Timestamp) -> Result<(), Error> {
        sqlx::query!(
            "delete from host h
            where h.retired_at < $1::timestamptz - interval '1 day'
                and not exists (select from workflow_run r where r.owner = h.host_id)",
            instant(now),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
