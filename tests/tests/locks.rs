//! Another session of the database holds locks. Clients are answered in time, and nothing is lost or done twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::order;
use aster_tests::{Answer, Client, Database, Host, Options, Session};
use serde_json::{Value, json};

/// The time limit for a client's call, whoever holds which lock.
const IN_TIME: Duration = Duration::from_secs(5);

/// The time for everything to continue once the lock is gone.
const RECOVERY: Duration = Duration::from_secs(20);

const SLOW: &str = r#"
This module is locks.asking.

To askPartner with millis: Json, produce Json with IO. It performs io with SlowPartner:

  workflow:

    step ask:
      Return SlowPartner.sleep(millis).

    timeout: 120 seconds.
  .
"#;

struct Bed {
    database: Database,
    host: Host,
    orders: AtomicU32,
}

impl Bed {
    fn new() -> Self {
        let database = Database::create();
        let host = Host::start(&Options::database(&database.url()));
        host.set_up();
        let slow = host.client().put("/api/components/slow-partner", &aster_tests::component("hostile"));
        assert_eq!(slow.status, 201);
        host.deploy(SLOW);
        ledger::seed(host.client(), "PROD-A", 1_000);
        Self { database, host, orders: AtomicU32::new(0) }
    }

    /// Makes all kinds of calls at once, while runs are under way and `session` holds its locks. Then the session ends.
    /// `is_refused` are the calls that can't be answered meanwhile.
    fn check(&self, what: &str, session: impl FnOnce() -> Session, rounds: usize, is_refused: &[&str]) {
        let client = self.host.client();
        let under_way: Vec<String> = (0..4).map(|_| self.ask_partner()).collect();
        let known = self.order();
        let known_run = client.post("/api/orders", &known).expect(200).json();
        let id = known_run["workflowId"].as_str().expect("a run has an id").to_owned();
        client.ended(&id);

        let session = session();
        let mut sent = vec![known];
        for _ in 0..rounds {
            let orders: Vec<Value> = (0..6).map(|_| self.order()).collect();
            thread::scope(|scope| {
                let calls = orders.iter().map(|order| {
                    scope.spawn(move || in_time(what, "submit", || client.post("/api/orders", order)))
                });
                let calls: Vec<_> = calls.collect();
                let others = [
                    ("show", format!("/api/workflows/{id}")),
                    ("events", format!("/api/workflows/{id}/events")),
                    ("list", "/api/workflows?status=COMPLETED".to_owned()),
                    ("count", "/api/workflows/metrics".to_owned()),
                    ("components", "/api/components".to_owned()),
                    ("stock", "/api/components/inventory/keyvalue/stock/PROD-A".to_owned()),
                ];
                let others = others.map(|(call, path)| {
                    scope.spawn(move || (call, in_time(what, call, || client.get(&path)).status))
                });
                let cancelled = &under_way[0];
                let cancel = scope.spawn(move || {
                    in_time(what, "cancel", || {
                        client.post(&format!("/api/workflows/{cancelled}/cancel"), &json!({}))
                    })
                });
                for call in calls {
                    let answer = call.join().expect("a submission is answered");
                    let refused = answer.status == 503;
                    assert!(refused || answer.status == 200, "{what}: submit: {}", answer.status);
                    assert!(refused || !is_refused.contains(&"submit"), "{what}: a submission is taken");
                    assert_eq!(refused, answer.header("retry-after").is_some());
                }
                for call in others {
                    let (call, status) = call.join().expect("a call is answered");
                    let expected = if is_refused.contains(&call) { 503 } else { 200 };
                    assert!(status == expected || status == 503, "{what}: {call}: {status}");
                }
                assert!(
                    matches!(cancel.join().expect("it is answered").status, 200 | 202 | 409 | 503),
                    "{what}"
                );
            });
            sent.extend(orders);
        }
        session.end();

        let began = Instant::now();
        let ids: BTreeMap<String, &Value> =
            sent.iter().map(|order| (self.taken(what, order, began), order)).collect();
        assert_eq!(ids.len(), sent.len(), "{what}: two orders are one run");
        for id in ids.keys().chain(&under_way) {
            while !is_over(client, id) {
                assert!(began.elapsed() < RECOVERY, "{what}: {id} doesn't go on: {}", client.events(id));
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn order(&self) -> Value {
        order(&format!("ORD-{}", self.orders.fetch_add(1, Ordering::Relaxed)))
    }

    /// Starts a run that is under way for a while.
    fn ask_partner(&self) -> String {
        let answer = self.host.client().post("/api/definitions/askPartner/runs", &json!(1_500)).expect(202);
        answer.json()["workflowId"].as_str().expect("a run has an id").to_owned()
    }

    /// Submits an order again until it is accepted.
    fn taken(&self, what: &str, order: &Value, began: Instant) -> String {
        loop {
            let answer = self.host.client().post("/api/orders", order);
            if answer.status == 200 {
                return answer.json()["workflowId"].as_str().expect("a run has an id").to_owned();
            }
            assert_eq!(answer.status, 503, "{what}: {}", String::from_utf8_lossy(&answer.body));
            assert!(began.elapsed() < RECOVERY, "{what}: {order} isn't taken:\n{}", self.host.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Checks that each order that was ever sent has one run, which is paid once.
    fn check_ledger(&self) {
        let client = self.host.client();
        let sent = self.orders.load(Ordering::Relaxed).to_string();
        let count = "select count(*)::text from workflow_run where definition like '%fulfillOrder'";
        assert_eq!(self.database.query(count), [sent]);
        let all = "select workflow_id::text from workflow_run where definition like '%fulfillOrder'";
        let runs: Vec<Value> = self.database.query(all).iter().map(|id| client.ended(id)).collect();
        assert!(runs.iter().all(|run| run["status"] == "COMPLETED"));
        Ledger::read(client).check(&[("PROD-A".to_owned(), 1_000)].into(), &runs);
    }
}

#[track_caller]
fn in_time(what: &str, call: &str, ask: impl FnOnce() -> Answer) -> Answer {
    let began = Instant::now();
    let answer = ask();
    assert!(began.elapsed() < IN_TIME, "{what}: {call} took {:?}: {}", began.elapsed(), answer.status);
    answer
}

fn is_over(client: &Client, id: &str) -> bool {
    let answer = client.get(&format!("/api/workflows/{id}"));
    let over = ["COMPLETED", "FAILED", "COMPENSATED", "COMPENSATION_FAILED"];
    answer.status == 200 && over.contains(&answer.json()["status"].as_str().unwrap_or_default())
}

#[test]
fn calls_that_need_a_locked_table_are_answered_503_in_time_and_then_all_continues() {
    let bed = Bed::new();
    for (table, rounds, is_refused) in [
        // This is longer than commits wait for the lock.
        ("workflow_run", 3, &["submit", "show", "list"][..]),
        ("workflow_events", 1, &["submit", "events"]),
        ("workflow_key", 1, &["submit"]),
        ("keyvalue_entry", 2, &["stock"]),
        ("component", 1, &["components"]),
        ("registry", 1, &["submit"]),
        // The host loses its lease meanwhile.
        ("host", 2, &[]),
    ] {
        let lock = format!("lock table {table} in access exclusive mode");
        bed.check(table, || bed.database.session(&lock), rounds, is_refused);
    }
    bed.check_ledger();
}

#[test]
fn locked_rows_delay_only_their_own_runs_and_no_longer_than_the_lock() {
    let bed = Bed::new();
    for rows in [
        "select from workflow_run for update",
        "select from keyvalue_entry for update",
        "select from workflow_key for update",
    ] {
        bed.check(rows, || bed.database.session(rows), 2, &[]);
    }
    bed.check_ledger();
}
