use super::*;

async fn claimed(store: &Store, host: HostId, run: WorkflowId) -> ClaimedRun {
    let claims = store.claim(host, 10, NOW.plus_millis(1_000_000_000)).await.unwrap();
    let [claimed] = claims.runs[..] else { panic!("{claims:?}") };
    assert_eq!((claims.seen, claimed.workflow_id), (1, run));
    claimed
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_knows_that_its_host_died_until_its_next_commit(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let long = Duration::from_secs(1_000_000);
    let later = bed.store.clock().await.unwrap().plus_millis(3_600_000);
    let second = bed.store.register_host("second", long).await.unwrap();
    assert_eq!(bed.store.fence_off_dead_hosts(later, Duration::ZERO, 10).await.unwrap(), 1);
    let taken = claimed(&bed.store, second, run).await;
    assert!(taken.host_lost);

    // The second leaves before it has committed anything: what the first one lost is still lost.
    assert_eq!(bed.store.retire_host(second, NOW).await.unwrap(), 1);
    let third = bed.store.register_host("third", long).await.unwrap();
    let taken = claimed(&bed.store, third, run).await;
    assert!(taken.host_lost);
    // Who has claimed a run writes its row first.
    let first = Transition { is_quiet: false, ..step(run, taken.fence, 1) };
    bed.store.commit(third, first).await.unwrap();

    assert_eq!(bed.store.retire_host(third, NOW).await.unwrap(), 1);
    let fourth = bed.store.register_host("fourth", long).await.unwrap();
    assert!(!claimed(&bed.store, fourth, run).await.host_lost);
    assert_eq!(bed.store.retire_all_hosts(NOW).await.unwrap(), 1);
    let fifth = bed.store.register_host("fifth", long).await.unwrap();
    assert!(claimed(&bed.store, fifth, run).await.host_lost);
}

#[sqlx::test(migrations = "../migrations")]
async fn neither_a_new_run_nor_one_that_waited_has_lost_a_host(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let ready = bed.new_run();
    bed.store.accept(ready.clone()).await.unwrap();
    let taken = claimed(&bed.store, bed.host, ready.workflow_id).await;
    assert!(!taken.host_lost);
    let run = bed.started().await;
    let waiting = Transition { run: record(Status::Running, Driver::ClaimableAt(NOW)), ..first_step(run) };
    bed.commit(waiting).await.unwrap();
    assert!(!claimed(&bed.store, bed.host, run).await.host_lost);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_that_was_found_dead_did_not_leave_in_order_when_it_says_so_later(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let later = bed.store.clock().await.unwrap().plus_millis(3_600_000);
    assert_eq!(bed.store.fence_off_dead_hosts(later, Duration::ZERO, 0).await.unwrap(), 0);
    assert_eq!(bed.store.retire_host(bed.host, later).await.unwrap(), 1);
    let other = bed.store.register_host("there", MINUTE).await.unwrap();
    assert!(claimed(&bed.store, other, run).await.host_lost);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_that_cannot_be_driven_now_is_handed_back_for_later(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let other = bed.store.register_host("there", MINUTE).await.unwrap();
    let later = NOW.plus_millis(5_000);
    for (host, fence) in [(other, NewRun::FIRST_FENCE), (bed.host, Fence(0))] {
        let answer = bed.store.hand_back(host, run, fence, later).await;
        assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    }
    bed.store.hand_back(bed.host, run, NewRun::FIRST_FENCE, later).await.unwrap();
    let answer = bed.store.hand_back(bed.host, run, NewRun::FIRST_FENCE, later).await;
    assert!(matches!(answer, Err(Error::NotOwner { current: Fence(2), .. })), "{answer:?}");
    let answer = bed.commit(first_step(run)).await;
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");

    assert_eq!(bed.store.claim(other, 10, NOW).await.unwrap(), Claims::default());
    let taken = claimed(&bed.store, other, run).await;
    assert_eq!(taken, ClaimedRun { workflow_id: run, fence: Fence(3), host_lost: false });
    bed.store.commit(other, step(run, taken.fence, 1)).await.unwrap();

    let none = WorkflowId(Uuid::now_v7());
    let answer = bed.store.hand_back(bed.host, none, Fence(1), later).await;
    assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn who_adopts_a_run_is_the_only_one_to_write_it(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let fence = bed.store.adopt(bed.host, run, NewRun::FIRST_FENCE).await.unwrap();
    assert_eq!(bed.store.owned(bed.host).await.unwrap(), [(run, fence)]);
    let answer = bed.commit(first_step(run)).await;
    assert!(matches!(answer, Err(Error::NotOwner { current, .. }) if current == fence), "{answer:?}");
    let answer = bed.store.adopt(bed.host, run, NewRun::FIRST_FENCE).await;
    assert!(matches!(answer, Err(Error::NotOwner { current, .. }) if current == fence), "{answer:?}");
    bed.commit(step(run, fence, 1)).await.unwrap();
    assert_eq!(bed.log_length(run).await, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn runs_that_wait_for_a_host_are_counted_up_to_a_limit(pool: PgPool) {
    let bed = Bed::new(pool).await;
    bed.started().await;
    for at in [NOW, NOW, NOW.plus_millis(1), NOW.plus_millis(100)] {
        bed.store.accept(NewRun { accepted_at: at, ..bed.new_run() }).await.unwrap();
    }
    assert_eq!(bed.store.count_due(NOW, 10).await.unwrap(), 2);
    assert_eq!(bed.store.count_due(NOW.plus_millis(1), 10).await.unwrap(), 3);
    assert_eq!(bed.store.count_due(NOW.plus_millis(100), 3).await.unwrap(), 3);
    bed.store.claim(bed.host, 10, NOW).await.unwrap();
    assert_eq!(bed.store.count_due(NOW, 10).await.unwrap(), 0);
}
