use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};

use super::keys::someone_waits;
use super::*;
use crate::maintenance::{Forgotten, forget, make_partitions};

const DAY: u64 = 86_400_000;

/// A Friday, 08:00 UTC.
const THIS_WEEK: &str = "workflow_events_2027w02";

/// Of a run that is accepted at that instant, the `n`th.
fn id_at(at: Timestamp, n: u128) -> WorkflowId {
    let millis = u64::try_from(at.as_millis()).unwrap();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    WorkflowId(Uuid::from_u128(id.as_u128() + n))
}

fn days_later(days: u64) -> Timestamp {
    NOW.plus_millis(days * DAY)
}

impl Bed {
    /// A run that was accepted and started at an instant.
    async fn accepted(&self, at: Timestamp, n: u128, key: Option<&str>) -> WorkflowId {
        let run = NewRun {
            workflow_id: id_at(at, n),
            key: key.map(str::to_owned),
            accepted_at: at,
            start: Some(Start {
                host: self.host,
                events: vec![self.started_event()],
                run: record(Status::Running, Driver::Owner),
            }),
            ..self.new_run()
        };
        assert!(matches!(self.store.accept(run.clone()).await.unwrap(), Acceptance::New { .. }));
        run.workflow_id
    }

    /// One that also ended then.
    async fn ended(&self, at: Timestamp, n: u128, key: Option<&str>, status: Status) -> WorkflowId {
        let run = self.accepted(at, n, key).await;
        self.end(run, at, status).await;
        run
    }

    async fn end(&self, run: WorkflowId, at: Timestamp, status: Status) {
        let transition = Transition { at, ..ending(run, NewRun::FIRST_FENCE, 1, status) };
        self.commit(transition).await.unwrap();
    }

    async fn is_there(&self, run: WorkflowId) -> bool {
        self.store.load_run(run).await.unwrap().is_some()
    }

    async fn run_of_key(&self, key: &str) -> Option<WorkflowId> {
        self.store.run_by_key(&tenant(), DEFINITION, key).await.unwrap().map(|run| run.workflow_id)
    }

    async fn forget(&self, cutoff: Timestamp) -> Forgotten {
        forget(&self.store, cutoff).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        self.store.partitions().await.unwrap().into_iter().map(|partition| partition.name).collect()
    }
}

