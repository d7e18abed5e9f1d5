use std::collections::HashSet;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::*;

#[sqlx::test(migrations = "../migrations")]
async fn two_hosts_that_claim_at_once_never_get_one_run(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
    let bed = Bed::new(pool).await;
    let other = bed.store.register_host("there", MINUTE).await.unwrap();
    let mut ready = HashSet::new();
    for _ in 0..60 {
        let run = bed.new_run();
        bed.store.accept(run.clone()).await.unwrap();
        ready.insert(run.workflow_id);
    }
    let mut claimed = HashSet::new();
    while claimed.len() < ready.len() {
        let (ours, theirs) =
            tokio::join!(bed.store.claim(bed.host, 10, NOW), bed.store.claim(other, 10, NOW),);
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        // Whoever got nothing because the other was quicker knows that there may be more.
        let left = ready.len() - claimed.len();
        assert!(ours.seen.max(theirs.seen) >= left.min(10), "{ours:?}, {theirs:?}");
        for (run, fence) in taken(ours).into_iter().chain(taken(theirs)) {
            assert_eq!(fence, Fence(1));
            assert!(claimed.insert(run), "{run} was claimed twice");
        }
    }
    assert_eq!(claimed, ready);
    assert_eq!(bed.store.claim(bed.host, 10, NOW).await.unwrap(), Claims::default());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_dead_hosts_runs_go_to_another_and_it_cannot_write_them_any_more(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let other = bed.store.register_host("there", Duration::from_secs(3600)).await.unwrap();
    let lease_end = bed.store.clock().await.unwrap().plus_millis(60_000);
    let margin = Duration::from_secs(10);

    assert_eq!(bed.store.fence_off_dead_hosts(lease_end.plus_millis(5_000), margin, 10).await.unwrap(), 0);
    bed.commit(first_step(run)).await.unwrap();

    let later = lease_end.plus_millis(20_000);
    assert_eq!(bed.store.fence_off_dead_hosts(later, margin, 10).await.unwrap(), 1);
    let answer = bed.commit(step(run, NewRun::FIRST_FENCE, 2)).await;
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    let answer = bed.store.renew_lease(bed.host, MINUTE).await;
    assert!(matches!(answer, Err(Error::HostRetired)), "{answer:?}");
    // It sees what is due, and gets none of it.
    assert_eq!(bed.store.claim(bed.host, 10, later).await.unwrap(), Claims { seen: 1, runs: vec![] });
    let claimed = taken(bed.store.claim(other, 10, later).await.unwrap());
    assert_eq!(claimed, [(run, Fence(3))]);
    assert_eq!(bed.store.owned(other).await.unwrap(), claimed);
    bed.store.commit(other, step(run, Fence(3), 2)).await.unwrap();
    assert_eq!(bed.log_length(run).await, 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_that_leaves_hands_its_runs_back_at_once(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let before = bed.store.clock().await.unwrap();
    assert!(bed.store.renew_lease(bed.host, MINUTE).await.unwrap() >= before);
    assert_eq!(bed.store.retire_host(bed.host, NOW).await.unwrap(), 1);
    let next = bed.store.register_host("next", MINUTE).await.unwrap();
    assert_eq!(taken(bed.store.claim(next, 10, NOW).await.unwrap()), [(run, Fence(3))]);
    assert_eq!(bed.store.retire_all_hosts(NOW).await.unwrap(), 1);
    assert_eq!(bed.store.owned(next).await.unwrap(), []);
}
