//! Partitions of the events, a week each, and what goes when its time is over.
//!
//! A run belongs to the week of its acceptance, by its id: a UUIDv7 begins with its instant. A week goes whole: its runs,
//! with their keys, and then the partition with all their events, at once and however many they are. What no week was made
//! for is in the default partition, and goes run by run.
//!
//! The order is the readers' safety: a run's row goes before its events or with them, so there never is a run without its
//! events, and whoever stops in between leaves events that nobody sees, for the next round to find. What is asked here is
//! checked here: a partition is dropped if it has no runs, whoever asks, and a run goes if it is over for long enough.
//!
//! Hosts do this one at a time, step by step, under an advisory lock. Statements that need a lock which stops other work
//! wait for it only shortly.

use std::ops::Range;

use aster_core::time::Timestamp;
use chrono::{DateTime, Datelike as _, Utc};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgTransaction, raw_sql};
use uuid::Uuid;

use super::connections::despite_deadlocks;
use super::{Error, Store, count, instant, unsigned};

/// The key of the advisory lock, which is held until the end of a transaction.
const LOCK: i64 = 0x0061_7374_6572;

/// Partitions are made for the current week and so many after it.
const WEEKS_AHEAD: u64 = 3;

/// Runs that go with one statement.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// Runs that are looked at with one statement, for one that holds its week.
const LOOKED_AT_ONCE: usize = 100_000;

/// For statements that lock the table: a read or a commit that began before is waited for so long, and all that come
/// later wait with it. Longer than Postgres takes to call off an autovacuum (`deadlock_timeout`). The other limit is for
/// looking through the default partition when a new one is attached, during which nobody reads it.
const FOR_DDL: &str = "set local lock_timeout = '2s'; set local statement_timeout = '5s'";

/// Every lookup is by an index, also where Postgres knows little of the tables yet.
const FOR_LOOKUPS: &str =
    "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off";

/// The smallest id of a run that is accepted at this instant.
fn first_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    // 48 bits of milliseconds come first (RFC 9562, section 5.7).
    Uuid::from_u128(u128::from(millis) << 80)
}

/// From a Monday, 00:00 UTC, to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Week {
    begins: Timestamp,
}

impl Week {
    const MILLIS: i64 = 7 * 86_400_000;
    /// The first one of 1970, which began with a Thursday.
    const FIRST: i64 = 4 * 86_400_000;

    pub fn of(at: Timestamp) -> Self {
        let into = (at.as_millis() - Self::FIRST).rem_euclid(Self::MILLIS);
        Self { begins: Timestamp::from_millis(at.as_millis() - into) }
    }

    fn plus(self, weeks: u64) -> Self {
        Self { begins: self.begins.plus_millis(weeks * Self::MILLIS.unsigned_abs()) }
    }

    /// Of the runs that are accepted in it.
    fn ids(self) -> Range<Uuid> {
        first_id(self.begins)..first_id(self.plus(1).begins)
    }

    /// Of its partition: `workflow_events_2026w48`, by ISO 8601's year and week.
    pub fn name(self) -> String {
        let week = DateTime::<Utc>::from(self.begins).iso_week();
        format!("workflow_events_{}w{:02}", week.year(), week.week())
    }
}

/// Events of the runs of a range of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As SQL takes it.
    pub name: String,
    pub ids: Range<Uuid>,
}

impl Partition {
    /// Whether all its runs were accepted before then.
    pub fn is_before(&self, at: Timestamp) -> bool {
        self.ids.end <= first_id(at)
    }
}

/// Runs of a range of ids, as far as they were looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Of those that were asked for.
    found: u64,
    /// The first id behind them; none where there are no more.
    next: Option<Uuid>,
}

impl Store {
    /// Weeks from now on that have no partition yet.
    pub async fn weeks_to_make(&self, now: Timestamp) -> Result<Vec<Week>, Error> {
        let there = self.partitions().await?;
        let weeks = (0..=WEEKS_AHEAD).map(|ahead| Week::of(now).plus(ahead));
        let covered =
            |ids: Range<Uuid>| there.iter().any(|p| p.ids.start <= ids.start && ids.end <= p.ids.end);
        Ok(weeks.filter(|week| !covered(week.ids())).collect())
    }

    /// Makes the partition of a week; false if it is there, or if events of the week are in the default partition already:
    /// then that has all of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] among others if the locks for it aren't to be had soon. Nothing is made then.
    pub async fn make_partition(&self, week: Week) -> Result<bool, Error> {
        self.connection().await?.ask(|connection| make_partition(connection, week)).await
    }

