//! Lists of runs: what they hold, in which order, and how they are paged.

use aster_core::event::Cause;

use super::*;

const OTHER: &str = "shop.refund";
const CAUSES: [Option<Cause>; 4] = [None, Some(Cause::Step), Some(Cause::Timeout), Some(Cause::Cancel)];

/// Two definitions with two releases each, and a tenant beside them.
async fn releases(bed: &Bed) -> Vec<(&'static str, ReleaseId)> {
    let (generation, plan) = (bed.store.generation(&tenant()).await.unwrap(), plan(OTHER, None));
    let source =
        NewDefinition { digest: sha256("other"), source: "other", file_name: "refund.aster", plan: &plan };
    bed.store.deploy_definitions(&tenant(), &[source], NOW, generation).await.unwrap();
    let mut releases = Vec::new();
    for (definition, source) in [(DEFINITION, "source"), (OTHER, "other")] {
        for components in [BTreeMap::new(), BTreeMap::from([("payment".into(), sha256("component"))])] {
            let release = Release {
                tenant: tenant(),
                definition: definition.into(),
                definition_digest: sha256(source),
                components,
            };
            releases.push((definition, bed.store.intern_release(&release).await.unwrap()));
        }
    }
    releases
}

/// Runs of every release in every status, with every cause that goes with it, mixed; newest first.
async fn runs(bed: &Bed, rounds: usize) -> Vec<Run> {
    let releases = releases(bed).await;
    let generation = bed.store.generation(&tenant()).await.unwrap();
    let mut kinds = Vec::new();
    for status in Status::ALL {
        for cause in CAUSES {
            if cause.is_none()
                || matches!(status, Status::Failed | Status::Compensating | Status::Compensated)
            {
                kinds.extend(releases.iter().map(|release| (status, cause, *release)));
            }
        }
    }
    let mut accepted = Vec::new();
    for n in 0..rounds * kinds.len() {
        // In no order: the step and the number of kinds have no common factor.
        let (status, cause, (definition, release)) = kinds[n * 29 % kinds.len()];
        let driver = if status.is_over() { Driver::Nobody } else { Driver::Owner };
        let run = NewRun {
            definition: definition.into(),
            release,
            generation,
            start: Some(Start {
                host: bed.host,
                events: vec![bed.started_event()],
                run: RunRecord { cause, ..record(status, driver) },
            }),
            ..bed.new_run()
        };
        bed.store.accept(run.clone()).await.unwrap();
        accepted.push(bed.store.load_run(run.workflow_id).await.unwrap().unwrap());
    }
    bed.store.accept(of_another_tenant(bed).await).await.unwrap();
    accepted.sort_by_key(|run| std::cmp::Reverse(run.workflow_id));
    accepted
}

/// The same definition, which is that tenant's own.
async fn of_another_tenant(bed: &Bed) -> NewRun {
    let tenant: TenantId = "other".parse().unwrap();
    let definition = NewDefinition {
        digest: sha256("source"),
        source: "source",
        file_name: "order.aster",
        plan: &plan(DEFINITION, None),
    };
    let (_, registered) = bed.store.deploy_definitions(&tenant, &[definition], NOW, 0).await.unwrap();
    let release = Release {
        tenant: tenant.clone(),
        definition: DEFINITION.into(),
        definition_digest: sha256("source"),
        components: BTreeMap::new(),
    };
    let release = bed.store.intern_release(&release).await.unwrap();
    NewRun { tenant, release, generation: registered.generation, ..bed.new_run() }
}