/// Where the events of a run lie.
async fn partition_of(pool: &PgPool, run: WorkflowId) -> Vec<String> {
    sqlx::query_scalar("select distinct tableoid::regclass::text from workflow_events where workflow_id = $1")
        .bind(run.0)
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn count_rows(pool: &PgPool, table: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
        .fetch_one(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn partitions_are_made_ahead_and_events_land_in_them(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let made = make_partitions(&bed.store, NOW).await.unwrap();
    let expected = ["2027w02", "2027w03", "2027w04", "2027w05"].map(|week| format!("workflow_events_{week}"));
    assert_eq!((&made[..], bed.names().await), (&expected[..], expected.to_vec()));
    assert_eq!(made[0], THIS_WEEK);
    assert!(make_partitions(&bed.store, NOW).await.unwrap().is_empty());
    assert_eq!(make_partitions(&bed.store, days_later(7)).await.unwrap(), ["workflow_events_2027w06"]);

    let cases = [
        (NOW, THIS_WEEK),
        (days_later(21), "workflow_events_2027w05"),
        (days_later(70), "workflow_events_default"),
    ];
    for (at, partition) in cases {
        let run = bed.ended(at, 1, None, Status::Completed).await;
        assert_eq!(partition_of(&pool, run).await, [partition]);
        assert_eq!(bed.log_length(run).await, 2);
    }
    // The same event twice is refused there too.
    let again =
        sqlx::query("insert into workflow_events select * from workflow_events limit 1").execute(&pool).await;
    assert!(again.unwrap_err().to_string().contains("workflow_events_2027w02_pkey"));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_week_that_began_in_the_default_partition_stays_there(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let early = bed.accepted(NOW, 1, None).await;
    let made = make_partitions(&bed.store, NOW).await.unwrap();
    assert_eq!(made, ["2027w03", "2027w04", "2027w05"].map(|week| format!("workflow_events_{week}")));
    bed.end(early, NOW, Status::Completed).await;
    assert_eq!(bed.log_length(early).await, 2);

    // When they are forgotten the week is free, and of no use any more.
    assert_eq!(bed.forget(days_later(1)).await, Forgotten { runs: 1, ..Forgotten::default() });
    assert_eq!(count_rows(&pool, "workflow_events").await, 0);
    assert_eq!(make_partitions(&bed.store, NOW).await.unwrap(), [THIS_WEEK]);
}

#[sqlx::test(migrations = "../migrations")]
async fn old_weeks_go_whole_with_their_runs_and_keys(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    make_partitions(&bed.store, NOW).await.unwrap();
    let cases = [Status::Completed, Status::Failed, Status::Compensated];
    let mut old = Vec::new();
    for (n, status) in (1..).zip(cases) {
        old.push(bed.ended(NOW, n, Some(&format!("o-{n}")), status).await);
    }
    let young = bed.ended(days_later(7), 1, Some("young"), Status::Completed).await;

    // This week isn't over at the cutoff.
    assert_eq!(bed.forget(days_later(1)).await, Forgotten::default());
    let expected = Forgotten { runs: 3, partitions: vec![THIS_WEEK.into()], ..Forgotten::default() };
    assert_eq!(bed.forget(days_later(5)).await, expected);
    for run in old {
        assert!(!bed.is_there(run).await);
        assert!(bed.store.load_events(run, 0, 10).await.unwrap().items.is_empty());
    }
    assert_eq!(bed.run_of_key("young").await, Some(young));
    assert_eq!(bed.log_length(young).await, 2);
    assert_eq!(count_rows(&pool, "workflow_key").await, 1);

    // The key is as if it had never been used, also with other input.
    let again = NewRun { key: Some("o-1".into()), input_digest: [9; 32], ..bed.new_run() };
    assert_eq!(bed.store.accept(again.clone()).await.unwrap(), Acceptance::New { previous: None });
}

#[sqlx::test(migrations = "../migrations")]
async fn one_run_that_is_not_settled_or_ended_late_holds_its_whole_week(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    make_partitions(&bed.store, NOW).await.unwrap();
    let (cutoff, late) = (days_later(3), days_later(4));
    for n in 1..=3 {
        bed.ended(NOW, n, None, Status::Completed).await;
    }
    let unfinished = bed.accepted(NOW, 4, None).await;
    bed.ended(NOW, 5, None, Status::CompensationFailed).await;
    let ready = NewRun { workflow_id: id_at(NOW, 6), ..bed.new_run() };
    bed.store.accept(ready.clone()).await.unwrap();

    let check = async |holding: u64, cutoff: Timestamp| {
        assert_eq!(bed.forget(cutoff).await, Forgotten { held: 1, holding, ..Forgotten::default() });
        assert_eq!(count_rows(&pool, "workflow_run").await, 6);
        assert!(bed.names().await.contains(&THIS_WEEK.to_owned()));
    };
    check(3, cutoff).await;
    bed.end(unfinished, NOW, Status::Completed).await;
    check(2, cutoff).await;
    // As operators settle it, and as it is driven.
    for status in ["COMPENSATION_FAILED", "READY"] {
        sqlx::query("update workflow_run set status = 'COMPENSATED', wake_at = null, updated_at = $2 where status = $1")
            .bind(status)
            .bind(instant(late))
            .execute(&pool)
            .await
            .unwrap();
    }
    check(2, cutoff).await;
    let expected = Forgotten { runs: 6, partitions: vec![THIS_WEEK.into()], ..Forgotten::default() };
    assert_eq!(bed.forget(late.plus_millis(1)).await, expected);
    assert_eq!(count_rows(&pool, "workflow_events").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn runs_in_the_default_partition_go_one_by_one(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let old = bed.ended(NOW, 1, Some("old"), Status::Compensated).await;
    let unfinished = bed.accepted(NOW, 2, Some("unfinished")).await;
    let failed = bed.ended(NOW, 3, None, Status::CompensationFailed).await;
    let late = bed.accepted(NOW, 4, None).await;
    bed.end(late, days_later(40), Status::Completed).await;
    make_partitions(&bed.store, days_later(7)).await.unwrap();
    // In a partition that isn't over, and behind all of them.
    let others = [
        bed.ended(days_later(12), 1, None, Status::Completed).await,
        bed.ended(days_later(70), 1, None, Status::Completed).await,
    ];
    let expected =
        Forgotten { runs: 1, partitions: vec!["workflow_events_2027w03".into()], ..Forgotten::default() };
    assert_eq!(bed.forget(days_later(14)).await, expected);
    assert!(!bed.is_there(old).await);
    assert_eq!(bed.run_of_key("old").await, None);
    assert_eq!(bed.run_of_key("unfinished").await, Some(unfinished));
    for run in [unfinished, failed, late].into_iter().chain(others) {
        bed.log_length(run).await;
    }
    let events: i64 = count_rows(&pool, "workflow_events").await;
    assert_eq!(events, 1 + 2 + 2 + 2 + 2);
    // Nothing there holds anything.
    assert_eq!(bed.forget(days_later(39)).await.runs, 1);
    assert_eq!(bed.forget(days_later(77)).await.runs, 2);
    assert_eq!(count_rows(&pool, "workflow_run").await, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_that_a_newer_run_took_stays_with_it(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    make_partitions(&bed.store, NOW).await.unwrap();
    let old = bed.ended(NOW, 1, Some("o-1"), Status::Failed).await;
    let newer = NewRun {
        workflow_id: id_at(days_later(20), 1),
        key: Some("o-1".into()),
        input_digest: [8; 32],
        ..bed.new_run()
    };
    assert_eq!(bed.store.accept(newer.clone()).await.unwrap(), Acceptance::New { previous: Some(old) });
    assert_eq!(bed.forget(days_later(10)).await.runs, 1);
    assert!(!bed.is_there(old).await);
    assert_eq!(bed.run_of_key("o-1").await, Some(newer.workflow_id));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_that_is_taken_while_its_run_goes_is_taken(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options.clone()).await.unwrap();
    let bed = Bed::new(pool.clone()).await;
    bed.ended(NOW, 1, Some("o-1"), Status::Failed).await;
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    let mut theirs = other.begin().await.unwrap();
    let taker = id_at(days_later(20), 1);
    sqlx::query("update workflow_key set workflow_id = $1")
        .bind(taker.0)
        .execute(&mut *theirs)
        .await
        .unwrap();
    let (forgotten, ()) = tokio::join!(bed.forget(days_later(10)), async {
        let mut watcher = PgConnection::connect_with(&options).await.unwrap();
        someone_waits(&mut watcher).await;
        theirs.commit().await.unwrap();
    });
    assert_eq!(forgotten.runs, 1);
    let key: Uuid =
        sqlx::query_scalar("select workflow_id from workflow_key").fetch_one(&pool).await.unwrap();
    assert_eq!(key, taker.0);
}

#[sqlx::test(migrations = "../migrations")]
async fn two_hosts_at_once_do_it_once(_: PgPoolOptions, options: PgConnectOptions) {
    let pools = [
        PgPoolOptions::new().connect_with(options.clone()).await.unwrap(),
        PgPoolOptions::new().connect_with(options).await.unwrap(),
    ];
    let [here, there] = pools.clone();
    let (here, there) = (Bed::new(here).await, Bed::new(there).await);
    let (ours, theirs) = tokio::join!(make_partitions(&here.store, NOW), make_partitions(&there.store, NOW));
    assert_eq!(ours.unwrap().len() + theirs.unwrap().len(), 4);
    for n in 1..=20 {
        here.ended(NOW, n, Some(&n.to_string()), Status::Completed).await;
        there.ended(days_later(70), n, None, Status::Completed).await;
    }
    let (ours, theirs) = tokio::join!(here.forget(days_later(90)), there.forget(days_later(90)));
    assert_eq!(ours.runs + theirs.runs, 40);
    assert_eq!(ours.partitions.len() + theirs.partitions.len(), 4);
    for table in ["workflow_run", "workflow_key", "workflow_events"] {
        assert_eq!(count_rows(&pools[0], table).await, 0, "{table}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn more_runs_than_a_statement_takes_go_too(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    make_partitions(&bed.store, NOW).await.unwrap();
    let (first, last) = (id_at(NOW, 1), id_at(days_later(70), 1));
    bed.ended(NOW, 1, None, Status::Completed).await;
    bed.ended(days_later(70), 1, None, Status::Completed).await;
    // 2,500 copies of each, behind it, with all columns but the id as they are.
    for table in ["workflow_run", "workflow_events"] {
        let columns: String = sqlx::query_scalar(
            "select string_agg(attname, ', ' order by attnum)
            from pg_attribute
            where attrelid = $1::regclass and attnum > 1 and not attisdropped",
        )
        .bind(table)
        .fetch_one(&pool)
        .await
        .unwrap();
        let copy = format!(
            "insert into {table} (workflow_id, {columns})
            select (left(workflow_id::text, 24) || lpad(to_hex(i), 12, '0'))::uuid, {columns}
            from {table}, generate_series(2, 2501) i
            where workflow_id in ('{first}', '{last}')"
        );
        sqlx::query(sqlx::AssertSqlSafe(copy)).execute(&pool).await.unwrap();
    }
    let forgotten = bed.forget(days_later(90)).await;
    assert_eq!((forgotten.runs, forgotten.partitions.len(), forgotten.held), (5_002, 4, 0));
    assert_eq!(count_rows(&pool, "workflow_events").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lock_that_is_not_to_be_had_is_given_up_and_a_half_done_week_is_finished_later(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options.clone()).await.unwrap();
    let bed = Bed::new(pool.clone()).await;
    make_partitions(&bed.store, NOW).await.unwrap();
    let old = bed.ended(NOW, 1, None, Status::Completed).await;
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    let mut reader = other.begin().await.unwrap();
    sqlx::query("select from workflow_events").execute(&mut *reader).await.unwrap();

    let (kept, made) = tokio::join!(
        forget(&bed.store, days_later(5)),
        // The default partition is being read, too.
        make_partitions(&bed.store, days_later(7)),
    );
    assert!(matches!(kept, Err(Error::Unavailable { .. })), "{kept:?}");
    assert!(matches!(made, Err(Error::Unavailable { .. })), "{made:?}");
    // The run is gone, and its events are nobody's.
    assert!(!bed.is_there(old).await);
    assert_eq!(bed.names().await.len(), 4);

    reader.rollback().await.unwrap();
    let expected = Forgotten { partitions: vec![THIS_WEEK.into()], ..Forgotten::default() };
    assert_eq!(bed.forget(days_later(5)).await, expected);
    assert_eq!(make_partitions(&bed.store, days_later(7)).await.unwrap(), ["workflow_events_2027w06"]);
    assert_eq!(count_rows(&pool, "workflow_events").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_partition_with_runs_is_not_dropped_whoever_asks(pool: PgPool) {
    let bed = Bed::new(pool).await;
    make_partitions(&bed.store, NOW).await.unwrap();
    let run = bed.accepted(NOW, 1, None).await;
    let partition = bed.store.partitions().await.unwrap().remove(0);
    assert_eq!(bed.store.drop_partition(&partition, days_later(30)).await.unwrap(), (0, false));
    assert_eq!(bed.log_length(run).await, 1);
}