    /// All but the default one, by their ranges.
    pub async fn partitions(&self) -> Result<Vec<Partition>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select c.oid::regclass::text as "name!", pg_get_expr(c.relpartbound, c.oid) as "bounds!"
                    from pg_inherits i
                    join pg_class c on c.oid = i.inhrelid
                    where i.inhparent = 'workflow_events'::regclass
                        and pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'"#,
                )
                .fetch_all(connection)
            })
            .await?;
        let partitions = rows.into_iter().map(|row| match parse_bounds(&row.bounds) {
            Some(ids) => Ok(Partition { name: row.name, ids }),
            None => Err(Error::corrupt(format!("partition {} is {}", row.name, row.bounds))),
        });
        let mut partitions = partitions.collect::<Result<Vec<_>, _>>()?;
        partitions.sort_by_key(|partition| partition.ids.start);
        Ok(partitions)
    }

    /// How many runs keep a partition from being dropped: those that are unfinished, need an operator, or ended at `cutoff`
    /// or later.
    pub async fn count_holding(&self, partition: &Partition, cutoff: Timestamp) -> Result<u64, Error> {
        let mut holding = 0;
        let mut rest = Some(partition.ids.clone());
        while let Some(ids) = rest {
            let seen = self
                .connection()
                .await?
                .patiently()
                .ask(|connection| count_holding(connection, &ids, cutoff))
                .await?;
            holding += seen.found;
            rest = seen.next.map(|next| next..ids.end);
        }
        Ok(holding)
    }

    /// Deletes the runs of a partition that ended before `cutoff`, then drops it. Returns how many runs went, and whether it
    /// was dropped; it is not if runs were left.
    ///
    /// # Errors
    /// [`Error::Unavailable`] among others if the locks for it aren't to be had soon. It is right to ask again.
    pub async fn drop_partition(
        &self,
        partition: &Partition,
        cutoff: Timestamp,
    ) -> Result<(u64, bool), Error> {
        let forgotten = self.forget(partition.ids.clone(), cutoff).await?;
        let dropped = self
            .connection()
            .await?
            .patiently()
            .ask(|connection| drop_if_empty(connection, partition))
            .await?;
        Ok((forgotten, dropped))
    }

    /// Deletes runs that ended before `cutoff` and have their events in the default partition, events and all. Returns how
    /// many.
    pub async fn forget_default(&self, cutoff: Timestamp) -> Result<u64, Error> {
        let end = first_id(cutoff);
        let mut forgotten = 0;
        let mut from = Uuid::nil();
        // In all gaps between the partitions.
        for partition in self.partitions().await? {
            forgotten += self.forget(from..partition.ids.start.min(end), cutoff).await?;
            from = partition.ids.end;
        }
        Ok(forgotten + self.forget(from..end, cutoff).await?)
    }

    /// Deletes the runs of a range that ended before `cutoff`, with their keys, and with what of their events is in the default
    /// partition.
    async fn forget(&self, ids: Range<Uuid>, cutoff: Timestamp) -> Result<u64, Error> {
        let mut forgotten = 0;
        let mut rest = (!ids.is_empty()).then_some(ids);
        while let Some(ids) = rest {
            let seen = despite_deadlocks(|| async {
                let mut connection = self.connection().await?.patiently();
                connection.ask(|connection| forget(connection, &ids, cutoff)).await
            })
            .await?;
            forgotten += seen.found;
            // What went isn't looked at again: its entries in the index stay for a while.
            rest = seen.next.map(|next| next..ids.end);
        }
        Ok(forgotten)
    }
}

/// Alone among all hosts, until the transaction's end.
async fn begin<'c>(
    connection: &'c mut PgConnection,
    settings: &'static str,
) -> Result<PgTransaction<'c>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    raw_sql(settings).execute(&mut *transaction).await?;
    sqlx::query!("select from (select pg_advisory_xact_lock($1)) locked", LOCK)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

