//! The lease while nothing else goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aster_runner::{Limits, Options, Runner};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::*;
use crate::guests::Sandboxed;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::store::Patience;

const LEASE: Duration = Duration::from_secs(1);

fn options() -> Options {
    Options {
        name: "busy".into(),
        lease: LEASE,
        takeover_margin: LEASE / 5,
        max_active_runs: 1,
        max_ready_runs: 1,
        waiter_ttl: Duration::from_secs(60),
        waiter_sweep: Duration::from_secs(60),
        limits: Limits {
            workflow_timeout: Duration::from_secs(3_600),
            step_timeout: Duration::from_secs(30),
            step_fuel: 1_000_000_000,
            step_memory_bytes: 64 << 20,
            value_bytes: 1 << 20,
        },
    }
}

/// How often another host finds the leases of all hosts in force, and how often it doesn't, for so long.
fn watch(options: &PgConnectOptions, time: Duration) -> (u32, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = PgConnection::connect_with(options).await.expect("a connection");
        let (mut alive, mut dead) = (0, 0);
        let began = Instant::now();
        while began.elapsed() < time {
            let ended =
                "select count(*) from host where lease_ends_at < clock_timestamp() or retired_at is not null";
            let ended: i64 = sqlx::query_scalar(ended).fetch_one(&mut connection).await.expect("a count");
            if ended == 0 {
                alive += 1
            } else {
                dead += 1
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (alive, dead)
    })
}

#[sqlx::test(migrations = "../migrations")]
async fn the_lease_is_renewed_while_all_other_threads_are_busy(_: PgPoolOptions, database: PgConnectOptions) {
    let pool = PgPoolOptions::new().connect_with(database.clone()).await.expect("a pool");
    let store = Store::from_pool(pool, Patience::default());
    let sandbox = Sandbox::new(crate::sandbox::Options { max_instances: 8, ..Default::default() });
    let sandbox = sandbox.expect("a sandbox");
    let registry = Registry::new(store.clone(), sandbox.clone());
    let guests = Sandboxed { registry, sandbox };
    let runner = Runner::start(options(), Arc::new(store), Arc::new(guests)).await.expect("a runner");
    let host = runner.host();

    let over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let spin = || {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * processors {
            scope.spawn(spin);
        }
        // The test's runtime has one thread, which waits here.
        let seen = scope.spawn(|| watch(&database, 3 * LEASE)).join();
        over.store(true, Ordering::Relaxed);
        seen.expect("no panic")
    });
    assert!(seen.0 > 0 && seen.1 == 0, "in force {} times, ended {} times", seen.0, seen.1);
    assert_eq!(runner.host(), host, "the host lost its lease");
    runner.shut_down(Duration::from_secs(5)).await;
    let retired = sqlx::query_scalar::<_, i64>("select count(*) from host where retired_at is not null");
    let mut connection = PgConnection::connect_with(&database).await.expect("a connection");
    assert_eq!(retired.fetch_one(&mut connection).await.expect("a count"), 1, "it left in order");
}
