//! Operators' acts: cancelling runs in any state, and repairing failed compensations.

use std::time::Duration;

use aster_tests::{Client, Database, Host, Options, component};
use serde_json::{Value, json};

/// A step that can be undone, and one that takes long.
const SLOW: &str = r#"This module is test.slow.

To dawdle with name: Text, produce Json with IO. It performs io with Hostile:

  workflow:

    step first:
      Return Hostile.set("things", name, "b25l").
      compensate:
        Hostile.set("things", name, "").

    step second:
      Return Hostile.sleep(20000).
      compensate:
        Return "undone".

    timeout: 60 seconds.
  .

To spin with name: Text, produce Json with IO. It performs io with Hostile:

  workflow:

    step turn:
      Return Hostile.spin().
      fuel: 1000000000000.

    timeout: 60 seconds.
  .

To retry with name: Text, produce Json with IO. It performs io with Hostile:

  workflow:

    step attempt:
      Return Hostile.panic("not yet").
      retry:
        max attempts: 3.
        initial delay: 10 minutes.
        max delay: 10 minutes.
      compensate:
        Return "undone".

    timeout: 1 hours.
  .
"#;

/// The undo of `pay` fails as long as the first version of the greeter is called; that of `book` always fails.
const STUCK: &str = r#"This module is test.stuck.

To buy with name: Text, produce Json with IO. It performs io with Greeter:

  workflow:

    step pay:
      Return Greeter.greet(name).
      compensate:
        Let greeting be Greeter.greet(name).
        If greeting == pay:
          Return err of "the bank is closed".
        Return greeting.

    step book:
      Return Greeter.greet(name).
      compensate:
        Return err of "booked for good".

    step note:
      Return "noted".
      compensate:
        Return "forgotten".

    step fail:
      Return err of "on purpose".

    timeout: 60 seconds.
  .
"#;

fn start(client: &Client, definition: &str, name: &str) -> String {
    let answer = client.post(&format!("/api/definitions/{definition}/runs"), &json!(name)).expect(202);
    answer.json()["workflowId"].as_str().expect("a run has an id").to_owned()
}

/// Waits until the log of a run ends with `event`.
fn await_event(client: &Client, id: &str, event: &str) {
    let began = std::time::Instant::now();
    while client.log(id).last().map(String::as_str) != Some(event) {
        assert!(began.elapsed() < Duration::from_secs(60), "no {event}: {:?}", client.log(id));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn cancel(client: &Client, id: &str) -> aster_tests::Answer {
    let headers = [("X-User-Id", "ada")];
    client.post_with(
        &format!("/api/workflows/{id}/cancel"),
        &headers,
        &json!({"reason": "the customer called"}),
    )
}

#[test]
fn a_run_is_cancelled_whatever_it_is_doing() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    host.deploy(SLOW);

    // The run is in a guest that waits in a host call.
    let id = start(client, "dawdle", "a");
    await_event(client, &id, "STEP_STARTED second");
    let state = cancel(client, &id).expect(200).json();
    assert_eq!(state["cause"], "CANCEL");
    let state = client.ended(&id);
    assert_eq!(state["status"], "COMPENSATED");
    assert_eq!(
        client.log(&id)[4..],
        [
            "STEP_CANCELLED second",
            "WORKFLOW_FAILED",
            "COMPENSATION_STARTED second",
            "COMPENSATION_COMPLETED second",
            "COMPENSATION_STARTED first",
            "COMPENSATION_COMPLETED first",
            "WORKFLOW_COMPENSATED"
        ]
    );
    let failed = client.events(&id)[5]["payload"].clone();
    assert_eq!((&failed["by"], &failed["reason"]), (&json!("ada"), &json!("the customer called")));
    let problem = cancel(client, &id).expect(409).json();
    assert_eq!(problem["type"], "/problems/run-over");
    assert_eq!(problem["workflowStatus"], "COMPENSATED");

    // The run is in an endless loop.
    let id = start(client, "spin", "b");
    await_event(client, &id, "STEP_STARTED turn");
    assert_eq!(cancel(client, &id).expect(200).json()["status"], "FAILED");

    // The run waits for a retry, and no host drives it.
    let id = start(client, "retry", "c");
    await_event(client, &id, "STEP_RETRY_SCHEDULED attempt");
    assert_eq!(cancel(client, &id).expect(200).json()["cause"], "CANCEL");
    assert_eq!(client.ended(&id)["status"], "COMPENSATED");

    let list = client.get("/api/workflows?cause=CANCEL").expect(200).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    let nobody = "01890000-0000-7000-8000-000000000000";
    assert_eq!(cancel(client, nobody).status, 404);
    let headers = [("X-Tenant-Id", "another")];
    let path = format!("/api/workflows/{id}/cancel");
    assert_eq!(client.post_with(&path, &headers, &json!({})).status, 404);
    assert_eq!(client.post(&path, &json!({"why": "x"})).status, 400);
    assert_eq!(client.post(&path, &json!({"reason": ""})).status, 400);
}

#[test]
fn a_run_that_has_not_begun_ends_with_its_first_event() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()).argument("--max-active-runs").argument("1"));
    let client = host.client();
    host.push("hostile");
    host.deploy(SLOW);
    let first = start(client, "dawdle", "a");
    await_event(client, &first, "STEP_STARTED second");
    let waiting = start(client, "dawdle", "b");
    assert_eq!(client.get(&format!("/api/workflows/{waiting}")).expect(200).json()["status"], "READY");
    assert_eq!(
        client.get(&format!("/api/workflows/{waiting}/compensations")).expect(200).json()["items"],
        json!([])
    );
    // No slot is free, so the cancel is still to come. But it is accepted, so no step of the run will begin.
    assert_eq!(cancel(client, &waiting).expect(202).json()["status"], "READY");
    cancel(client, &first).expect(200);
    assert_eq!(client.ended(&waiting)["status"], "FAILED");
    assert_eq!(client.log(&waiting), ["WORKFLOW_FAILED"]);
    assert_eq!(client.events(&waiting)[0]["payload"]["by"], "ada");
}

