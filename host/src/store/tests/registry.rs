use aster_core::wit::Exports;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::*;
use crate::store::components::{change_registry, raise_generation};

fn upload<'a>(name: &'a str, text: &'a str, exports: &'a Exports, activate_at: Option<i64>) -> Upload<'a> {
    Upload {
        name,
        digest: sha256(text),
        bytes: text.as_bytes(),
        exports,
        wit: "package a:b;",
        uploaded_at: NOW,
        activate_at,
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_bytes_twice_are_one_version(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let exports = Exports::default();
    let staged = upload("inventory", "v1", &exports, None);
    let first = bed.store.put_component_version(&tenant(), staged).await.unwrap();
    assert_eq!(first, Registered { is_new: true, generation: bed.generation });
    let second = bed.store.put_component_version(&tenant(), staged).await.unwrap();
    assert_eq!(second, Registered { is_new: false, generation: bed.generation });
    let component = bed.store.get_component(&tenant(), "inventory").await.unwrap().unwrap();
    assert_eq!((component.active, component.versions.len()), (None, 1));
    assert_eq!(component.versions[0].size_bytes, 2);
    assert_eq!(bed.store.load_component_bytes(sha256("v1")).await.unwrap(), Some(b"v1".to_vec()));

    let active = Upload { activate_at: Some(bed.generation), ..staged };
    let activated = bed.store.put_component_version(&tenant(), active).await.unwrap();
    assert_eq!(activated.generation, bed.generation + 1);
    let answer = bed.store.put_component_version(&tenant(), active).await;
    assert!(matches!(answer, Err(Error::RegistryMoved { .. })), "{answer:?}");
    // What is active already moves nothing.
    let again =
        bed.store.activate_component(&tenant(), "inventory", sha256("v1"), activated.generation).await;
    assert_eq!(again.unwrap(), Registered { is_new: false, generation: activated.generation });
    let answer =
        bed.store.activate_component(&tenant(), "inventory", sha256("v2"), activated.generation).await;
    assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    let snapshot = bed.store.registry_snapshot(&tenant()).await.unwrap();
    assert_eq!(snapshot.generation, activated.generation);
    assert_eq!(snapshot.components["inventory"].digest, sha256("v1"));
    assert_eq!(snapshot.definitions[DEFINITION].digest, sha256("source"));
    assert_eq!(bed.store.list_components(&"other".parse().unwrap(), None, 10).await.unwrap().items, []);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_version_that_is_active_or_pinned_is_not_deleted(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let exports = Exports::default();
    let mut generation = bed.generation;
    for text in ["v1", "v2"] {
        let upload = upload("inventory", text, &exports, Some(generation));
        generation = bed.store.put_component_version(&tenant(), upload).await.unwrap().generation;
    }
    let release = Release {
        tenant: tenant(),
        definition: DEFINITION.into(),
        definition_digest: sha256("source"),
        components: [("inventory".to_owned(), sha256("v1"))].into(),
    };
    let pinning = bed.store.intern_release(&release).await.unwrap();
    assert_eq!(bed.store.intern_release(&release).await.unwrap(), pinning);
    assert_ne!(pinning, bed.release);
    assert_eq!(bed.store.load_release(pinning).await.unwrap(), Some(release));

    let delete = |text| bed.store.delete_component_version_of_tests(text);
    let answer = delete("v2").await;
    assert!(matches!(answer, Err(Error::InUse { .. })), "{answer:?}");

    for (status, may_go) in [
        (Status::Ready, false),
        (Status::Running, false),
        (Status::Compensating, false),
        (Status::CompensationFailed, false),
        (Status::Failed, true),
    ] {
        let run = NewRun {
            release: pinning,
            generation,
            start: Some(Start {
                host: bed.host,
                events: vec![bed.started_event()],
                run: record(status, if status.is_over() { Driver::Nobody } else { Driver::Owner }),
            }),
            ..bed.new_run()
        };
        bed.store.accept(run.clone()).await.unwrap();
        let answer = delete("v1").await;
        if may_go {
            assert_eq!(answer.unwrap().generation, generation + 1);
        } else {
            assert!(matches!(&answer, Err(Error::InUse { .. })), "{status}: {answer:?}");
            // It ends, so that the next one alone decides.
            sqlx::query("update workflow_run set status = 'COMPLETED', owner = null where workflow_id = $1")
                .bind(run.workflow_id.0)
                .execute(&bed.store.connections.pool)
                .await
                .unwrap();
        }
    }
    assert_eq!(bed.store.load_component_bytes(sha256("v1")).await.unwrap(), None);
    assert!(matches!(delete("v1").await, Err(Error::NotFound { .. })));
}

impl Store {
    async fn delete_component_version_of_tests(&self, text: &str) -> Result<Registered, Error> {
        self.delete_component_version(&tenant(), "inventory", sha256(text)).await
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn bytes_stay_while_another_name_or_tenant_has_them(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let exports = Exports::default();
    let other: TenantId = "other".parse().unwrap();
    for tenant in [&tenant(), &other] {
        bed.store.put_component_version(tenant, upload("inventory", "v1", &exports, None)).await.unwrap();
    }
    bed.store.delete_component_version_of_tests("v1").await.unwrap();
    assert_eq!(bed.store.get_component(&tenant(), "inventory").await.unwrap(), None);
    assert!(bed.store.load_component_bytes(sha256("v1")).await.unwrap().is_some());
    bed.store.delete_component_version(&other, "inventory", sha256("v1")).await.unwrap();
    assert_eq!(bed.store.load_component_bytes(sha256("v1")).await.unwrap(), None);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deployment_is_whole_or_nothing_and_paths_are_unique(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let definition = |source: &'static str, plan| NewDefinition {
        digest: sha256(source),
        source,
        file_name: "f.aster",
        plan,
    };
    let (a, b) = (plan("shop.a", Some("/api/a")), plan("shop.b", Some("/api/b")));
    let deploy = |definitions: Vec<NewDefinition<'static>>, generation| {
        let store = bed.store.clone();
        async move { store.deploy_definitions(&tenant(), &definitions, NOW, generation).await }
    };
    let leak = |plan: &Plan| -> &'static Plan { Box::leak(Box::new(plan.clone())) };
    let both = vec![definition("one", leak(&a)), definition("one", leak(&b))];
    let (deployed, first) = deploy(both.clone(), bed.generation).await.unwrap();
    assert!(deployed.iter().all(|definition| definition.is_new));
    let (deployed, again) = deploy(both, first.generation).await.unwrap();
    assert!(deployed.iter().all(|definition| !definition.is_new));
    assert_eq!(again, Registered { is_new: false, generation: first.generation });

    // `shop.c` wants a path that is taken: the new version of `shop.a` isn't deployed either.
    let c = plan("shop.c", Some("/api/b"));
    let clash = vec![definition("two", leak(&a)), definition("two", leak(&c))];
    let answer = deploy(clash, first.generation).await;
    assert!(
        matches!(&answer, Err(Error::PathTaken { path, definition }) if path == "/api/b" && definition == "shop.b"),
        "{answer:?}"
    );
    let found = bed.store.find_definitions(&tenant(), "a").await.unwrap();
    assert_eq!((found.len(), &found[0].name[..], found[0].versions.len()), (1, "shop.a", 1));

    // Two definitions may swap their paths.
    let swapped = vec![
        definition("three", leak(&plan("shop.a", Some("/api/b")))),
        definition("three", leak(&plan("shop.b", Some("/api/a")))),
    ];
    deploy(swapped, first.generation).await.unwrap();
    let answers = bed.store.find_trigger(&tenant(), "/api/a").await.unwrap();
    assert_eq!(answers.as_deref(), Some("shop.b"));
    let old = bed.store.load_definition_version(&tenant(), "shop.a", sha256("one")).await.unwrap();
    assert_eq!(old.unwrap().plan, a);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_definition_is_found_by_its_full_name_or_its_functions(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let plans = ["shop.order", "depot.order", "depot.reorder", "order"].map(|name| plan(name, None));
    let definitions =
        plans.each_ref().map(|plan| NewDefinition { digest: sha256("s"), source: "s", file_name: "f", plan });
    bed.store.deploy_definitions(&tenant(), &definitions[1..3], NOW, bed.generation).await.unwrap();
    let find = async |name: &str| {
        let found = bed.store.find_definitions(&tenant(), name).await.unwrap();
        found.into_iter().map(|definition| definition.name).collect::<Vec<_>>()
    };
    assert_eq!(find("order").await, ["depot.order", "shop.order"]);
    assert_eq!(find("shop.order").await, ["shop.order"]);
    assert_eq!(find("reorder").await, ["depot.reorder"]);
    assert_eq!(find("r_order").await, [""; 0]);
    let generation = bed.store.generation(&tenant()).await.unwrap();
    bed.store.deploy_definitions(&tenant(), &definitions[3..], NOW, generation).await.unwrap();
    assert_eq!(find("order").await, ["order"]);
    assert_eq!(bed.store.list_definitions(&tenant(), None, 10).await.unwrap().items.len(), 4);
}

#[sqlx::test(migrations = "../migrations")]
async fn acceptance_waits_for_an_activation_and_then_sees_it(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
    let bed = Bed::new(pool).await;
    let mut connection = bed.store.connections.pool.acquire().await.unwrap();
    let mut change = change_registry(&mut connection, &tenant(), None).await.unwrap();
    let run = bed.new_run();
    let accepting = bed.store.accept(run.clone());
    let (answer, ()) = tokio::join!(accepting, async {
        let waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database()))";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *change).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        raise_generation(&mut change, &tenant()).await.unwrap();
        change.commit().await.unwrap();
    });
    assert!(matches!(answer, Err(Error::RegistryMoved { .. })), "{answer:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn bytes_come_before_the_registry_is_locked_and_again_if_they_were_deleted_meanwhile(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
    let bed = Bed::new(pool.clone()).await;
    let exports = Exports::default();
    let mut connection = pool.acquire().await.unwrap();
    let change = change_registry(&mut connection, &super::tenant(), None).await.unwrap();
    let tenant = tenant();
    let uploading = bed.store.put_component_version(&tenant, upload("inventory", "v1", &exports, None));
    let (uploaded, ()) = tokio::join!(uploading, async {
        while bed.store.load_component_bytes(sha256("v1")).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sqlx::query("delete from component_bytes").execute(&pool).await.unwrap();
        change.rollback().await.unwrap();
    });
    assert!(uploaded.unwrap().is_new);
    assert_eq!(bed.store.load_component_bytes(sha256("v1")).await.unwrap(), Some(b"v1".to_vec()));
}
