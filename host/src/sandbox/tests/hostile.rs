//! Guests that misbehave fail their own step and nothing else.

use serde_json::json;

use super::*;

#[tokio::test]
async fn an_endless_loop_ends_with_its_fuel() {
    let mut guest = Guest::new("hostile").await;
    guest.fuel = 10_000_000;
    let report = guest.call("spin", &[]).await;
    assert_eq!(report.outcome.expect_err("it never ends").code, FailureCode::OutOfFuel);
    assert_eq!(report.fuel_used, 10_000_000);
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let mut guest = Guest::new("hostile").await;
    guest.fuel = u64::MAX / 2;
    guest.time = Duration::from_millis(50);
    let began = Instant::now();
    guest.fails("spin", &[], FailureCode::Timeout).await;
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}

#[tokio::test]
async fn an_endless_loop_ends_when_its_call_is_dropped_and_starves_nobody() {
    let mut guest = Guest::new("hostile").await;
    guest.fuel = u64::MAX / 2;
    // There is one thread, so the loop must yield or the timer never runs.
    let dropped = tokio::time::timeout(Duration::from_millis(50), guest.call("spin", &[])).await;
    assert!(dropped.is_err());
    assert_eq!(guest.ok("ok", &[]).await, json!("ok"));
}

#[tokio::test]
async fn a_sleeping_guest_is_woken_by_its_deadline() {
    let mut guest = Guest::new("hostile").await;
    guest.time = Duration::from_millis(50);
    guest.fails("sleep", &[json!(60_000)], FailureCode::Timeout).await;
}

#[tokio::test]
async fn memory_ends_at_the_limit() {
    let mut guest = Guest::new("hostile").await;
    guest.memory_bytes = 16 << 20;
    assert_eq!(guest.ok("eatMemory", &[json!(8 << 20)]).await, json!(8 << 20));
    let failure = guest.fails("eatMemory", &[json!(64 << 20)], FailureCode::OutOfMemory).await;
    assert!(failure.message.contains("more than the limit of 16 MiB"), "{failure:?}");
}

#[tokio::test]
async fn recursion_without_end_traps() {
    let guest = Guest::new("hostile").await;
    let failure = guest.fails("recurse", &[json!(u32::MAX)], FailureCode::Trap).await;
    assert!(failure.message.contains("stack"), "{failure:?}");
}

#[tokio::test]
async fn a_panic_is_reported_with_its_message() {
    let guest = Guest::new("hostile").await;
    let report = guest.call("panic", &[json!("no such order")]).await;
    let failure = report.outcome.expect_err("it panicked");
    assert_eq!(failure.code, FailureCode::Trap);
    assert!(
        failure.message.starts_with("panicked at ") && failure.message.ends_with("no such order"),
        "{failure:?}"
    );
    assert!(report.output.stderr.contains("no such order"));
}

#[tokio::test]
async fn an_exit_is_a_trap() {
    let guest = Guest::new("hostile").await;
    let failure = guest.fails("exit", &[json!(3)], FailureCode::Trap).await;
    assert!(failure.message.contains("exited"), "{failure:?}");
}

#[tokio::test]
async fn output_is_cut_to_a_bound_and_made_harmless() {
    let guest = Guest::new("hostile").await;
    let report = guest.call("print", &[json!(1 << 20)]).await;
    report.outcome.expect("printing too much is no failure");
    for text in [report.output.stdout, report.output.stderr] {
        assert!(text.len() < 9_000 && text.contains("[cut: "), "{} bytes", text.len());
    }
    let report = guest.call("printGarbage", &[]).await;
    let text = report.output.into_text().expect("it printed");
    assert!(text.contains("before\u{fffd}after") && text.contains("é"), "{text:?}");
    assert!(!text.contains('\0') && !text.contains('\x1b'));
}

#[tokio::test]
async fn answers_that_json_cannot_express_fail_the_step() {
    let guest = Guest::new("hostile").await;
    for (function, message) in [
        ("nan", "result: NaN is not a JSON number"),
        ("infinity", "result: inf is not a JSON number"),
        ("nulText", "result: a text must not contain NUL"),
        ("nulError", "result: a text must not contain NUL"),
    ] {
        assert_eq!(guest.fails(function, &[], FailureCode::Type).await.message, message, "{function}");
    }
}

#[tokio::test]
async fn answers_that_are_too_large_fail_the_step() {
    let guest = Guest::new("hostile").await;
    for function in ["hugeText", "hugeList", "hugeError"] {
        for bytes in [(1 << 20) + 1, 40 << 20] {
            let failure = guest.fails(function, &[json!(bytes)], FailureCode::Type).await;
            assert!(failure.message.contains(" is larger than 1 MiB"), "{function}({bytes}): {failure:?}");
        }
    }
    assert!(guest.ok("hugeText", &[json!(1_000_000)]).await.is_string());
    assert!(guest.ok("hugeList", &[json!(700_000)]).await.is_string());
}

#[tokio::test]
async fn a_step_does_not_see_files_environment_or_network() {
    let guest = Guest::new("escape").await;
    for path in ["/etc/passwd", "/", ".", "../Cargo.toml"] {
        guest.fails("readFile", &[json!(path)], FailureCode::Error).await;
        guest.fails("listFolder", &[json!(path)], FailureCode::Error).await;
        guest.fails("writeFile", &[json!(path)], FailureCode::Error).await;
    }
    assert_eq!(guest.ok("environment", &[]).await, json!([]));
    assert_eq!(guest.ok("arguments", &[]).await, json!([]));
    assert_eq!(guest.ok("readInput", &[]).await, json!(""));
    guest.fails("connect", &[json!("127.0.0.1:80")], FailureCode::Error).await;
    guest.fails("listen", &[json!("127.0.0.1:0")], FailureCode::Error).await;
    guest.fails("resolve", &[json!("localhost")], FailureCode::Error).await;
}

#[tokio::test]
async fn nothing_leaks_from_one_call_to_the_next() {
    let guest = Guest::new("escape").await;
    for _ in 0..3 {
        assert_eq!(guest.ok("countCalls", &[]).await, json!(1), "an instance was used again");
    }
}

#[tokio::test]
async fn handles_are_limited() {
    let guest = Guest::new("hostile").await;
    guest.ok("openMany", &[json!(1_000)]).await;
    guest.fails("openMany", &[json!(1_000_000)], FailureCode::Trap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_slots_wait_for_each_other() {
    let guest = Arc::new(Guest::new("hostile").await);
    let calls = (0..300).map(|_| {
        let guest = Arc::clone(&guest);
        tokio::spawn(async move { guest.ok("ok", &[]).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("no panic"), json!("ok"));
    }
}