#[test]
fn a_run_is_cancelled_through_any_host() {
    let database = Database::create();
    let first = Host::start(&Options::database(&database.url()));
    let second = Host::start(&Options::database(&database.url()));
    first.push("hostile");
    first.deploy(SLOW);
    let id = start(first.client(), "spin", "a");
    await_event(first.client(), &id, "STEP_STARTED turn");
    assert_eq!(cancel(second.client(), &id).expect(200).json()["status"], "FAILED");
}

fn compensations(client: &Client, id: &str) -> Vec<Value> {
    let list = client.get(&format!("/api/workflows/{id}/compensations")).expect(200).json();
    list["items"].as_array().expect("a list").clone()
}

fn states(client: &Client, id: &str) -> Vec<String> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    compensations(client, id)
        .iter()
        .map(|item| format!("{} {} {}", text(item, "step"), text(item, "state"), item["attempts"]))
        .collect()
}

fn stuck_run(host: &Host, name: &str) -> String {
    let client = host.client();
    let id = start(client, "buy", name);
    assert_eq!(client.ended(&id)["status"], "COMPENSATION_FAILED");
    id
}

#[test]
fn a_compensation_that_failed_is_repaired() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    client.put("/api/components/greeter", &component("greeter-v1"));
    host.deploy(STUCK);
    let id = stuck_run(&host, "Ada");
    assert_eq!(states(client, &id), ["note done 1", "book failed 1", "pay failed 1"]);
    let pay = compensations(client, &id)[2].clone();
    assert_eq!(pay["error"]["message"], "the bank is closed");
    assert_eq!(pay["forwardOutcome"], "completed");
    assert_eq!(pay["component"], "greeter");
    let pinned = pay["digest"].clone();

    // The newer version would work, but the run has pinned the older one.
    client.put("/api/components/greeter", &component("greeter-v2"));
    let active = client.get("/api/components/greeter").expect(200).json()["activeDigest"].clone();
    let act = |step: &str, act: &str, body: Value| {
        let headers = [("X-User-Id", "grace")];
        client.post_with(&format!("/api/workflows/{id}/compensations/{step}/{act}"), &headers, &body)
    };
    act("pay", "retry", json!({})).expect(200);
    assert_eq!(client.ended(&id)["status"], "COMPENSATION_FAILED");
    assert_eq!(states(client, &id)[2], "pay failed 2");
    assert_eq!(compensations(client, &id)[2]["digest"], pinned);

    act("pay", "retry", json!({"component": "active", "reason": "the new version can"})).expect(200);
    assert_eq!(client.ended(&id)["status"], "COMPENSATION_FAILED");
    assert_eq!(states(client, &id)[2], "pay done 3");
    assert_eq!(compensations(client, &id)[2]["digest"], active);
    let log = client.log(&id);
    assert_eq!(
        log[log.len() - 4..],
        [
            "OPERATOR_RETRIED pay",
            "COMPENSATION_STARTED pay",
            "COMPENSATION_COMPLETED pay",
            "WORKFLOW_COMPENSATION_FAILED"
        ]
    );
    let last = client.events(&id).as_array().map(|events| events[events.len() - 4]["payload"].clone());
    let last = last.expect("events are an array");
    assert_eq!((&last["by"], &last["reason"]), (&json!("grace"), &json!("the new version can")));

    // Acts that make no sense are refused with a reason.
    let refused = |answer: aster_tests::Answer, state: &str| {
        let problem = answer.expect(409).json();
        assert_eq!(problem["type"], "/problems/nothing-to-repair", "{problem}");
        assert_eq!(problem["compensationState"], state);
    };
    refused(act("pay", "retry", json!({})), "done");
    refused(act("note", "skip", json!({"reason": "x"})), "done");
    act("fail", "retry", json!({})).expect(404);
    act("nothing", "settle", json!({"reason": "x"})).expect(404);
    act("book", "settle", json!({})).expect(400);
    act("book", "settle", json!({"reason": " "})).expect(400);
    act("book", "retry", json!({"component": "newest"})).expect(400);

    act("book", "settle", json!({"reason": "called the airline"})).expect(200);
    assert_eq!(client.ended(&id)["status"], "COMPENSATED");
    assert_eq!(states(client, &id), ["note done 1", "book settled 1", "pay done 3"]);
    let log = client.log(&id);
    assert_eq!(log[log.len() - 2..], ["OPERATOR_SETTLED book", "WORKFLOW_COMPENSATED"]);
    let problem = act("book", "skip", json!({"reason": "x"})).expect(409).json();
    assert_eq!(problem["workflowStatus"], "COMPENSATED");
    let counts = client.get("/api/workflows/metrics").expect(200).json();
    assert_eq!((&counts["COMPENSATION_FAILED"], &counts["COMPENSATED"]), (&json!(0), &json!(1)));
}

