use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::*;

#[sqlx::test(migrations = "../migrations")]
async fn a_transition_is_committed_with_its_events_and_its_row(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let result = Arc::new(json!({"total": 3}));
    let mut last = first_step(run);
    last.events.push(Event::WorkflowCompleted { result: result.clone() });
    last.run = RunRecord { result: Some(result.clone()), ..record(Status::Completed, Driver::Nobody) };
    bed.commit(last.clone()).await.unwrap();

    assert_eq!(bed.log_length(run).await, 3);
    let events = bed.store.load_events(run, 2, 10).await.unwrap().items;
    assert_eq!(events.into_iter().map(|event| event.event().unwrap()).collect::<Vec<_>>(), last.events);
    let stored = bed.store.load_run(run).await.unwrap().unwrap();
    assert_eq!((stored.status, stored.owner, stored.wake_at), (Status::Completed, None, None));
    assert_eq!(value(stored.result).as_ref(), Some(&*result));
    assert_eq!(stored.definition_digest, sha256("source"));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_stale_fence_is_refused_and_its_neighbours_are_committed(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let runs = join_all((0..20).map(|_| bed.started())).await;
    let answers = join_all(runs.iter().enumerate().map(|(i, &run)| {
        let fence = if i == 7 { Fence(0) } else { NewRun::FIRST_FENCE };
        bed.commit(step(run, fence, 1))
    }))
    .await;
    for (i, (run, answer)) in runs.into_iter().zip(answers).enumerate() {
        match (i, answer) {
            (7, answer) => {
                let current = NewRun::FIRST_FENCE;
                assert!(
                    matches!(answer, Err(Error::NotOwner { held: Fence(0), current: c }) if c == current),
                    "{answer:?}"
                );
                assert_eq!(bed.log_length(run).await, 1);
            }
            (_, answer) => {
                assert_eq!(answer.unwrap().fence, NewRun::FIRST_FENCE);
                assert_eq!(bed.log_length(run).await, 2);
            }
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn another_hosts_run_an_unknown_one_and_a_wrong_sequence_are_refused(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let other = bed.store.register_host("there", MINUTE).await.unwrap();
    let answer = bed.store.commit(other, first_step(run)).await;
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    let answer = bed.commit(first_step(WorkflowId(Uuid::now_v7()))).await;
    assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    // The host has lost track of the run: that is no verdict on what the transition holds.
    let answer = bed.commit(step(run, NewRun::FIRST_FENCE, 5)).await;
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    assert_eq!(bed.log_length(run).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn data_that_postgres_refuses_is_refused_alone(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let runs = join_all((0..20).map(|_| bed.started())).await;
    // Stands for all that Postgres may not take.
    let constraint = format!("check (workflow_id <> '{}' or sequence < 2)", runs[11].0);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("alter table workflow_events add {constraint}")))
        .execute(&pool)
        .await
        .unwrap();
    let answers = join_all(runs.iter().map(|&run| bed.commit(first_step(run)))).await;
    for (i, (run, answer)) in runs.into_iter().zip(answers).enumerate() {
        if i == 11 {
            assert!(matches!(answer, Err(Error::Refused { .. })), "{answer:?}");
        } else {
            answer.unwrap();
            assert_eq!(bed.log_length(run).await, 2);
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn texts_that_jsonb_would_refuse_are_kept_as_they_are(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let value = Arc::new(json!({"nul": "a\0b", "quote": "\"{},", "big": 1e300, "face": "😀"}));
    let event =
        Event::StepCompleted { step: "a".into(), attempt: 1, value: value.clone(), cost: Cost::default() };
    let transition = Transition {
        events: vec![event.clone()],
        run: RunRecord { result: Some(value.clone()), ..record(Status::Completed, Driver::Nobody) },
        ..first_step(run)
    };
    bed.commit(transition).await.unwrap();
    assert_eq!(bed.store.load_events(run, 2, 1).await.unwrap().items[0].event().unwrap(), event);
    assert_eq!(self::value(bed.store.load_run(run).await.unwrap().unwrap().result).as_ref(), Some(&*value));
}

#[sqlx::test(migrations = "../migrations")]
async fn sequences_are_gapless_under_200_runs_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().max_connections(20).connect_with(options).await.unwrap();
    let bed = Bed::new(pool).await;
    let runs = join_all((0..200).map(|_| bed.started())).await;
    join_all(runs.iter().map(|&run| {
        let bed = &bed;
        async move {
            for sequence in 1..=5 {
                bed.commit(step(run, NewRun::FIRST_FENCE, sequence)).await.unwrap();
            }
        }
    }))
    .await;
    for run in runs {
        assert_eq!(bed.log_length(run).await, 6);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_that_is_handed_back_is_claimed_when_its_time_comes(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let later = NOW.plus_millis(5_000);
    let waiting = Transition { run: record(Status::Running, Driver::ClaimableAt(later)), ..first_step(run) };
    bed.commit(waiting).await.unwrap();
    assert_eq!(bed.store.claim(bed.host, 10, NOW).await.unwrap(), Claims::default());
    let claimed = taken(bed.store.claim(bed.host, 10, later).await.unwrap());
    let [(claimed, fence)] = claimed[..] else { panic!("{claimed:?}") };
    assert_eq!((claimed, fence > NewRun::FIRST_FENCE), (run, true));
    let answer = bed.commit(step(run, NewRun::FIRST_FENCE, 2)).await;
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    bed.commit(step(run, fence, 2)).await.unwrap();
    assert_eq!(bed.log_length(run).await, 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_postgres_cannot_work_on_now_holds_up_nothing_else_and_is_committed_when_it_can(pool: PgPool) {
    let patience = Patience { answer: MINUTE, client: MINUTE, outage: Duration::from_millis(100) };
    let bed = Bed::on(Store::from_pool(pool.clone(), patience)).await;
    let runs = join_all((0..20).map(|_| bed.started())).await;
    // Like a damaged index, or a disk that is full.
    sqlx::raw_sql(
        "create function break() returns trigger language plpgsql as $$
        begin
            if new.event_type = 'STEP_SKIPPED' then
                raise exception using errcode = 'XX001', message = 'broken page';
            end if;
            return new;
        end $$;
        create trigger break before insert on workflow_events for each row execute function break();",
    )
    .execute(&pool)
    .await
    .unwrap();
    let broken =
        Transition { events: vec![Event::StepSkipped { step: "a_step".into() }], ..first_step(runs[7]) };
    let (store, host) = (bed.store.clone(), bed.host);
    let stuck = tokio::spawn(async move { store.commit(host, broken).await });
    let others: Vec<WorkflowId> = runs.iter().copied().filter(|&run| run != runs[7]).collect();
    for answer in join_all(others.iter().map(|&run| bed.commit(first_step(run)))).await {
        answer.unwrap();
    }
    // Also those that come later.
    for answer in join_all(others.iter().map(|&run| bed.commit(step(run, NewRun::FIRST_FENCE, 2)))).await {
        answer.unwrap();
    }
    assert!(!stuck.is_finished());
    sqlx::raw_sql("drop trigger break on workflow_events").execute(&pool).await.unwrap();
    stuck.await.unwrap().unwrap();
    assert_eq!(bed.log_length(runs[7]).await, 2);
}

/// Also if few runs had an owner when Postgres last looked, so that it believes that a host has hardly any.
#[sqlx::test(migrations = "../migrations")]
async fn a_batch_finds_its_runs_by_their_ids(pool: PgPool) {
    sqlx::raw_sql(
        "create function id(n bigint) returns uuid language sql
            return (lpad(to_hex(n), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid;
        create function runs(first bigint, last bigint, status text, host uuid) returns void language sql as $$
            insert into workflow_run (workflow_id, tenant, definition, release_id, input, status, accepted_at, updated_at,
                deadline, fence, last_sequence, owner)
            select id(n), 'default', 'shop.order', 1, '{}', status, now(), now(), now(), 1, 1, host
            from generate_series(first, last) n;
            insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
            select id(n), 1, 'WORKFLOW_STARTED', '{}', now() from generate_series(first, last) n;
        $$;
        select runs(1, 5000, 'COMPLETED', null);
        analyze workflow_run, workflow_events;
        select runs(5001, 5100, 'RUNNING', '11111111-1111-1111-1111-111111111111')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut transaction = pool.begin().await.unwrap();
    // As `Line::for_lookups` has it.
    sqlx::raw_sql("set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set plan_cache_mode = force_generic_plan")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let scans = "select pg_stat_get_xact_numscans('workflow_run_by_owner'::regclass),
        pg_stat_get_xact_numscans('workflow_run_pkey'::regclass),
        pg_stat_get_xact_numscans('workflow_events_default_pkey'::regclass)";
    let before: (i64, i64, i64) = sqlx::query_as(scans).fetch_one(&mut *transaction).await.unwrap();
    sqlx::raw_sql(
        "select c.*
        from (
            select array_agg(id(n) order by n) as ids, array_agg(n - 5000)::integer[] as ordinals, array_agg(1::bigint) as one,
                array_agg(now()) as at, array_agg('RUNNING'::text) as running, array_agg(null::text) as nothing,
                array_agg(true) as stays, array_agg(null::timestamptz) as never
            from generate_series(5001, 5100) n
        ) as t
        cross join lateral append_batch(
            '11111111-1111-1111-1111-111111111111', ids, one, one, at, '{}', '{}', '{}', '{}',
            ordinals, one, running, running, nothing, nothing, nothing, stays, never,
            '{}', '{}', '{}', '{}', '{}', '{}', '{}'
        ) as c",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    let after: (i64, i64, i64) = sqlx::query_as(scans).fetch_one(&mut *transaction).await.unwrap();
    let scans = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    // Each run is locked, and then changed.
    assert_eq!(scans, (0, 200, 100), "scans by owner, by id, and of events");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_quiet_transition_leaves_the_row_and_is_read_from_the_log(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let run = bed.started().await;
    let row = "select xmin::text from workflow_run";
    let before: String = sqlx::query_scalar(row).fetch_one(&pool).await.unwrap();
    let later = NOW.plus_millis(5);
    bed.commit(Transition { at: later, ..first_step(run) }).await.unwrap();
    let after: String = sqlx::query_scalar(row).fetch_one(&pool).await.unwrap();
    assert_eq!(before, after);
    let read = bed.store.load_run(run).await.unwrap().unwrap();
    assert_eq!((read.last_sequence, read.updated_at, read.status), (2, later, Status::Running));

    bed.commit(ending(run, NewRun::FIRST_FENCE, 2, Status::Completed)).await.unwrap();
    let read = bed.store.load_run(run).await.unwrap().unwrap();
    assert_eq!((read.last_sequence, read.updated_at, read.status), (3, NOW, Status::Completed));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_log_grows_only_where_it_ends(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let behind_its_row = |run| (run, 0);
    let beyond_its_end = |run| (run, 2);
    let (one, two, behind_its_end, torn) =
        (bed.started().await, bed.started().await, bed.started().await, bed.started().await);
    bed.commit(first_step(behind_its_end)).await.unwrap();
    // As where a partition was not restored.
    sqlx::query("delete from workflow_events where workflow_id = $1")
        .bind(torn.0)
        .execute(&pool)
        .await
        .unwrap();
    let lost = [behind_its_row(one), beyond_its_end(two), (behind_its_end, 1), (torn, 1)];
    for (lost, last_sequence) in lost {
        let before = bed.log_of(lost).await;
        let other = bed.started().await;
        let answers = tokio::join!(
            bed.commit(step(lost, NewRun::FIRST_FENCE, last_sequence)),
            bed.commit(first_step(other))
        );
        assert!(matches!(answers.0, Err(Error::NotOwner { .. })), "{last_sequence}: {answers:?}");
        assert!(answers.1.is_ok(), "{answers:?}");
        assert_eq!((bed.log_of(lost).await, bed.log_length(other).await), (before, 2));
    }
}

/// Each takes one connection from the pool, and no second one while it holds it.
#[sqlx::test(migrations = "../migrations")]
async fn a_run_under_way_is_read_over_one_connection(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    bed.commit(first_step(run)).await.unwrap();
    let filter = RunFilter { status: Some(Status::Running), ..RunFilter::default() };
    let listed = bed.store.list_runs(&tenant(), &filter, 10).await.unwrap().items;
    assert_eq!(listed.iter().map(|run| run.last_sequence).collect::<Vec<_>>(), [2]);
    assert_eq!(bed.store.load_run(run).await.unwrap().unwrap().last_sequence, 2);
    assert!(bed.store.replay(&[run]).await.unwrap().pop().unwrap().1.is_ok());
}

/// Until so many wait for locks.
async fn until_waiting(pool: &PgPool, n: i64) {
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database()
            and wait_event_type = 'Lock'";
    let they_do = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(pool).await.unwrap() < n {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, they_do).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_commit_that_waits_for_who_takes_its_run_is_refused(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let run = bed.started().await;
    let mut taker = pool.begin().await.unwrap();
    sqlx::raw_sql("update workflow_run set fence = fence + 2").execute(&mut *taker).await.unwrap();
    let (answer, ()) = tokio::join!(bed.commit(first_step(run)), async {
        until_waiting(&pool, 1).await;
        taker.commit().await.unwrap();
    });
    assert!(matches!(answer, Err(Error::NotOwner { current: Fence(3), .. })), "{answer:?}");
    assert_eq!(bed.log_length(run).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn who_takes_a_run_waits_for_the_commit_under_way_and_reads_it(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let run = bed.started().await;
    // The commit stops where it has the run's row and writes its event.
    let mut other = pool.begin().await.unwrap();
    sqlx::raw_sql(
        "create function stop() returns trigger language plpgsql as $$
        begin
            perform pg_advisory_xact_lock(1);
            return new;
        end $$;
        create trigger stop before insert on workflow_events for each row when (new.event_type = 'STEP_COMPLETED')
            execute function stop();",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::raw_sql("select pg_advisory_xact_lock(1)").execute(&mut *other).await.unwrap();
    let adopt = async {
        until_waiting(&pool, 1).await;
        let adopting = bed.store.adopt(bed.host, run, NewRun::FIRST_FENCE);
        let release = async {
            until_waiting(&pool, 2).await;
            other.commit().await.unwrap();
        };
        let (fence, ()) = tokio::join!(adopting, release);
        (fence.unwrap(), bed.store.load_run(run).await.unwrap().unwrap().last_sequence)
    };
    let (answer, (fence, last_sequence)) = tokio::join!(bed.commit(first_step(run)), adopt);
    answer.unwrap();
    assert_eq!((fence, last_sequence), (Fence(3), 2));
}
