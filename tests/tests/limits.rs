//! What a host bounds for its own sake.

use std::time::{Duration, Instant};

use aster_tests::{Database, Host, Options};
use serde_json::Value;

/// A workflow of one step, which waits for so many milliseconds.
fn deploy_pause(host: &Host, millis: u32) {
    host.push("hostile");
    host.deploy(&format!(
        "This module is test.limits.\n\nTo pause, produce Json with IO. It performs io with Hostile:\n\n  workflow:\n\n    \
         step only:\n      Return Hostile.sleep({millis}).\n      timeout: 60 seconds.\n\n    timeout: 120 seconds.\n  .\n"
    ));
}

/// The value of a metric without labels.
#[track_caller]
fn metric(host: &Host, name: &str) -> u64 {
    let text = host.client().get("/metrics").expect(200).body;
    let text = String::from_utf8(text).expect("metrics are text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn a_client_is_held_no_longer_than_its_time_to_live() {
    let database = Database::create();
    let options = Options::database(&database.url());
    let options = ["--waiter-ttl", "300ms", "--waiter-sweep", "100ms"]
        .into_iter()
        .fold(options, |options, argument| options.argument(argument));
    let host = Host::start(&options);
    deploy_pause(&host, 30_000);
    assert_eq!(metric(&host, "workflow_result_futures_cleaned_total"), 0);

    let began = Instant::now();
    let start = |wait: &str| {
        host.client().post_with("/api/definitions/pause/runs", &[("Prefer", wait)], &Value::Null)
    };
    let answer = start("wait=100000").expect(202);
    assert!(began.elapsed() >= Duration::from_millis(300), "it wasn't held");
    assert!(began.elapsed() < Duration::from_secs(25), "held for {:?}", began.elapsed());
    assert_eq!(answer.header("preference-applied"), None);
    assert_eq!(answer.json()["status"], "RUNNING");
    assert_eq!(metric(&host, "workflow_result_futures_cleaned_total"), 1);
    // One that gave up by itself is none that was swept away.
    start("wait=0").expect(202);
    assert_eq!(metric(&host, "workflow_result_futures_cleaned_total"), 1);
}