async fn make_partition(connection: &mut PgConnection, week: Week) -> Result<bool, sqlx::Error> {
    let (name, ids) = (week.name(), week.ids());
    let mut transaction = begin(connection, FOR_DDL).await?;
    let is_needed = sqlx::query_scalar!(
        r#"select to_regclass($1) is null
            and not exists (
                select from workflow_events_default where workflow_id >= $2 and workflow_id < $3
            ) as "is_needed!""#,
        name,
        ids.start,
        ids.end,
    )
    .fetch_one(&mut *transaction)
    .await?;
    if !is_needed {
        transaction.rollback().await?;
        return Ok(false);
    }
    // `create table … partition of` would lock out everybody for as long; so only the default partition is locked so.
    let (start, end) = (ids.start, ids.end);
    let begins = DateTime::<Utc>::from(week.begins).format("%Y-%m-%d");
    let made = raw_sql(AssertSqlSafe(format!(
        "create table {name} (like workflow_events including all);
        comment on table {name} is 'Events of the runs that were accepted in the week from {begins}, UTC.';
        alter table workflow_events attach partition {name} for values from ('{start}') to ('{end}')",
    )))
    .execute(&mut *transaction)
    .await;
    match made {
        Ok(_) => transaction.commit().await.map(|()| true),
        Err(error) => {
            transaction.rollback().await?;
            // An event of the week came to the default partition meanwhile.
            let is_late = error.as_database_error().is_some_and(|error| error.is_check_violation());
            if is_late { Ok(false) } else { Err(error) }
        }
    }
}

async fn drop_if_empty(connection: &mut PgConnection, partition: &Partition) -> Result<bool, sqlx::Error> {
    // Without a lock first: then the index forgets the entries of deleted runs, and the second look is quick.
    if has_runs(connection, &partition.ids).await? {
        return Ok(false);
    }
    let mut transaction = begin(connection, FOR_DDL).await?;
    let lock = raw_sql("lock table only workflow_events in access exclusive mode");
    lock.execute(&mut *transaction).await?;
    // Nothing under way can bring a run any more. Another host may have dropped it.
    let is_there =
        sqlx::query_scalar!(r#"select to_regclass($1) is not null as "is_there!""#, partition.name)
            .fetch_one(&mut *transaction)
            .await?;
    if !is_there || has_runs(&mut transaction, &partition.ids).await? {
        transaction.rollback().await?;
        return Ok(false);
    }
    let drop = raw_sql(AssertSqlSafe(format!("drop table {}", partition.name)));
    drop.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn has_runs(connection: &mut PgConnection, ids: &Range<Uuid>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
            select from workflow_run where workflow_id >= $1 and workflow_id < $2
        ) as "has_runs!""#,
        ids.start,
        ids.end,
    )
    .fetch_one(connection)
    .await
}

async fn count_holding(
    connection: &mut PgConnection,
    ids: &Range<Uuid>,
    cutoff: Timestamp,
) -> Result<Seen, sqlx::Error> {
    let row = sqlx::query!(
        r#"with looked_at as (
            select workflow_id, status, updated_at
            from workflow_run
            where workflow_id >= $1
                and workflow_id < $2
            order by workflow_id
            limit $4
        )
        select
            count(*) filter (
                where status not in ('COMPLETED', 'FAILED', 'COMPENSATED')
                    or updated_at >= $3
            ) as "holding!",
            count(*) as "looked_at!",
            (select workflow_id from looked_at order by workflow_id desc limit 1) as last
        from looked_at"#,
        ids.start,
        ids.end,
        instant(cutoff),
        count(LOOKED_AT_ONCE),
    )
    .fetch_one(connection)
    .await?;
    let is_all = row.looked_at < count(LOOKED_AT_ONCE);
    Ok(Seen { found: unsigned(row.holding), next: row.last.filter(|_| !is_all).map(after) })
}