#[sqlx::test(migrations = "../migrations")]
async fn pages_of_every_filter_together_are_the_runs_that_meet_it_newest_first(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let runs = runs(&bed, 2).await;
    let statuses = [None].into_iter().chain(Status::ALL.map(Some));
    for (status, cause) in statuses.flat_map(|status| CAUSES.map(|cause| (status, cause))) {
        for definition in [None, Some(DEFINITION), Some(OTHER), Some("no.such")] {
            let expected: Vec<&Run> = runs
                .iter()
                .filter(|run| status.is_none_or(|status| run.status == status))
                .filter(|run| cause.is_none() || run.cause == cause)
                .filter(|run| definition.is_none_or(|definition| run.definition == definition))
                .collect();
            for limit in [1, 7, 1_000] {
                let mut filter =
                    RunFilter { status, cause, definition: definition.map(Into::into), before: None };
                let mut listed = Vec::new();
                loop {
                    let page = bed.store.list_runs(&tenant(), &filter, limit).await.unwrap();
                    filter.before = page.items.last().map(|run| run.workflow_id);
                    let is_last = !page.more;
                    listed.extend(page.items);
                    // One by one only as far as it shows something.
                    if is_last || (limit == 1 && listed.len() == 5) {
                        break;
                    }
                }
                let expected = &expected[..expected.len().min(if limit == 1 { 5 } else { usize::MAX })];
                assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{filter:?}, {limit} at a time");
            }
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn ids_by_status_are_those_of_all_releases_newest_first(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let runs = runs(&bed, 1).await;
    for status in Status::ALL {
        let expected: Vec<WorkflowId> =
            runs.iter().filter(|run| run.status == status).map(|run| run.workflow_id).collect();
        for limit in [3, 1_000] {
            let listed = bed.store.run_ids_by_status(&tenant(), status, limit).await.unwrap();
            assert_eq!(listed, expected[..expected.len().min(limit)], "{status:?}");
        }
    }
}

/// An index that no statement reads is paid for by every run, and one that a statement misses by who waits for a page.
#[sqlx::test(migrations = "../migrations")]
async fn lists_read_the_index_that_is_for_them_however_often_they_are_asked(pool: PgPool) {
    // One connection, whose statements are kept.
    let options = pool.connect_options();
    let one = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with((*options).clone());
    let one = one.await.unwrap();
    sqlx::raw_sql(
        "insert into workflow_run (workflow_id, tenant, definition, release_id, input, status, accepted_at, updated_at, deadline, fence, last_sequence)
        select (lpad(to_hex(n), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid, 'default', 'shop.order', 1, '{}',
            case when n % 1000 = 0 then 'FAILED' else 'COMPLETED' end, now(), now(), now(), 1, 1
        from generate_series(1, 20000) n;
        analyze workflow_run",
    )
    .execute(&one)
    .await
    .unwrap();
    let bed = Bed::new(one.clone()).await;
    let read = async || {
        // What this backend has read is told to others only from time to time, and to itself if it asks.
        sqlx::raw_sql("select pg_stat_force_next_flush()").execute(&one).await.unwrap();
        let (tuples, scans): (i64, i64) = sqlx::query_as(
            "select (seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint, seq_scan from pg_stat_user_tables where relname = 'workflow_run'",
        )
        .fetch_one(&one)
        .await
        .unwrap();
        (tuples, scans)
    };
    let filters = [
        RunFilter::default(),
        RunFilter { status: Some(Status::Failed), ..RunFilter::default() },
        RunFilter { definition: Some(DEFINITION.into()), ..RunFilter::default() },
        RunFilter {
            status: Some(Status::Failed),
            definition: Some(DEFINITION.into()),
            ..RunFilter::default()
        },
        RunFilter { cause: Some(Cause::Cancel), ..RunFilter::default() },
    ];
    for mut filter in filters {
        filter.before = Some(WorkflowId(Uuid::from_u128(10_000 << 80)));
        let before = read().await;
        for _ in 0..10 {
            bed.store.list_runs(&tenant(), &filter, 5).await.unwrap();
        }
        let after = read().await;
        assert_eq!(after.1, before.1, "{filter:?} reads the whole table");
        assert!(after.0 - before.0 <= 1_000, "{filter:?} reads {} runs", (after.0 - before.0) / 10);
    }
}

const MEGABYTES: usize = 3 << 20;

/// Three values of 3 MiB: the third one begins below 8 MiB and ends beyond it.
#[sqlx::test(migrations = "../migrations")]
async fn a_list_ends_early_where_its_values_are_large(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let large = "x".repeat(MEGABYTES);

    for _ in 0..5 {
        let run = NewRun { input: format!("\"{large}\""), ..bed.new_run() };
        bed.store.accept(run).await.unwrap();
    }
    for filter in
        [RunFilter::default(), RunFilter { definition: Some(DEFINITION.into()), ..RunFilter::default() }]
    {
        let first = bed.store.list_runs(&tenant(), &filter, 10).await.unwrap();
        assert_eq!((first.items.len(), first.more), (3, true));
        let before = first.items.last().map(|run| run.workflow_id);
        let second = bed.store.list_runs(&tenant(), &RunFilter { before, ..filter }, 10).await.unwrap();
        assert_eq!((second.items.len(), second.more), (2, false));
    }

    for name in ["a", "b", "c", "d", "e"] {
        bed.store.put_entry(&key(name), large.as_bytes()).await.unwrap();
    }
    let entries = async |after| {
        let listed = bed.store.list_entries(&tenant(), "inventory", "stock", after, 10).await.unwrap();
        let names: Vec<_> = listed.items.iter().map(|entry| entry.key.to_string()).collect();
        (names.concat(), listed.more)
    };
    assert_eq!(entries(None).await, ("abc".to_owned(), true));
    assert_eq!(entries(Some("c")).await, ("de".to_owned(), false));

    let run = bed.started().await;
    for sequence in 1..=4 {
        let event = Event::StepCompleted {
            step: "a_step".into(),
            attempt: 1,
            value: Arc::new(json!(large)),
            cost: Cost::default(),
        };
        let transition = Transition { events: vec![event], ..step(run, NewRun::FIRST_FENCE, sequence) };
        bed.commit(transition).await.unwrap();
    }
    let events = async |from, limit| {
        let listed = bed.store.load_events(run, from, limit).await.unwrap();
        (listed.items.iter().map(|event| event.sequence).collect::<Vec<_>>(), listed.more)
    };
    assert_eq!(events(0, 10).await, (vec![1, 2, 3, 4], true));
    assert_eq!(events(5, 10).await, (vec![5], false));
    assert_eq!(events(0, 2).await, (vec![1, 2], true));
    assert_eq!(events(6, 10).await, (vec![], false));
}
