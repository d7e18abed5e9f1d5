//! Orders for one product, which all change the same key, while connections to the database are lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aster_tests::ledger;
use aster_tests::orders::order;
use aster_tests::{Database, Host, Options};

const STOCK: i64 = 1_000_000;
const CLIENTS: u64 = 6;
/// How often all connections of the host are ended, and the pause between.
const ENDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// Far longer than the accepted runs take.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn runs_on_one_key_continue_after_all_connections_were_ended_repeatedly() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    host.set_up();
    let client = host.client();
    ledger::seed(client, "PROD-A", STOCK);

    let (enough, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (enough, accepted) = (&enough, &accepted);
            scope.spawn(move || {
                for i in 0.. {
                    let order = order(&format!("HOT-{n}-{i}"));
                    // An order that is refused because there is no database is sent again.
                    while client.post("/api/orders", &order).status != 200 {
                        thread::sleep(Duration::from_millis(5));
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let until = |n: u64| {
            let began = Instant::now();
            while accepted.load(Ordering::Relaxed) < n {
                assert!(began.elapsed() < PATIENCE, "only {accepted:?} orders were accepted");
                thread::sleep(Duration::from_millis(5));
            }
        };
        until(100);
        for _ in 0..ENDS {
            database.query(
                "select pg_terminate_backend(pid)::text from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()",
            );
            thread::sleep(PAUSE);
        }
        until(accepted.load(Ordering::Relaxed) + 100);
        enough.store(true, Ordering::Relaxed);
    });

    let began = Instant::now();
    let counts = loop {
        let counts = client.get("/api/workflows/metrics").expect(200).json();
        if ["READY", "RUNNING", "COMPENSATING"].iter().all(|status| counts[*status] == 0) {
            break counts;
        }
        assert!(began.elapsed() < PATIENCE, "nothing goes on: {counts}");
        thread::sleep(Duration::from_millis(50));
    };
    let completed = counts["COMPLETED"].as_i64().expect("a count is a number");
    let accepted = i64::try_from(accepted.into_inner()).expect("there are few");
    assert_eq!(completed, accepted, "{counts}");
    let left = client.get("/api/components/inventory/keyvalue/stock/PROD-A").expect(200);
    assert_eq!(String::from_utf8_lossy(&left.body), (STOCK - 2 * completed).to_string());
}
