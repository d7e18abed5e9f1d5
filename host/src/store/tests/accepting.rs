use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::*;

fn keyed(run: NewRun, input: u8) -> NewRun {
    NewRun { key: Some("o-17".into()), input_digest: [input; 32], ..run }
}

#[sqlx::test(migrations = "../migrations")]
async fn ten_clients_of_two_hosts_with_one_key_get_one_run(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = |max| PgPoolOptions::new().max_connections(max).connect_with(options.clone());
    let (here, there) =
        tokio::join!(async { Bed::new(pool(10).await.unwrap()).await }, async { pool(10).await.unwrap() });
    let there = Store::from_pool(there, Patience::default());
    let runs: Vec<NewRun> = (0..10).map(|_| keyed(here.new_run(), 1)).collect();
    let answers = join_all(runs.iter().enumerate().map(|(i, run)| {
        let store = if i % 2 == 0 { &here.store } else { &there };
        store.accept(run.clone())
    }))
    .await;
    let mut named = Vec::new();
    let mut new = 0;
    for (run, answer) in runs.iter().zip(answers) {
        match answer.unwrap() {
            Acceptance::New { previous: None } => {
                new += 1;
                named.push(run.workflow_id);
            }
            Acceptance::Existing { workflow_id, status: Status::Ready, accepted_at: NOW, previous: None } => {
                named.push(workflow_id);
            }
            other => panic!("{other:?}"),
        }
    }
    named.dedup();
    assert_eq!((new, named.len()), (1, 1));
    let listed = here.store.list_runs(&tenant(), &RunFilter::default(), 100).await.unwrap().items;
    assert_eq!(listed.iter().map(|run| run.workflow_id).collect::<Vec<_>>(), named);
    let by_key = here.store.run_by_key(&tenant(), DEFINITION, "o-17").await.unwrap().unwrap();
    assert_eq!(by_key, listed[0]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_is_taken_over_only_from_a_run_that_failed_cleanly(pool: PgPool) {
    let bed = Bed::new(pool).await;
    for status in Status::ALL {
        let name = format!("key of {status}");
        let first = NewRun {
            key: Some(name.clone()),
            start: Some(Start {
                host: bed.host,
                events: vec![bed.started_event()],
                run: record(status, if status.is_over() { Driver::Nobody } else { Driver::Owner }),
            }),
            ..bed.new_run()
        };
        assert_eq!(bed.store.accept(first.clone()).await.unwrap(), Acceptance::New { previous: None });

        let same = NewRun { key: Some(name.clone()), ..bed.new_run() };
        let workflow_id = first.workflow_id;
        let existing = Acceptance::Existing { workflow_id, status, accepted_at: NOW, previous: None };
        assert_eq!(bed.store.accept(same.clone()).await.unwrap(), existing);

        let other = NewRun { key: Some(name.clone()), input_digest: [8; 32], ..bed.new_run() };
        let answer = bed.store.accept(other.clone()).await.unwrap();
        if matches!(status, Status::Failed | Status::Compensated) {
            assert_eq!(answer, Acceptance::New { previous: Some(first.workflow_id) });
            let newest = bed.store.run_by_key(&tenant(), DEFINITION, &name).await.unwrap().unwrap();
            assert_eq!((newest.workflow_id, newest.previous), (other.workflow_id, Some(first.workflow_id)));
        } else {
            assert_eq!(answer, Acceptance::KeyReused { workflow_id: first.workflow_id, status });
            assert_eq!(bed.store.load_run(other.workflow_id).await.unwrap(), None);
        }
    }
    let counts = bed.store.count_by_status(Some(&tenant())).await.unwrap();
    assert_eq!(counts[0], (Status::Ready, 3));
    assert_eq!(counts.iter().map(|(_, n)| n).sum::<u64>(), 9);
    let failed = bed.store.run_ids_by_status(&tenant(), Status::Failed, 10).await.unwrap();
    assert_eq!(failed.len(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn many_takeovers_at_once_give_one_run(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().max_connections(10).connect_with(options).await.unwrap();
    let bed = Bed::new(pool).await;
    let failed = NewRun {
        start: Some(Start {
            host: bed.host,
            events: vec![bed.started_event()],
            run: record(Status::Failed, Driver::Nobody),
        }),
        ..keyed(bed.new_run(), 1)
    };
    bed.store.accept(failed.clone()).await.unwrap();
    let runs: Vec<NewRun> = (0..10).map(|_| keyed(bed.new_run(), 2)).collect();
    let answers = join_all(runs.iter().map(|run| bed.store.accept(run.clone()))).await;
    let new = Acceptance::New { previous: Some(failed.workflow_id) };
    assert_eq!(answers.iter().filter(|answer| answer.as_ref().unwrap() == &new).count(), 1, "{answers:?}");
    let winner = bed.store.run_by_key(&tenant(), DEFINITION, "o-17").await.unwrap().unwrap();
    let existing = Acceptance::Existing {
        workflow_id: winner.workflow_id,
        status: winner.status,
        accepted_at: NOW,
        previous: Some(failed.workflow_id),
    };
    assert_eq!(
        answers.iter().filter(|answer| answer.as_ref().unwrap() == &existing).count(),
        9,
        "{answers:?}"
    );
    let known = bed.store.known(&tenant(), DEFINITION, "o-17", &[2; 32]).await.unwrap();
    assert_eq!(known, Some(existing));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_moved_registry_is_noticed_and_uses_up_no_key(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let stale = NewRun { generation: bed.generation - 1, ..keyed(bed.new_run(), 1) };
    let answer = bed.store.accept(stale.clone()).await;
    assert!(
        matches!(answer, Err(Error::RegistryMoved { current }) if current == bed.generation),
        "{answer:?}"
    );
    assert_eq!(bed.store.run_by_key(&tenant(), DEFINITION, "o-17").await.unwrap(), None);
    let again = keyed(bed.new_run(), 2);
    assert_eq!(bed.store.accept(again.clone()).await.unwrap(), Acceptance::New { previous: None });
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_acceptance_again_is_the_same_run_also_after_the_registry_moved(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let runs = [bed.new_run(), keyed(bed.new_run(), 1)];
    for run in &runs {
        assert_eq!(bed.store.accept(run.clone()).await.unwrap(), Acceptance::New { previous: None });
    }
    let exports = aster_core::wit::Exports::default();
    let upload = Upload {
        name: "inventory",
        digest: sha256("v1"),
        bytes: b"v1",
        exports: &exports,
        wit: "",
        uploaded_at: NOW,
        activate_at: Some(bed.generation),
    };
    let moved = bed.store.put_component_version(&tenant(), upload).await.unwrap();
    for generation in [bed.generation, moved.generation] {
        for run in &runs {
            let again = NewRun { generation, ..run.clone() };
            assert_eq!(bed.store.accept(again.clone()).await.unwrap(), Acceptance::New { previous: None });
        }
    }
    assert_eq!(bed.store.list_runs(&tenant(), &RunFilter::default(), 10).await.unwrap().items.len(), 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn keys_and_inputs_that_cannot_be_kept_are_refused(pool: PgPool) {
    let bed = Bed::new(pool).await;
    for name in [String::new(), "a\0".into(), "x".repeat(513)] {
        let run = NewRun { key: Some(name), ..bed.new_run() };
        let answer = bed.store.accept(run.clone()).await;
        assert!(matches!(answer, Err(Error::Refused { .. })), "{answer:?}");
    }
    let run = NewRun { input: "{".into(), ..bed.new_run() };
    let answer = bed.store.accept(run.clone()).await;
    assert!(matches!(answer, Err(Error::Refused { .. })), "{answer:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn lists_are_paged_newest_first_and_filtered(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bed.started().await);
    }
    ids.reverse();
    bed.commit(ending(ids[1], NewRun::FIRST_FENCE, 1, Status::Completed)).await.unwrap();
    let list = |filter: RunFilter, limit| {
        let bed = &bed;
        async move {
            let runs = bed.store.list_runs(&tenant(), &filter, limit).await.unwrap().items;
            runs.into_iter().map(|run| run.workflow_id).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(RunFilter::default(), 2).await, ids[..2]);
    assert_eq!(list(RunFilter { before: Some(ids[1]), ..Default::default() }, 10).await, ids[2..]);
    assert_eq!(
        list(RunFilter { status: Some(Status::Completed), ..Default::default() }, 10).await,
        ids[1..2]
    );
    assert_eq!(list(RunFilter { definition: Some("no.such".into()), ..Default::default() }, 10).await, []);
}

#[sqlx::test(migrations = "../migrations")]
async fn runs_are_counted_for_one_tenant_and_for_all(pool: PgPool) {
    let bed = Bed::new(pool).await;
    bed.started().await;
    let other = NewRun { tenant: "other".parse().unwrap(), generation: 0, ..bed.new_run() };
    bed.store.accept(other.clone()).await.unwrap();
    let count = async |tenant: Option<&TenantId>| {
        let counts = bed.store.count_by_status(tenant).await.unwrap();
        assert_eq!(counts.map(|(status, _)| status), Status::ALL);
        counts.map(|(_, n)| n)
    };
    assert_eq!(count(Some(&tenant())).await, [0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(count(Some(&other.tenant)).await, [1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(count(None).await, [1, 1, 0, 0, 0, 0, 0]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_value_that_is_nested_too_deep_to_be_read_spoils_no_list(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let run = NewRun { input: deep.clone(), ..bed.new_run() };
    bed.store.accept(run.clone()).await.unwrap();
    let other = bed.started().await;
    let listed = bed.store.list_runs(&tenant(), &RunFilter::default(), 10).await.unwrap().items;
    assert_eq!(listed.iter().map(|run| run.workflow_id).collect::<Vec<_>>(), [other, run.workflow_id]);
    assert_eq!(listed[1].input.as_str(), deep);
    assert!(listed[1].input.parse::<Value>().is_err());

    sqlx::query("insert into workflow_events values ($1, 1, 'STEP_COMPLETED', $2::json, now())")
        .bind(run.workflow_id.0)
        .bind(&deep)
        .execute(&pool)
        .await
        .unwrap();
    let events = bed.store.load_events(run.workflow_id, 0, 10).await.unwrap().items;
    assert_eq!(events[0].payload.as_str(), deep);
    assert!(matches!(events[0].event(), Err(Error::Corrupt { .. })));
}

#[sqlx::test(migrations = "../migrations")]
async fn what_a_key_is_answered_is_told_without_a_new_run(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = NewRun { key: Some("o-1".into()), ..bed.new_run() };
    let known = async |key: &str, digest: [u8; 32]| {
        bed.store.known(&tenant(), DEFINITION, key, &digest).await.unwrap()
    };
    assert_eq!(known("o-1", [7; 32]).await, None);
    bed.store.accept(run.clone()).await.unwrap();
    let again = NewRun { workflow_id: WorkflowId(Uuid::now_v7()), ..run.clone() };
    assert_eq!(known("o-1", [7; 32]).await, Some(bed.store.accept(again.clone()).await.unwrap()));
    let other = NewRun { input_digest: [8; 32], ..again.clone() };
    assert_eq!(known("o-1", [8; 32]).await, Some(bed.store.accept(other.clone()).await.unwrap()));
    assert_eq!(known("o-2", [7; 32]).await, None);

    let claimed = taken(bed.store.claim(bed.host, 10, NOW).await.unwrap());
    bed.commit(ending(run.workflow_id, claimed[0].1, 0, Status::Failed)).await.unwrap();
    assert_eq!(known("o-1", [7; 32]).await, Some(bed.store.accept(again.clone()).await.unwrap()));
    assert_eq!(known("o-1", [8; 32]).await, None);
    assert_eq!(
        bed.store.accept(other.clone()).await.unwrap(),
        Acceptance::New { previous: Some(run.workflow_id) }
    );
}
