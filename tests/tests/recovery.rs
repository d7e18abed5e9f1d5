//! Hosts that die at any moment: every accepted run comes to its right end, and nothing happens twice.

use std::collections::BTreeMap;
use std::time::Duration;

use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::{declined, order, too_many, unreachable};
use aster_tests::{Client, Database, Host, Options};
use serde_json::Value;

const STOCK: i64 = 1_000;

/// The lease is short, so that a new host needn't wait long for the runs of a dead one.
fn options(database: &Database) -> Options {
    Options::database(&database.url()).argument("--lease").argument("1s")
}

fn set_up(database: &Database) {
    let mut host = Host::start(&options(database));
    host.set_up();
    ledger::seed(host.client(), "PROD-A", STOCK);
    host.stop();
}

/// Returns one order of each fate; the id says which.
fn orders(round: &str) -> Vec<Value> {
    vec![
        order(&format!("good-{round}")),
        declined(&format!("declined-{round}")),
        unreachable(&format!("unreachable-{round}")),
        too_many(&format!("too-many-{round}")),
    ]
}

/// Sends the order, and returns the run's id if the host accepted it. The host may die while it answers.
fn send(client: &Client, order: &Value) -> Option<String> {
    let headers = [("Content-Type", "application/json")];
    let answer = client.request("POST", "/api/orders", &headers, order.to_string().as_bytes()).ok()?;
    (answer.status == 200).then(|| answer.json()["workflowId"].as_str().expect("an id").to_owned())
}

/// Waits for the ends of the runs of all orders, and asserts that they are right.
#[track_caller]
fn check_ends(client: &Client, accepted: &BTreeMap<String, String>, orders: &[Value]) {
    let mut runs = Vec::new();
    for order in orders {
        let order_id = order["orderId"].as_str().unwrap();
        let id = send(client, order).expect("a living host takes every order");
        if let Some(known) = accepted.get(order_id) {
            assert_eq!(&id, known, "{order_id} was accepted as another run before");
        }
        let run = client.ended(&id);
        // This is right for a step that was in flight at three kills.
        let host_lost = run["error"]["code"] == "HOST_LOST";
        let right = if order_id.starts_with("good") && !host_lost { "COMPLETED" } else { "COMPENSATED" };
        assert_eq!(run["status"], right, "{order_id}: {:#}", client.events(&id));
        check_log(client, &id);
        runs.push(run);
    }
    Ledger::read(client).check(&[("PROD-A".to_owned(), STOCK)].into(), &runs);
}

/// Checks that the log is gapless from 1, that nothing is completed twice, and that compensations run last first.
#[track_caller]
fn check_log(client: &Client, id: &str) {
    let events = client.events(id);
    for (n, event) in events.as_array().unwrap().iter().enumerate() {
        assert_eq!(event["sequence"], n + 1, "{events:#}");
    }
    let log = client.log(id);
    let of = |event_type: &str| -> Vec<String> {
        let prefix = format!("{event_type} ");
        log.iter().filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned)).collect()
    };
    let completed = of("STEP_COMPLETED");
    let mut distinct = completed.clone();
    distinct.dedup();
    assert_eq!(completed, distinct, "a step was completed twice: {log:?}");
    let mut undone = of("COMPENSATION_COMPLETED");
    undone.reverse();
    let mut started = of("STEP_STARTED");
    started.dedup();
    started.retain(|step| undone.contains(step));
    assert_eq!(undone, started, "not undone last first: {log:?}");
}