#[test]
fn many_runs_are_repaired_by_a_filter_after_a_dry_run() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    client.put("/api/components/greeter", &component("greeter-v1"));
    host.deploy(STUCK);
    let ids: Vec<String> = (0..5).map(|n| stuck_run(&host, &format!("guest {n}"))).collect();

    let repair = |query: &str, body: Value| client.post(&format!("/api/workflows/repair{query}"), &body);
    let look =
        json!({"act": "skip", "reason": "written off", "filter": {"definition": "buy", "step": "book"}});
    let found = repair("?dryRun=true", look.clone()).expect(200).json();
    assert_eq!(found["dryRun"], true);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(5));
    assert_eq!(found["items"][0]["compensation"]["step"], "book");
    assert_eq!(found["items"][0]["workflowId"], ids[4].as_str(), "the newest first");
    assert_eq!(states(client, &ids[0])[1], "book failed 1");

    // The repair is made in pieces.
    let first = repair("?limit=2", look.clone()).expect(200).json();
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    let cursor = first["nextCursor"].as_str().expect("there is more");
    let rest = repair(&format!("?cursor={cursor}"), look).expect(200).json();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(rest["nextCursor"], Value::Null);
    let settled = |step: usize, state: &str| {
        let began = std::time::Instant::now();
        for id in &ids {
            while states(client, id)[step] != state {
                assert!(began.elapsed() < Duration::from_secs(60), "{:?}", states(client, id));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    settled(1, "book skipped 1");

    // The filter is the error, and the active version is called.
    client.put("/api/components/greeter", &component("greeter-v2"));
    let nothing = json!({"act": "retry", "filter": {"error": "no such error"}});
    assert_eq!(repair("", nothing).expect(200).json()["items"], json!([]));
    let retry = json!({"act": "retry", "component": "active", "filter": {"error": "bank"}});
    assert_eq!(repair("", retry).expect(200).json()["items"].as_array().map(Vec::len), Some(5));
    settled(2, "pay done 2");
    for id in &ids {
        assert_eq!(client.ended(id)["status"], "COMPENSATED");
    }

    repair("", json!({"act": "skip"})).expect(400);
    repair("", json!({"act": "explode", "reason": "x"})).expect(400);
    repair("", json!({"act": "settle", "reason": "x", "component": "active"})).expect(400);
    repair("?dryRun=perhaps", json!({"act": "retry"})).expect(400);
}

#[test]
fn orders_outlive_the_host_that_took_them() {
    let database = Database::create();
    let options = Options::database(&database.url()).argument("--lease").argument("1s");
    let mut host = Host::start(&options.clone().argument("--max-active-runs").argument("1"));
    host.push("hostile");
    host.deploy(SLOW);
    let busy = start(host.client(), "dawdle", "a");
    await_event(host.client(), &busy, "STEP_STARTED second");
    let waiting = start(host.client(), "dawdle", "b");
    cancel(host.client(), &waiting).expect(202);
    host.kill();
    let host = Host::start(&options);
    assert_eq!(host.client().ended(&waiting)["cause"], "CANCEL");
    assert_eq!(host.client().log(&waiting), ["WORKFLOW_FAILED"]);
    let left = database.query("select count(*)::text from workflow_order");
    // The order is deleted right after the run's end.
    let began = std::time::Instant::now();
    let mut left = left;
    while left != ["0"] {
        assert!(began.elapsed() < Duration::from_secs(60), "{left:?}");
        left = database.query("select count(*)::text from workflow_order");
    }
}