async fn forget(
    connection: &mut PgConnection,
    ids: &Range<Uuid>,
    cutoff: Timestamp,
) -> Result<Seen, sqlx::Error> {
    let mut transaction = begin(connection, FOR_LOOKUPS).await?;
    let row = sqlx::query!(
        r#"with old as (
            select workflow_id
            from workflow_run
            where workflow_id >= $1
                and workflow_id < $2
                and status in ('COMPLETED', 'FAILED', 'COMPENSATED')
                and updated_at < $3
            order by workflow_id
            limit $4
        ),
        gone as (
            delete from workflow_run r
            using old
            where r.workflow_id = old.workflow_id
            returning r.workflow_id, r.tenant, r.definition, r.key, r.status
        ),
        counted as (
            insert into run_count as c (host_id, by_acceptance, tenant, definition, status, n)
            select '00000000-0000-0000-0000-000000000000', false, gone.tenant, gone.definition, gone.status, -count(*)
            from gone
            group by gone.tenant, gone.definition, gone.status
            order by gone.tenant, gone.definition, gone.status
            on conflict (tenant, definition, status, host_id, by_acceptance) do update set n = c.n + excluded.n
        ),
        gone_orders as (
            delete from workflow_order o using gone where o.workflow_id = gone.workflow_id
        ),
        gone_pins as (
            delete from workflow_pin p using gone where p.workflow_id = gone.workflow_id
        ),
        gone_keys as (
            delete from workflow_key k
            using gone
            where k.tenant = gone.tenant
                and k.definition = gone.definition
                and k.key = gone.key
                -- A newer run may have the key, or take it just now: then this is looked at again.
                and k.workflow_id = gone.workflow_id
        ),
        gone_events as (
            delete from workflow_events_default e
            using gone
            where e.workflow_id = gone.workflow_id
        )
        select
            (select count(*) from gone) as "gone!",
            (select count(*) from old) as "old!",
            (select workflow_id from old order by workflow_id desc limit 1) as last"#,
        ids.start,
        ids.end,
        instant(cutoff),
        count(FORGOTTEN_AT_ONCE),
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let is_all = row.old < count(FORGOTTEN_AT_ONCE);
    Ok(Seen { found: unsigned(row.gone), next: row.last.filter(|_| !is_all).map(after) })
}

/// The next id.
fn after(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add(1))
}

/// Of `FOR VALUES FROM ('…') TO ('…')`.
fn parse_bounds(text: &str) -> Option<Range<Uuid>> {
    let mut between_quotes = text.split('\'').skip(1).step_by(2);
    let start = between_quotes.next()?.parse().ok()?;
    let end = between_quotes.next()?.parse().ok()?;
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        DateTime::parse_from_rfc3339(text).expect("an instant").to_utc().into()
    }

    #[test]
    fn weeks_begin_on_mondays_and_are_named_as_iso_8601_has_it() {
        let check = |instant: &str, begins: &str, name: &str| {
            let week = Week::of(at(instant));
            assert_eq!((week.begins, week.name().as_str()), (at(begins), name), "{instant}");
        };
        check("2026-11-22T23:59:59.999Z", "2026-11-16T00:00:00Z", "workflow_events_2026w47");
        check("2026-11-23T00:00:00.000Z", "2026-11-23T00:00:00Z", "workflow_events_2026w48");
        check("2026-11-29T12:00:00.000Z", "2026-11-23T00:00:00Z", "workflow_events_2026w48");
        // A Friday of the week that began last year.
        check("2027-01-01T00:00:00.000Z", "2026-12-28T00:00:00Z", "workflow_events_2026w53");
        check("2027-01-04T00:00:00.000Z", "2027-01-04T00:00:00Z", "workflow_events_2027w01");
        check("1970-01-01T00:00:00.000Z", "1969-12-29T00:00:00Z", "workflow_events_1970w01");
    }

    #[test]
    fn weeks_of_ids_follow_each_other_without_a_gap() {
        let mut week = Week::of(at("2026-11-22T12:00:00Z"));
        for _ in 0..120 {
            let next = week.plus(1);
            assert_eq!(week.ids().end, next.ids().start);
            assert_ne!(week.name(), next.name());
            week = next;
        }
    }

    #[test]
    fn an_id_is_of_the_week_of_its_instant() {
        let check = |instant: &str| {
            let millis = u64::try_from(at(instant).as_millis()).expect("after 1970");
            for random in [[0; 10], [0xff; 10]] {
                let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
                assert!(Week::of(at(instant)).ids().contains(&id), "{instant}: {id}");
            }
        };
        check("2026-11-22T23:59:59.999Z");
        check("2026-11-23T00:00:00.000Z");
        assert_eq!(
            first_id(at("2026-11-23T00:00:00.000Z")).to_string(),
            "01a205b3-d000-0000-0000-000000000000"
        );
    }

    #[test]
    fn the_bounds_of_a_partition_are_read_as_postgres_writes_them() {
        let ids = Week::of(at("2026-11-22T12:00:00Z")).ids();
        let text = format!("FOR VALUES FROM ('{}') TO ('{}')", ids.start, ids.end);
        assert_eq!(parse_bounds(&text), Some(ids));
        for text in ["DEFAULT", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"] {
            assert_eq!(parse_bounds(text), None);
        }
    }
}
