//! Deadlines, waits and retries, by the wall clock and across restarts.

use std::time::Duration;

use aster_tests::{Client, Database, Host, Options};
use serde_json::{Value, json};

const WAITING: &str = r#"This module is test.waiting.

To giveUp with name: Text, produce Json with IO. It performs io with Hostile:

  workflow:

    step done:
      Return Hostile.ok().
      compensate:
        Hostile.sleep(2500).

    step attempt:
      Return Hostile.panic("not yet").
      retry:
        max attempts: 3.
        initial delay: 10 minutes.
        max delay: 10 minutes.

    timeout: 2 seconds.
  .

To insist with name: Text, produce Json with IO. It performs io with Hostile:

  workflow:

    step attempt:
      Return Hostile.panic("not yet").
      retry:
        max attempts: 2.
        backoff: constant.
        initial delay: 4 seconds.

    timeout: 60 seconds.
  .

To hang with name: Text, produce Json with IO. It performs io with Hostile:

  workflow:

    step done:
      Return Hostile.ok().
      compensate:
        Hostile.sleep(60000).
        timeout: 500 milliseconds.
        retry:
          max attempts: 2.
          initial delay: 100 milliseconds.

    step before:
      Return Hostile.ok().
      compensate:
        Return "undone".

    step fail:
      Return err of "on purpose".

    timeout: 60 seconds.
  .
"#;

fn start(client: &Client, definition: &str) -> String {
    let answer = client.post(&format!("/api/definitions/{definition}/runs"), &json!("a")).expect(202);
    answer.json()["workflowId"].as_str().expect("a run has an id").to_owned()
}

fn set_up(database: &Database) -> Host {
    let host = Host::start(&Options::database(&database.url()).argument("--lease").argument("1s"));
    host.push("hostile");
    host.deploy(WAITING);
    host
}

fn instant(event: &Value, pointer: &str) -> chrono::DateTime<chrono::Utc> {
    let text = event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    text.parse().unwrap_or_else(|error| panic!("{error}: {pointer} of {event}"))
}

#[test]
fn the_deadline_ends_a_wait_for_a_retry_but_not_the_compensations() {
    let database = Database::create();
    let host = set_up(&database);
    let id = start(host.client(), "giveUp");
    let state = host.client().ended(&id);
    assert_eq!((&state["status"], &state["cause"]), (&json!("COMPENSATED"), &json!("TIMEOUT")));
    assert_eq!(
        host.client().log(&id)[3..],
        [
            "STEP_STARTED attempt",
            "STEP_RETRY_SCHEDULED attempt",
            "STEP_CANCELLED attempt",
            "WORKFLOW_FAILED",
            "COMPENSATION_STARTED done",
            "COMPENSATION_COMPLETED done",
            "WORKFLOW_COMPENSATED"
        ]
    );
    // This took two seconds and not ten minutes, although the undo takes longer than the whole run may.
    let events = host.client().events(&id);
    let failed = instant(&events[6], "/occurredAt");
    let late = failed - instant(&state, "/deadline");
    assert!((0..1_000).contains(&late.num_milliseconds()), "{late}");
    let took = instant(&events[8], "/occurredAt") - failed;
    assert!(took.num_milliseconds() >= 2_500, "{took}");
}

#[test]
fn a_waiting_attempt_survives_its_host_and_begins_at_the_recorded_instant() {
    let database = Database::create();
    let mut host = set_up(&database);
    let id = start(host.client(), "insist");
    while host.client().log(&id).len() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    host.kill();
    let host = Host::start(&Options::database(&database.url()).argument("--lease").argument("1s"));
    let state = host.client().ended(&id);
    assert_eq!((&state["status"], &state["error"]["code"]), (&json!("FAILED"), &json!("TRAP")));
    let events = host.client().events(&id);
    assert_eq!(events[2]["eventType"], "STEP_RETRY_SCHEDULED");
    let (at, began) = (instant(&events[2], "/payload/nextAttemptAt"), instant(&events[3], "/occurredAt"));
    assert_eq!(
        (&events[3]["eventType"], &events[3]["payload"]["attempt"]),
        (&json!("STEP_STARTED"), &json!(2))
    );
    assert_eq!(events[3]["payload"]["rerun"], Value::Null, "it waited: nothing was lost with the host");
    // 4 s ± 20 %, recorded once.
    let wait = at - instant(&events[2], "/occurredAt");
    assert!((3_200..=4_800).contains(&wait.num_milliseconds()), "{wait}");
    let late = began - at;
    assert!((0..2_000).contains(&late.num_milliseconds()), "{late}");
}

#[test]
fn a_compensation_has_its_own_limits_and_attempts_and_the_others_still_run() {
    let database = Database::create();
    let host = set_up(&database);
    let id = start(host.client(), "hang");
    assert_eq!(host.client().ended(&id)["status"], "COMPENSATION_FAILED");
    assert_eq!(
        host.client().log(&id)[7..],
        [
            "WORKFLOW_FAILED fail",
            "COMPENSATION_STARTED before",
            "COMPENSATION_COMPLETED before",
            "COMPENSATION_STARTED done",
            "COMPENSATION_RETRY_SCHEDULED done",
            "COMPENSATION_STARTED done",
            "COMPENSATION_FAILED done",
            "WORKFLOW_COMPENSATION_FAILED"
        ]
    );
    assert_eq!(host.client().events(&id)[13]["payload"]["error"]["code"], "TIMEOUT");
}
