//! Hosts, their leases, and what becomes of the runs of one that is gone.

use std::time::Duration;

use aster_core::id::HostId;
use aster_core::time::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use tracing::{info, warn};
use uuid::Uuid;

use super::connections::{despite_deadlocks, in_time};
use super::{Error, Store, check_name, count, instant, unsigned};

/// More would take longer than a statement may.
const RELEASED_AT_ONCE: usize = 10_000;

impl Store {
    /// Enters a host, with a lease from now on. It goes over the same connection as the renewals.
    pub async fn register_host(&self, name: &str, lease: Duration) -> Result<HostId, Error> {
        check_name("host's name", name)?;
        let host = HostId(Uuid::now_v7());
        let limit = self.connections.patience.answer;
        let registered = in_time(limit, async {
            let mut line = self.lease_line.lock().await;
            let mut connection = line.take(limit).await?;
            let registered = sqlx::query!(
                "insert into host (host_id, name, started_at, lease_ends_at)
                    values ($1, $2, clock_timestamp(), clock_timestamp() + $3)",
                host.0,
                name,
                interval(lease),
            )
            .execute(&mut connection)
            .await;
            line.keep(connection, &registered);
            registered
        });
        registered.await?;
        Ok(host)
    }

    /// Lets the lease run from now on, and returns this now: the host sets its clock by it.
    ///
    /// It goes over a connection of its own and waits for a quarter of the lease at most, so that there is time to ask again.
    /// The connection belongs to the tokio runtime that asks first: it must be the one that asks later.
    ///
    /// # Errors
    /// [`Error::HostRetired`] if others were already given its runs.
    pub async fn renew_lease(&self, host: HostId, lease: Duration) -> Result<Timestamp, Error> {
        let limit = self.connections.patience.answer.min(lease / 4);
        let renewed = in_time(limit, async {
            let mut line = self.lease_line.lock().await;
            let mut connection = line.take(limit).await?;
            let now = sqlx::query_scalar!(
                r#"update host
                set lease_ends_at = clock_timestamp() + $2
                where host_id = $1
                    and retired_at is null
                returning clock_timestamp() as "now!""#,
                host.0,
                interval(lease),
            )
            .fetch_optional(&mut connection)
            .await;
            line.keep(connection, &now);
            now
        });
        renewed.await?.map(Timestamp::from).ok_or(Error::HostRetired)
    }

    /// Ends a host in good order, after it has stopped its runs: they are to be claimed by others at once, and haven't lost
    /// their host. Returns how many.
    pub async fn retire_host(&self, host: HostId, now: Timestamp) -> Result<u64, Error> {
        self.connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    "update host set retired_at = $2, orderly = true where host_id = $1 and retired_at is null",
                    host.0,
                    instant(now),
                )
                .execute(connection)
            })
            .await?;
        self.release_all_runs_of_retired_hosts(now).await
    }

    /// Takes every host for dead. Right only where none can live: at the start of the one host of a private database.
    pub async fn retire_all_hosts(&self, now: Timestamp) -> Result<u64, Error> {
        self.connection()
            .await?
            .ask(|connection| {
                sqlx::query!("update host set retired_at = $1 where retired_at is null", instant(now))
                    .execute(connection)
            })
            .await?;
        self.release_all_runs_of_retired_hosts(now).await
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
        let silent =
            self.connection().await?.ask(|connection| retire_silent_hosts(connection, now, margin)).await?;
        for (host, name) in silent {
            warn!(host.id = %host, host.name = name, "took host {name} for dead: its lease has ended");
        }
        let released = self.release_runs_of_retired_hosts(now, limit).await?;
        if released == 0 {
            self.connection()
                .await?
                .ask(|connection| forget_hosts_retired_a_day_ago(connection, now))
                .await?;
        }
        Ok(released)
    }

    async fn release_all_runs_of_retired_hosts(&self, now: Timestamp) -> Result<u64, Error> {
        let mut all = 0;
        loop {
            let released = self.release_runs_of_retired_hosts(now, RELEASED_AT_ONCE).await?;
            all += released;
            if released < RELEASED_AT_ONCE as u64 {
                return Ok(all);
            }
        }
    }

    /// Rows are locked here in no certain order, and may deadlock with a batch of commits.
    async fn release_runs_of_retired_hosts(&self, now: Timestamp, limit: usize) -> Result<u64, Error> {
        let released = despite_deadlocks(|| async {
            self.connection().await?.ask(|connection| release_runs(connection, now, limit)).await
        })
        .await?;
        for Released { host, name, runs } in &released {
            info!(
                host.id = %host, host.name = name, runs,
                "released {runs} runs of host {name}, which has stopped or is dead: others go on with them"
            );
        }
        Ok(released.iter().map(|released| released.runs).sum())
    }
}

async fn retire_silent_hosts(
    connection: &mut PgConnection,
    now: Timestamp,
    margin: Duration,
) -> Result<Vec<(HostId, String)>, sqlx::Error> {
    let rows = sqlx::query!(
        "update host
        set retired_at = $1
        where retired_at is null
            and lease_ends_at < $1::timestamptz - $2::interval
        returning host_id, name",
        instant(now),
        interval(margin),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (HostId(row.host_id), row.name)).collect())
}

/// Runs that a host had and nobody has now.
struct Released {
    host: HostId,
    name: String,
    runs: u64,
}

async fn release_runs(
    connection: &mut PgConnection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Released>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with released as (
            update workflow_run r
            set owner = null, fence = r.fence + 1, wake_at = $1, host_lost = r.host_lost or not h.orderly
            from host h
            where r.workflow_id in (
                    select o.workflow_id
                    from host h
                    join workflow_run o on o.owner = h.host_id
                    where h.retired_at is not null
                    order by o.workflow_id
                    limit $2
                )
                -- Looked at again if the row has changed while this waited for it.
                and r.owner = h.host_id
                and h.retired_at is not null
            returning h.host_id, h.name
        )
        select host_id as "host_id!", name as "name!", count(*) as "runs!"
        from released
        group by host_id, name"#,
        instant(now),
        count(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Released { host: HostId(row.host_id), name: row.name, runs: unsigned(row.runs) })
        .collect())
}

/// Only so late, because an acceptance on its way can still name a host that was retired.
async fn forget_hosts_retired_a_day_ago(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from host h
        where h.retired_at < $1::timestamptz - interval '1 day'
            and not exists (select from workflow_run r where r.owner = h.host_id)",
        instant(now),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
