//! The meaning of workflows when they run: each construct of the language, through the whole host.

use aster_tests::{Client, Database, Host, Options};
use serde_json::{Value, json};

/// Deploys one workflow with the given capabilities, runs it, and returns its state when it is over.
#[track_caller]
fn run(client: &Client, header: &str, body: &str, input: &Value) -> Value {
    let indented: String = body.lines().map(|line| format!("    {line}\n")).collect();
    let source = format!("This module is test.language.\n\nTo {header}:\n\n  workflow:\n\n{indented}  .\n");
    let headers = [("Content-Type", "text/plain")];
    let deployed = client.request("POST", "/api/definitions", &headers, source.as_bytes()).unwrap();
    assert!(deployed.status < 300, "{source}\n{}", String::from_utf8_lossy(&deployed.body));
    let name = header.split([' ', ',']).next().unwrap();
    let started = client.post(&format!("/api/definitions/{name}/runs"), input).expect(202).json();
    client.ended(started["workflowId"].as_str().unwrap())
}

#[test]
fn steps_without_calls_are_computed_by_the_host() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    let of = |expression: &str| {
        let body = format!("step only:\n  Return {expression}.\ntimeout: 10 seconds.");
        run(
            client,
            "compute with n: Int, list: List of Int and any: Json, produce Json with IO",
            &body,
            &json!({"n": 7, "list": [1, 2, 3], "any": 1}),
        )
    };
    for (expression, value) in [
        ("n * 2 + 1", json!(15)),
        ("n / 2", json!(3)),
        ("-n - 1", json!(-8)),
        ("n > 6 and not (n == 8)", json!(true)),
        ("n > 100 and list[9] == 0", json!(false)),
        ("list[2]", json!(3)),
        ("\"{n} of {list}\"", json!("7 of [1,2,3]")),
        ("{total: n, items: [n, null]}", json!({"total": 7, "items": [7, null]})),
        ("List.empty()", json!([])),
    ] {
        let state = of(expression);
        assert_eq!(state["result"], value, "{expression}: {state}");
        assert_eq!(state["status"], "COMPLETED");
    }
    for (expression, said) in [
        ("n / 0", "division by zero"),
        ("9223372036854775807 + n", "overflows"),
        ("list[3]", "no element"),
        ("any and true", "takes true or false"),
    ] {
        let state = of(expression);
        assert_eq!(state["status"], "FAILED", "{expression}: {state}");
        assert_eq!(state["error"]["code"], "TYPE");
        assert!(state["error"]["message"].as_str().unwrap().contains(said), "{expression}: {state}");
    }
}

#[test]
fn a_step_whose_condition_is_false_is_skipped_and_null_to_later_steps() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    let body = "step maybe when n > 10:\n  Return {big: n}.\n\nstep after:\n  Return {seen: maybe.big}.\n\ntimeout: 10 seconds.";
    let state = run(client, "skip with n: Int, produce Json with IO", body, &json!(3));
    assert_eq!(state["result"], json!({"seen": null}), "{state}");
    let id = state["workflowId"].as_str().unwrap();
    assert_eq!(
        client.log(id),
        [
            "WORKFLOW_STARTED",
            "STEP_SKIPPED maybe",
            "STEP_STARTED after",
            "STEP_COMPLETED after",
            "WORKFLOW_COMPLETED"
        ]
    );

    let body = "step maybe when n > 10:\n  Return n.\n\ntimeout: 10 seconds.";
    let state = run(client, "skipAll with n: Int, produce Json with IO", body, &json!(3));
    assert_eq!(state["status"], "COMPLETED");
    assert_eq!(state["result"], Value::Null);
}

