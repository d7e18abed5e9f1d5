use std::pin::Pin;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::{Instant, timeout};

use super::proxy::Proxy;
use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// A statement of the store, and what it ended with.
type Asked<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Until the connection is back in the pool, which pings it before that.
async fn idle(store: &Store) {
    while store.connections.pool.num_idle() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_connection_that_falls_silent_is_given_up_in_time_and_replaced(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let proxy = Proxy::start(options).await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with(proxy.options.clone())
        .await
        .unwrap();
    let patience = Patience { answer: SHORT, client: SHORT, outage: Duration::ZERO };
    let bed = Bed::on(Store::from_pool(pool, patience)).await;
    let run = bed.started().await;
    let (store, host, release) = (&bed.store, bed.host, bed.release);
    let (tenant, entry, new, filter) = (tenant(), key("a"), bed.new_run(), RunFilter::default());

    let ask = |what: &str| -> Asked<'_> {
        match what {
            "ping" => Box::pin(store.ping()),
            "clock" => Box::pin(async { store.clock().await.map(drop) }),
            "accept" => Box::pin(async { store.accept(new.clone()).await.map(drop) }),
            "claim" => Box::pin(async { store.claim(host, 1, Timestamp::from_millis(0)).await.map(drop) }),
            "owned" => Box::pin(async { store.owned(host).await.map(drop) }),
            "load_run" => Box::pin(async { store.load_run(run).await.map(drop) }),
            "load_events" => Box::pin(async { store.load_events(run, 0, 1).await.map(drop) }),
            "list_runs" => Box::pin(async { store.list_runs(&tenant, &filter, 1).await.map(drop) }),
            "count" => Box::pin(async { store.count_by_status(None).await.map(drop) }),
            "load_entry" => Box::pin(async { store.load_entry(&entry).await.map(drop) }),
            "list_keys" => Box::pin(async { store.list_keys(&tenant, "c", "b", None, 1).await.map(drop) }),
            "put_entry" => Box::pin(async { store.put_entry(&entry, b"1").await.map(drop) }),
            "register" => Box::pin(async { store.register_host("h", MINUTE).await.map(drop) }),
            "renew" => Box::pin(async { store.renew_lease(host, MINUTE).await.map(drop) }),
            "fence off" => {
                Box::pin(async { store.fence_off_dead_hosts(NOW, 1_000_000 * MINUTE, 1).await.map(drop) })
            }
            "generation" => Box::pin(async { store.generation(&tenant).await.map(drop) }),
            "snapshot" => Box::pin(async { store.registry_snapshot(&tenant).await.map(drop) }),
            "release" => Box::pin(async { store.load_release(release).await.map(drop) }),
            "components" => Box::pin(async { store.list_components(&tenant, None, 1).await.map(drop) }),
            "definitions" => Box::pin(async { store.list_definitions(&tenant, None, 1).await.map(drop) }),
            "delete" => Box::pin(async {
                match store.delete_component_version(&tenant, "c", sha256("c")).await {
                    Err(Error::NotFound { .. }) => Ok(()),
                    other => other.map(drop),
                }
            }),
            other => panic!("{other}"),
        }
    };
    for what in [
        "ping",
        "clock",
        "accept",
        "claim",
        "owned",
        "load_run",
        "load_events",
        "list_runs",
        "count",
        "load_entry",
        "list_keys",
        "put_entry",
        "register",
        "renew",
        "fence off",
        "generation",
        "snapshot",
        "release",
        "components",
        "definitions",
        "delete",
    ] {
        // So that there is a connection to fall silent.
        ask(what).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        idle(store).await;
        proxy.silence();
        let asked_at = Instant::now();
        let answer = ask(what).await;
        assert!(matches!(answer, Err(Error::Unavailable { .. })), "{what}: {answer:?}");
        assert!(asked_at.elapsed() < 10 * SHORT, "{what} took {:?}", asked_at.elapsed());
        ask(what).await.unwrap_or_else(|error| panic!("{what} on a new connection: {error}"));
        // The lease has its own connection, and the pool's fell silent too: it is given up, and there is a new one.
        let _ = store.ping().await;
        store.ping().await.unwrap();
    }

    // A commit is settled over a new connection.
    bed.commit(first_step(run)).await.unwrap();
    store.ping().await.unwrap();
    idle(store).await;
    proxy.silence();
    match bed.commit(step(run, NewRun::FIRST_FENCE, 2)).await {
        Err(Error::NotCommitted { fence: Fence(2) }) => {}
        other => panic!("{other:?}"),
    }
    bed.commit(step(run, Fence(2), 2)).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_question_that_nobody_waits_for_any_more_leaves_no_connection_behind(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let store = Store::from_pool(pool, Patience { answer: MINUTE, client: MINUTE, outage: MINUTE });
    let mut connection = store.connection().await.unwrap();
    let sleeping = connection.ask(|connection| sqlx::query("select pg_sleep(60)").execute(connection));
    assert!(timeout(Duration::from_millis(50), sleeping).await.is_err());
    drop(connection);
    // The pool would wait for the answer first, for a minute.
    let mut connection = timeout(Duration::from_secs(10), store.connection()).await.unwrap().unwrap();
    let others = connection.ask(|connection| {
        sqlx::query_scalar::<_, bool>(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and query like '%pg_sleep%'",
        )
        .fetch_all(connection)
    });
    assert_eq!(others.await.unwrap(), [true]);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_lease_and_commits_wait_for_no_other_question(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(50))
        .connect_with(options)
        .await
        .unwrap();
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let busy = bed.store.connection().await.unwrap();
    assert!(bed.store.ping().await.is_err());
    bed.store.renew_lease(bed.host, MINUTE).await.unwrap();
    bed.commit(first_step(run)).await.unwrap();
    drop(busy);

    // A connection of the lease that broke while it lay idle costs nothing.
    bed.store
        .connection()
        .await
        .unwrap()
        .ask(|connection| {
            sqlx::query(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()",
            )
            .execute(connection)
        })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    bed.store.renew_lease(bed.host, MINUTE).await.unwrap();
    assert_eq!(bed.commit(step(run, NewRun::FIRST_FENCE, 2)).await.unwrap().fence, NewRun::FIRST_FENCE);
}

#[sqlx::test(migrations = "../migrations")]
async fn postgres_is_told_when_to_give_up_a_host_unless_the_url_says_otherwise(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let shown = async |options: PgConnectOptions| {
        let store = Store::connect(Options::new(options)).await.unwrap();
        let asked = store.connection().await;
        asked
            .unwrap()
            .ask(|connection| {
                sqlx::query_scalar::<_, String>("show idle_in_transaction_session_timeout")
                    .fetch_one(connection)
            })
            .await
            .unwrap()
    };
    assert_eq!(shown(options.clone()).await, "30s");
    assert_eq!(shown(options.options([("idle_in_transaction_session_timeout", "7s")])).await, "7s");
}
