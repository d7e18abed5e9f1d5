use aster_core::journal::{LostAnswer, Position, Settled};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::proxy::{Fault, Proxy};
use super::*;
use crate::store::commit;

/// A bed whose store reaches Postgres through a proxy, over one connection beside the writer's, so that every statement is
/// prepared where it is sent.
async fn behind_proxy(options: PgConnectOptions) -> (Bed, Proxy) {
    let proxy = Proxy::start(options).await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with(proxy.options.clone())
        .await
        .unwrap();
    let bed = Bed::new(pool).await;
    let warm_up = bed.started().await;
    bed.commit(first_step(warm_up)).await.unwrap();
    (bed, proxy)
}

async fn settle(bed: &Bed, run: WorkflowId, held: Fence) -> Position {
    let mut taken = bed.store.connection().await.unwrap();
    taken.ask(|connection| commit::settle(connection, bed.host, run, held)).await.unwrap()
}

/// The bed's host has handed the run back after its first event, with this many more events.
fn handed_back(bed: &Bed, events: u64) -> LostAnswer {
    let held = NewRun::FIRST_FENCE;
    LostAnswer { host: bed.host, held, last_sequence: 1, new_sequence: 1 + events, stays: false }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_commit_whose_answer_is_lost_is_settled_as_committed(_: PgPoolOptions, options: PgConnectOptions) {
    let (bed, proxy) = behind_proxy(options).await;
    let run = bed.started().await;
    proxy.next(Fault::SwallowAnswer);
    let committed = bed.commit(first_step(run)).await.unwrap();
    assert_eq!(committed.fence, Fence(2));
    assert_eq!(bed.log_length(run).await, 2);
    bed.commit(step(run, committed.fence, 2)).await.unwrap();

    // The last transition gives the run up, so no owner tells that it was applied.
    proxy.next(Fault::SwallowAnswer);
    bed.commit(ending(run, committed.fence, 3, Status::Completed)).await.unwrap();
    assert_eq!(bed.log_length(run).await, 4);
    assert_eq!(bed.store.load_run(run).await.unwrap().unwrap().status, Status::Completed);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_commit_that_never_arrived_is_settled_as_not_committed_and_harmless_when_it_does(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let (bed, proxy) = behind_proxy(options).await;
    let (run, last) = (bed.started().await, bed.started().await);
    for (run, transition) in
        [(run, first_step(run)), (last, ending(last, NewRun::FIRST_FENCE, 1, Status::Completed))]
    {
        proxy.next(Fault::HoldRequest);
        let answer = bed.commit(transition.clone()).await;
        let Err(Error::NotCommitted { fence }) = answer else { panic!("{answer:?}") };
        assert_eq!((fence, bed.log_length(run).await), (Fence(2), 1));

        proxy.deliver().await;
        assert_eq!(bed.log_length(run).await, 1);
        bed.commit(Transition { fence, ..transition }).await.unwrap();
        assert_eq!(bed.log_length(run).await, 2);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_that_was_handed_back_and_taken_by_another_host_is_not_settled_as_owned(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let direct = PgPoolOptions::new().connect_with(options.clone()).await.unwrap();
    let direct = Store::from_pool(direct, Patience::default());
    let (bed, proxy) = behind_proxy(options).await;
    let other = direct.register_host("there", MINUTE).await.unwrap();
    let run = bed.started().await;
    proxy.next(Fault::HoldRequest);
    let handing_back =
        Transition { run: record(Status::Running, Driver::ClaimableAt(NOW)), ..first_step(run) };
    let answer = bed.commit(handing_back).await;
    assert!(matches!(answer, Err(Error::NotCommitted { fence: Fence(2) })), "{answer:?}");
    // Settling is repeated until it is answered, and says the same each time.
    let again = settle(&bed, run, NewRun::FIRST_FENCE).await;
    assert_eq!(again, Position { fence: Fence(2), owner: Some(bed.host), last_sequence: 1 });
    assert_eq!(handed_back(&bed, 1).settle(again), Settled::NotCommitted { fence: Fence(2) });

    direct.retire_host(bed.host, NOW).await.unwrap();
    assert!(taken(direct.claim(other, 10, NOW).await.unwrap()).contains(&(run, Fence(4))));
    let later = settle(&bed, run, NewRun::FIRST_FENCE).await;
    assert_eq!(handed_back(&bed, 1).settle(later), Settled::NotOwner { current: Fence(4) }, "{later:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_that_its_own_host_has_claimed_again_is_not_settled_as_still_held(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let handing_back = Transition {
        events: Vec::new(),
        run: record(Status::Running, Driver::ClaimableAt(NOW)),
        ..first_step(run)
    };
    bed.commit(handing_back).await.unwrap();
    let position = settle(&bed, run, NewRun::FIRST_FENCE).await;
    assert_eq!(position, Position { fence: Fence(2), owner: None, last_sequence: 1 });
    let committed = Committed { fence: Fence(2) };
    assert_eq!(handed_back(&bed, 0).settle(position), Settled::Committed(committed));
    // Who claims it now drives it alone: the one who handed it back isn't told that it still may.
    assert_eq!(taken(bed.store.claim(bed.host, 10, NOW).await.unwrap()), [(run, Fence(3))]);
    let later = settle(&bed, run, NewRun::FIRST_FENCE).await;
    assert_eq!(handed_back(&bed, 0).settle(later), Settled::NotOwner { current: Fence(3) }, "{later:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_acceptance_is_asked_for_again_and_gives_one_run(_: PgPoolOptions, options: PgConnectOptions) {
    let (bed, proxy) = behind_proxy(options).await;
    for (fault, name) in [
        (Fault::SwallowAnswer, None),
        (Fault::SwallowAnswer, Some("a")),
        (Fault::HoldRequest, None),
        (Fault::HoldRequest, Some("b")),
    ] {
        let run = NewRun {
            key: name.map(str::to_owned),
            start: Some(Start {
                host: bed.host,
                events: vec![bed.started_event()],
                run: record(Status::Running, Driver::Owner),
            }),
            ..bed.new_run()
        };
        proxy.next(fault);
        assert_eq!(bed.store.accept(run.clone()).await.unwrap(), Acceptance::New { previous: None });
        if fault == Fault::HoldRequest {
            proxy.deliver().await;
        }
        assert_eq!(bed.log_length(run.workflow_id).await, 1);
        bed.commit(first_step(run.workflow_id)).await.unwrap();
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_terminated_backend_loses_no_commit_and_doubles_none(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await
        .unwrap();
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let killer = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let killing = tokio::spawn(async move {
        loop {
            sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()",
            )
            .execute(&killer)
            .await
            .unwrap();
            tokio::time::sleep(Duration::from_millis(17)).await;
        }
    });
    let (mut fence, mut sequence) = (NewRun::FIRST_FENCE, 1);
    while sequence < 60 {
        match bed.commit(step(run, fence, sequence)).await {
            Ok(committed) => {
                fence = committed.fence;
                sequence += 1;
            }
            Err(Error::NotCommitted { fence: raised }) => fence = raised,
            Err(error) => panic!("{error:?}"),
        }
    }
    killing.abort();
    let _ = killing.await;
    // A connection of the pool may still be a dead one.
    while bed.store.ping().await.is_err() {}
    while bed.store.load_run(run).await.is_err() {}
    assert_eq!(bed.store.load_run(run).await.unwrap().unwrap().last_sequence, 60);
}

#[sqlx::test(migrations = "../migrations")]
async fn while_postgres_is_away_commits_wait_and_acceptances_are_unavailable(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let direct = PgPoolOptions::new().connect_with(options.clone()).await.unwrap();
    let bed = Bed::on(Store::from_pool(direct, Patience::default())).await;
    let run = bed.started().await;
    let proxy = Proxy::start(options).await;
    proxy.shut(true);
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(50))
        .connect_lazy_with(proxy.options.clone());
    let client = Duration::from_millis(100);
    let away = Store::from_pool(pool, Patience { answer: MINUTE, client, outage: client });
    let answer = away.accept(bed.new_run()).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");

    let committing = away.commit(bed.host, first_step(run));
    let (committed, ()) = tokio::join!(committing, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(bed.log_length(run).await, 1);
        proxy.shut(false);
    });
    // Nothing was sent before, so nothing had to be settled.
    assert_eq!(committed.unwrap().fence, NewRun::FIRST_FENCE);
    assert_eq!(bed.log_length(run).await, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lost_answer_is_settled_however_long_that_takes(_: PgPoolOptions, options: PgConnectOptions) {
    let proxy = Proxy::start(options).await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_millis(50))
        .connect_with(proxy.options.clone())
        .await
        .unwrap();
    let patience = Patience { answer: MINUTE, client: MINUTE, outage: Duration::from_millis(100) };
    let bed = Bed::on(Store::from_pool(pool, patience)).await;
    let run = bed.started().await;
    bed.commit(first_step(run)).await.unwrap();

    proxy.next(Fault::SwallowAnswer);
    let busy = bed.store.connection().await.unwrap();
    let committing = bed.commit(step(run, NewRun::FIRST_FENCE, 2));
    let (committed, ()) = tokio::join!(committing, async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        drop(busy);
    });
    assert_eq!(committed.unwrap().fence, Fence(2));
    assert_eq!(bed.log_length(run).await, 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn after_an_adoption_the_old_driver_is_not_told_that_it_may_go_on(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let direct = PgPoolOptions::new().connect_with(options.clone()).await.unwrap();
    let direct = Store::from_pool(direct, Patience::default());
    let (bed, proxy) = behind_proxy(options).await;
    for (fault, events) in [(Fault::SwallowAnswer, 2), (Fault::HoldRequest, 1)] {
        let run = bed.started().await;
        proxy.next(fault);
        // Its commit is under way, and the one connection over which it could be settled is busy.
        let busy = bed.store.connection().await.unwrap();
        let committing = bed.commit(first_step(run));
        let (answer, fence) = tokio::join!(committing, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let fence = direct.adopt(bed.host, run, NewRun::FIRST_FENCE).await.unwrap();
            drop(busy);
            fence
        });
        assert!(matches!(answer, Err(Error::NotOwner { current, .. }) if current == fence), "{answer:?}");
        if fault == Fault::HoldRequest {
            proxy.deliver().await;
        }
        assert_eq!(bed.log_length(run).await, events);
        bed.commit(step(run, fence, events)).await.unwrap();
        // The writer's new connection has its statement prepared by now.
    }
}