#[test]
fn branches_and_names_work_in_a_body() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    let body = "step only:\n  Let half be n / 2.\n  If half > 10:\n    Return \"large\".\n  Otherwise:\n    Let text be \"small\".\n    Return text.\n\ntimeout: 10 seconds.";
    for (n, result) in [(100, "large"), (3, "small")] {
        let state = run(client, "branch with n: Int, produce Text with IO", body, &json!(n));
        assert_eq!(state["result"], result, "{state}");
    }
    let body = "step only:\n  Return err of \"no {n}\".\n\ntimeout: 10 seconds.";
    let state = run(client, "refuse with n: Int, produce Text with IO", body, &json!(3));
    assert_eq!(state["status"], "FAILED");
    assert_eq!(state["error"]["message"], "no 3");
}

#[test]
fn a_failure_stops_parallel_steps_and_undoes_all_that_began() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    host.push("counter");
    let body = "step first:
  Return Counter.add(\"b\", \"first\", 1).
  compensate:
    Counter.add(\"b\", \"first\", 10).

step slow depends on first:
  Return Hostile.spin().
  compensate:
    Counter.add(\"b\", \"slow\", 10).

step failing depends on first:
  Return err of \"on purpose\".

timeout: 30 seconds.";
    let header = "halt, produce Json with IO. It performs io";
    let state = run(client, header, body, &json!({}));
    assert_eq!(state["status"], "COMPENSATED", "{state}");
    let log = client.log(state["workflowId"].as_str().unwrap());
    let tail: Vec<&str> =
        log.iter().map(String::as_str).skip_while(|line| !line.starts_with("STEP_FAILED")).collect();
    assert_eq!(
        tail,
        [
            "STEP_FAILED failing",
            "STEP_CANCELLED slow",
            "WORKFLOW_FAILED failing",
            "COMPENSATION_STARTED slow",
            "COMPENSATION_COMPLETED slow",
            "COMPENSATION_STARTED first",
            "COMPENSATION_COMPLETED first",
            "WORKFLOW_COMPENSATED",
        ]
    );
}

#[test]
fn the_workflows_timeout_interrupts_an_endless_loop_and_a_wait() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    for call in ["Hostile.spin()", "Hostile.sleep(600000)"] {
        let body = format!(
            "step first:\n  Return 1.\n  compensate:\n    Hostile.ok().\n\nstep stuck:\n  Return {call}.\n  fuel: 100000000000000.\n\ntimeout: 2 seconds."
        );
        let header = "hang, produce Json with IO. It performs io with Hostile";
        let state = run(client, header, &body, &json!({}));
        assert_eq!(state["status"], "COMPENSATED", "{call}: {state}");
        assert_eq!(state["cause"], "TIMEOUT");
        let log = client.log(state["workflowId"].as_str().unwrap());
        assert!(log.contains(&"STEP_CANCELLED stuck".to_owned()), "{log:?}");
    }
}

#[test]
fn limits_of_fuel_memory_and_time_fail_the_step_that_exceeds_them() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    for (call, limit, code) in [
        ("Hostile.spin()", "fuel: 1000000.", "OUT_OF_FUEL"),
        ("Hostile.eatMemory(100000000)", "memory: 16 MiB.", "OUT_OF_MEMORY"),
        ("Hostile.sleep(600000)", "timeout: 200 milliseconds.", "TIMEOUT"),
        ("Hostile.panic(\"at the disco\")", "", "TRAP"),
    ] {
        let body = format!("step only:\n  Return {call}.\n  {limit}\n\ntimeout: 20 seconds.");
        let header = "exceed, produce Json with IO. It performs io with Hostile";
        let state = run(client, header, &body, &json!({}));
        assert_eq!(state["status"], "FAILED", "{call}: {state}");
        assert_eq!(state["error"]["code"], code, "{call}: {state}");
        if code == "TRAP" {
            assert!(state["error"]["message"].as_str().unwrap().contains("at the disco"), "{state}");
        }
    }
}

