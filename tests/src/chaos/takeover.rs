//! How long the runs of a killed host stand still.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use uuid::Uuid;

use super::bell::Bell;
use super::sql::Sql;

/// A takeover that takes longer has its reason in other faults, and shows in the end of the runs.
const LONGEST: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(25);
const ANSWER: Duration = Duration::from_secs(2);

/// What happened to the runs of one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takeover {
    /// The number of runs that the host owned when it was killed.
    pub(crate) runs: usize,
    /// The time from the kill until the host owned none of them any more.
    pub(crate) released: Option<Duration>,
    /// The time from the kill until each of them had another event, or was over.
    pub(crate) moved: Option<Duration>,
    /// Whether Postgres answered all the time.
    pub(crate) is_calm: bool,
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |time: Option<Duration>| match time {
            Some(time) => format!("after {:.1} s", time.as_secs_f64()),
            None => "never".to_owned(),
        };
        if self.runs == 0 {
            return f.write_str("the killed host owned no runs");
        }
        let (runs, released, moved) = (self.runs, after(self.released), after(self.moved));
        write!(f, "the {runs} runs of a killed host were released {released} and had moved on {moved}")
    }
}

struct Owned {
    /// There are several ids if the host has registered again and its older ids aren't retired yet.
    hosts: Vec<Uuid>,
    runs: Vec<Uuid>,
    sequences: Vec<i64>,
}

/// Watches the runs of the process with this name, which was killed at `killed_at`. Returns `None` if they can't be
/// known.
pub(crate) fn watch(sql: &Sql, name: &str, killed_at: Instant, end: &Bell) -> Option<Takeover> {
    // Later there may be another process with this name.
    let owned = sql.ask(ANSWER, async |connection| find(connection, name).await).ok()?;
    let mut takeover = Takeover { runs: owned.runs.len(), released: None, moved: None, is_calm: true };
    while killed_at.elapsed() < LONGEST && !end.has_rung() {
        let watched = sql.ask(LONGEST, async |connection| {
            loop {
                let (left, still) = look(connection, &owned).await?;
                let now = killed_at.elapsed();
                if left == 0 {
                    takeover.released.get_or_insert(now);
                }
                if still == 0 {
                    takeover.moved.get_or_insert(now);
                }
                if left + still == 0 || end.has_rung() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        });
        if watched.is_ok() {
            break;
        }
        takeover.is_calm = false;
        thread::sleep(POLL);
    }
    Some(takeover)
}

async fn find(connection: &mut sqlx::PgConnection, name: &str) -> Result<Owned> {
    let hosts: Vec<Uuid> =
        sqlx::query_scalar("select host_id from host where name = $1 and retired_at is null")
            .bind(name)
            .fetch_all(&mut *connection)
            .await?;
    let runs: Vec<(Uuid, i64)> = sqlx::query_as(
        "select r.workflow_id, coalesce(max(e.sequence), 0)
            from workflow_run r
            left join workflow_events e on e.workflow_id = r.workflow_id
            where r.owner = any ($1)
            group by r.workflow_id",
    )
    .bind(&hosts)
    .fetch_all(connection)
    .await?;
    let (runs, sequences) = runs.into_iter().unzip();
    Ok(Owned { hosts, runs, sequences })
}

/// Returns how many of its runs the host still owns, and how many have no new event.
async fn look(connection: &mut sqlx::PgConnection, owned: &Owned) -> Result<(i64, i64)> {
    let counts = sqlx::query_as(
        "select count(*) filter (where r.owner = any ($1)), count(*) filter (where log.last = seen.sequence)
        from unnest($2::uuid[], $3::bigint[]) as seen (workflow_id, sequence)
        join workflow_run r on r.workflow_id = seen.workflow_id
        cross join lateral (
            select coalesce(max(e.sequence), 0) as last from workflow_events e where e.workflow_id = seen.workflow_id
        ) log",
    )
    .bind(&owned.hosts)
    .bind(&owned.runs)
    .bind(&owned.sequences)
    .fetch_one(connection)
    .await?;
    Ok(counts)
}