/// Lets hosts die at `point`: at its first passage, in the middle of the runs, and while a run is undone.
fn check_crashes_at(point: &str) {
    let database = Database::create();
    set_up(&database);
    let mut all_orders = Vec::new();
    let mut all_accepted = BTreeMap::new();
    for nth in [1, 4, 9] {
        let orders = orders(&format!("{point}-{nth}"));
        let mut accepted = BTreeMap::new();
        let mut host =
            Host::start(&options(&database).environment("ASTER_CRASH_AT", &format!("{point}:{nth}")));
        for order in &orders {
            if let Some(id) = send(host.client(), order) {
                accepted.insert(order["orderId"].as_str().unwrap().to_owned(), id);
            }
        }
        // The host dies at its point, or has nothing left to do.
        while !host.has_ended() && accepted.values().any(|id| !is_over(host.client(), id)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        host.kill();

        // The next host makes progress before another one dies, because a step that loses its host three times would
        // fail.
        let mut host = Host::start(&options(&database));
        accepted.values().for_each(|id| drop(host.client().ended(id)));
        host.stop();
        all_orders.extend(orders);
        all_accepted.extend(accepted);
    }
    let host = Host::start(&options(&database));
    check_ends(host.client(), &all_accepted, &all_orders);
}

/// Each point has a test of its own, so that they run in parallel.
macro_rules! crashes {
    ($($name:ident: $point:literal,)*) => {
        $(
            #[test]
            fn $name() {
                check_crashes_at($point);
            }
        )*

        #[test]
        fn every_crash_point_is_tried() {
            assert_eq!(aster_host::crash::POINTS, [$($point),*]);
        }
    };
}

crashes! {
    a_crash_before_acceptance_changes_no_outcome: "before-accept",
    a_crash_after_acceptance_changes_no_outcome: "after-accept",
    a_crash_before_a_call_changes_no_outcome: "before-call",
    a_crash_after_a_call_changes_no_outcome: "after-call",
    a_crash_before_a_commit_changes_no_outcome: "before-commit",
    a_crash_after_a_commit_changes_no_outcome: "after-commit",
}

fn is_over(client: &Client, id: &str) -> bool {
    let Ok(answer) = client.request("GET", &format!("/api/workflows/{id}"), &[], &[]) else { return true };
    let status = answer.json()["status"].as_str().unwrap_or_default().to_owned();
    !matches!(status.as_str(), "READY" | "RUNNING" | "COMPENSATING")
}

#[test]
fn hosts_killed_at_random_lose_nothing_and_repeat_nothing() {
    let database = Database::create();
    set_up(&database);
    // The seed is printed with a failure. The moments themselves depend on the machine.
    let seed: u64 = 0x5eed;
    let mut random = seed;
    let mut accepted = BTreeMap::new();
    let mut all = Vec::new();
    for round in 0..6 {
        let mut host = Host::start(&options(&database));
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_millis((random >> 33) % 120);
        let orders: Vec<Value> = (0..6).flat_map(|n| orders(&format!("{round}-{n}"))).collect();
        std::thread::scope(|scope| {
            let client = host.client().clone();
            let senders: Vec<_> = orders
                .chunks(6)
                .map(|orders| {
                    let client = client.clone();
                    scope.spawn(move || {
                        let sent =
                            orders.iter().map(|order| (order["orderId"].clone(), send(&client, order)));
                        sent.collect::<Vec<_>>()
                    })
                })
                .collect();
            std::thread::sleep(life);
            host.kill();
            for sender in senders {
                for (order_id, id) in sender.join().unwrap() {
                    if let Some(id) = id {
                        accepted.insert(order_id.as_str().unwrap().to_owned(), id);
                    }
                }
            }
        });
        all.extend(orders);
    }
    let host = Host::start(&options(&database));
    check_ends(host.client(), &accepted, &all);
}

#[test]
fn a_host_that_stops_in_order_hands_its_runs_over_at_once() {
    let database = Database::create();
    // The lease is longer than the test.
    let options = Options::database(&database.url()).argument("--lease").argument("10m");
    let mut first = Host::start(&options);
    first.set_up();
    ledger::seed(first.client(), "PROD-A", STOCK);
    let orders: Vec<Value> = (0..5).flat_map(|n| orders(&n.to_string())).collect();
    let mut accepted = BTreeMap::new();
    for order in &orders {
        let id = send(first.client(), order).expect("taken");
        accepted.insert(order["orderId"].as_str().unwrap().to_owned(), id);
    }
    assert_eq!(first.stop(), Some(0));
    let second = Host::start(&options);
    check_ends(second.client(), &accepted, &orders);
}

/// Starts a host, and a run of a workflow with one pause.
fn pausing(database: &Database, millis: u32) -> (Host, String) {
    let host = Host::start(&options(database));
    host.push("hostile");
    host.deploy(&format!(
        "This module is test.pause.\n\nTo pause, produce Json with IO. It performs io with Hostile:\n\n  workflow:\n\n    \
         step only:\n      Return Hostile.sleep({millis}).\n\n    timeout: 60 seconds.\n  .\n"
    ));
    let started = host.client().post("/api/definitions/pause/runs", &Value::Null).expect(202).json();
    let id = started["workflowId"].as_str().unwrap().to_owned();
    (host, id)
}

#[test]
fn a_step_whose_host_stopped_in_order_continues_without_counting_a_loss() {
    let database = Database::create();
    // The pause is longer than a stopping host waits for its runs.
    let (mut first, id) = pausing(&database, 7_000);
    assert_eq!(first.stop(), Some(0));
    let second = Host::start(&options(&database));
    assert_eq!(second.client().ended(&id)["status"], "COMPLETED");
    let log = second.client().log(&id);
    assert_eq!(log, ["WORKFLOW_STARTED", "STEP_STARTED only", "STEP_COMPLETED only", "WORKFLOW_COMPLETED"]);
}

#[test]
fn a_stray_run_of_a_host_is_found_and_driven() {
    let database = Database::create();
    let (host, id) = pausing(&database, 1);
    host.client().ended(&id);
    // The row now looks as if the answer to an acceptance had been lost.
    let stray = database.query(
        "insert into workflow_run (workflow_id, tenant, definition, release_id, input, status, accepted_at, updated_at,
            deadline, owner, fence, last_sequence)
        select gen_random_uuid(), tenant, definition, release_id, input, 'READY', now(), now(), now() + interval '1 hour',
            (select host_id from host where retired_at is null), 1, 0
        from workflow_run
        returning workflow_id::text",
    );
    assert_eq!(host.client().ended(&stray[0])["status"], "COMPLETED");
}