#[test]
fn a_trap_is_retried_as_the_step_says_after_the_recorded_wait() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    let body = "step only:
  Return Hostile.panic(\"again\").
  retry:
    max attempts: 3.
    backoff: constant.
    initial delay: 50 milliseconds.

timeout: 20 seconds.";
    let state = run(client, "retry, produce Json with IO. It performs io with Hostile", body, &json!({}));
    assert_eq!(state["status"], "FAILED");
    let id = state["workflowId"].as_str().unwrap();
    assert_eq!(
        client.log(id),
        [
            "WORKFLOW_STARTED",
            "STEP_STARTED only",
            "STEP_RETRY_SCHEDULED only",
            "STEP_STARTED only",
            "STEP_RETRY_SCHEDULED only",
            "STEP_STARTED only",
            "STEP_FAILED only",
            "WORKFLOW_FAILED only",
        ]
    );
    let events = client.events(id);
    assert_eq!(events[6]["payload"]["attempt"], 3);
    // RFC 3339 texts of one length are ordered like their instants.
    let scheduled = events[2]["payload"]["nextAttemptAt"].as_str().unwrap().to_owned();
    assert!(*events[3]["occurredAt"].as_str().unwrap() >= *scheduled, "{events:#}");
}

#[test]
fn numbers_are_exact_inside_and_safe_outside() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("echo");
    for (header, expression, input, result) in [
        ("half with n: Float, produce Json with IO", "n / 2", json!(5), json!(2.5)),
        ("half with n: Int, produce Json with IO", "n / 2", json!(7.0), json!(3)),
        ("more with n: Int, produce Json with IO", "n + 1", json!("5"), json!(6)),
        ("same with n: Int, produce Json with IO", "n == 5", json!("5"), json!(true)),
        (
            "sum with n: Int, produce Json with IO. It performs io with Echo",
            "Echo.add(n, 1) + 0",
            json!(9_007_199_254_740_992_i64),
            json!("9007199254740993"),
        ),
    ] {
        let body = format!("step only:\n  Return {expression}.\n\ntimeout: 10 seconds.");
        let state = run(client, header, &body, &input);
        assert_eq!(state["result"], result, "{header}: {expression}: {state}");
        let id = state["workflowId"].as_str().unwrap();
        let events = client.events(id);
        let last = events.as_array().unwrap().last().unwrap();
        assert_eq!(last["payload"]["result"], result);
    }
}

#[test]
fn a_body_that_grows_without_end_fails_its_step_and_not_the_host() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("echo");
    let lets = |first: &str, next: &dyn Fn(usize) -> String, count: usize| -> String {
        let lines: String = (1..=count).map(|n| format!("  Let a{n} be {}.\n", next(n - 1))).collect();
        format!("step only:\n  Let a0 be {first}.\n{lines}  Return 1.\n\ntimeout: 20 seconds.")
    };
    let nested = |n: usize| format!("{}a{n}{}", "[".repeat(20), "]".repeat(20));
    for (what, body) in [
        ("doubles a text", lets("\"0123456789\"", &|n| format!("\"{{a{n}}}{{a{n}}}\""), 60)),
        ("doubles a list", lets("[1]", &|n| format!("a{n} + a{n}"), 60)),
        ("nests a list", lets("[1]", &nested, 500)),
        ("calls", lets("1", &|_| "Echo.add(1, 1)".to_owned(), 300)),
    ] {
        let header = "grow, produce Json with IO. It performs io with Echo";
        let state = run(client, header, &body, &Value::Null);
        assert_eq!(state["status"], "FAILED", "{what}: {state}");
        assert_eq!(state["error"]["code"], "TYPE", "{what}: {state}");
    }
    client.get("/healthz").expect(200);
    // An input that is nested too deeply to be read back isn't accepted.
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let headers = [("Content-Type", "application/json")];
    let refused = client.request("POST", "/api/definitions/grow/runs", &headers, deep.as_bytes()).unwrap();
    assert_eq!(refused.status, 400);
    client.get("/api/workflows").expect(200);
}
