//! The bounds of a host, its retention, and its metrics.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aster_tests::{Answer, Database, Host, Options};
use serde_json::{Value, json};

/// Deploys a workflow of one step, which waits for as long as its input says.
fn deploy_pause(host: &Host) {
    host.push("hostile");
    host.deploy(
        "This module is test.limits.\n\nTo pause with request: Json, produce Json with IO. It performs io with Hostile:\n\n  \
         workflow:\n\n    trigger: POST \"/api/pauses\" keyed by request.id.\n\n    step only:\n      \
         Return Hostile.sleep(request.millis).\n      timeout: 60 seconds.\n\n    timeout: 120 seconds.\n  .\n",
    );
}

/// The input of that workflow.
fn pause(id: &str, millis: u64) -> Value {
    json!({"id": id, "millis": millis})
}

/// Returns the value of a metric, named with its labels.
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
    deploy_pause(&host);
    assert_eq!(metric(&host, "workflow_result_futures_cleaned_total"), 0);

    let began = Instant::now();
    let start = |id: &str, wait: &str| {
        host.client().post_with("/api/definitions/pause/runs", &[("Prefer", wait)], &pause(id, 30_000))
    };
    let answer = start("a", "wait=100000").expect(202);
    assert!(began.elapsed() >= Duration::from_millis(300), "it wasn't held");
    assert!(began.elapsed() < Duration::from_secs(25), "held for {:?}", began.elapsed());
    assert_eq!(answer.header("preference-applied"), None);
    assert_eq!(answer.json()["status"], "RUNNING");
    assert_eq!(metric(&host, "workflow_result_futures_cleaned_total"), 1);
    // A client that gave up by itself doesn't count as cleaned.
    start("b", "wait=0").expect(202);
    assert_eq!(metric(&host, "workflow_result_futures_cleaned_total"), 1);
}

#[test]
fn steps_are_measured() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    deploy_pause(&host);
    let started = host.client().post("/api/pauses", &pause("a", 20)).expect(200).json();
    host.client().ended(started["workflowId"].as_str().expect("an id"));
    let count = |labels: &str| metric(&host, &format!("aster_step_{labels}"));
    assert_eq!(count("duration_seconds_count{component=\"hostile\",outcome=\"completed\"}"), 1);
    assert_eq!(count("duration_seconds_bucket{component=\"hostile\",outcome=\"completed\",le=\"0.01\"}"), 0);
    assert!(count("fuel_sum{component=\"hostile\",outcome=\"completed\"}") > 0);
}

#[test]
fn a_full_host_refuses_new_runs_and_answers_for_those_it_has() {
    let database = Database::create();
    let options =
        Options::database(&database.url()).argument("--max-active-runs=1").argument("--max-ready-runs=2");
    let host = Host::start(&options);
    deploy_pause(&host);
    let client = host.client();
    let send = |request: Value| client.post("/api/pauses", &request);
    let id = |answer: Value| answer["workflowId"].as_str().expect("an id").to_owned();

    // One run has the only slot, and two may wait for it.
    let first = id(send(pause("a", 15_000)).expect(200).json());
    let began = Instant::now();
    while client.get(&format!("/api/workflows/{first}")).json()["status"] != "RUNNING" {
        assert!(began.elapsed() < Duration::from_secs(10), "it doesn't begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    let waiting = ["b", "c"].map(|key| id(send(pause(key, 1)).expect(200).json()));

    let check_refused = |answer: Answer| {
        let answer = answer.expect(503);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["type"], "/problems/overloaded");
        let seconds: u32 = answer.header("retry-after").expect("a header").parse().expect("seconds");
        assert!(seconds >= 1);
    };
    check_refused(send(pause("d", 1)));
    check_refused(client.post("/api/definitions/pause/runs", &pause("e", 1)));
    let runs = client.get("/api/workflows").expect(200).json();
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(3), "a refused one was recorded: {runs}");

    // A key that is known is answered.
    assert_eq!(id(send(pause("a", 15_000)).expect(200).json()), first);
    assert_eq!(id(send(pause("c", 1)).expect(200).json()), waiting[1]);
    let answer = client.post("/api/definitions/pause/runs", &pause("b", 1)).expect(202).json();
    assert_eq!((&answer["workflowId"], &answer["created"]), (&json!(waiting[0]), &json!(false)));
    assert_eq!(send(pause("c", 2)).expect(409).json()["type"], "/problems/idempotency-key-reused");

    // When there is room again, the refused run is accepted.
    let began = Instant::now();
    let last = loop {
        let answer = send(pause("d", 1));
        if answer.status == 200 {
            break id(answer.json());
        }
        check_refused(answer);
        assert!(began.elapsed() < Duration::from_secs(60), "it never recovers");
        std::thread::sleep(Duration::from_millis(100));
    };
    for id in [&first, &waiting[0], &waiting[1], &last] {
        assert_eq!(client.ended(id)["status"], "COMPLETED");
    }
}

#[test]
fn a_run_whose_retention_is_over_is_deleted_and_its_key_is_free() {
    let database = Database::create();
    let mut host = Host::start(&Options::database(&database.url()));
    deploy_pause(&host);
    let send = |host: &Host, request: Value| host.client().post("/api/pauses", &request).expect(200).json();
    for key in ["old", "young"] {
        let started = send(&host, pause(key, 1));
        host.client().ended(started["workflowId"].as_str().expect("an id"));
    }
    assert_eq!(host.stop(), Some(0));

    // The row now looks as if the run had been accepted in 2024.
    let old = "018f0000-0000-7000-8000-000000000000";
    let id = database.query("select workflow_id::text from workflow_run where key = 'old'").remove(0);
    for table in ["workflow_run", "workflow_events", "workflow_key"] {
        let moved =
            format!("update {table} set workflow_id = '{old}' where workflow_id = '{id}' returning 'moved'");
        assert!(!database.query(&moved).is_empty(), "{table}");
    }
    database.query("update workflow_run set updated_at = '2024-05-01' where key = 'old' returning key");

    let mut host = Host::start(&Options::database(&database.url()));
    let status = |host: &Host, key: &str| host.client().get(&format!("/api/pauses/{key}/status")).status;
    assert_eq!(status(&host, "old"), 200, "it is kept, unless somebody says otherwise");
    assert_eq!(host.stop(), Some(0));

    let host = Host::start(&Options::database(&database.url()).argument("--retention=30d"));
    let began = Instant::now();
    while status(&host, "old") != 404 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is still there: {}", host.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    host.client().get(&format!("/api/workflows/{old}/events")).expect(404);
    assert_eq!(status(&host, "young"), 200);
    assert_eq!(send(&host, pause("old", 2))["message"], "the run is accepted");
}

#[test]
fn clients_that_do_not_finish_their_requests_hold_nothing_for_long() {
    let database = Database::create();
    let options = Options::database(&database.url()).argument("--request-timeout=500ms");
    let mut host = Host::start(&options);
    let address = host.client().base().trim_start_matches("http://").to_owned();
    let connect = |bytes: &[u8]| {
        let mut client = TcpStream::connect(&address).expect("the host listens");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("it is a time");
        client.write_all(bytes).expect("it is taken");
        client
    };
    let body = b"PUT /api/components/large HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx";
    let stalled: Vec<TcpStream> = (0..300)
        .map(|n| match n % 3 {
            0 => connect(b""),
            1 => connect(b"POST /api/orders HTTP/1.1\r\nHost"),
            _ => connect(body),
        })
        .collect();
    for (n, mut client) in stalled.into_iter().enumerate() {
        let mut answer = String::new();
        let end = client.read_to_string(&mut answer);
        assert!(end.is_ok(), "{n}: {end:?}");
        let expected = match n % 3 {
            0 => "",
            1 => "HTTP/1.1 408 ",
            // As many uploads as allowed at once are given up, and the others were refused.
            _ if answer.starts_with("HTTP/1.1 503 ") => "HTTP/1.1 503 ",
            _ => "HTTP/1.1 408 ",
        };
        assert!(answer.starts_with(expected), "{n}: {answer}");
    }
    assert_eq!(metric(&host, "aster_http_too_slow_total{in=\"head\"}"), 100);
    assert!(metric(&host, "aster_http_too_slow_total{in=\"body\"}") >= 1);

    // Such a client doesn't delay the end of the host either.
    let _half = connect(b"GET /hea");
    let began = Instant::now();
    assert_eq!(host.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// The host has nothing else to do meanwhile: for longer than its watchdog allows, it commits nothing.
#[test]
fn a_step_of_many_calls_is_no_stall() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    host.push("hostile");
    let calls = "      Let pause be Hostile.sleep(300).\n".repeat(45);
    let calls: String = calls
        .lines()
        .enumerate()
        .map(|(n, line)| line.replace("pause", &format!("pause{n}")) + "\n")
        .collect();
    host.deploy(&format!(
        "This module is test.limits.\n\nTo pauses, produce Json with IO. It performs io with Hostile:\n\n  workflow:\n\n    \
         step only:\n{calls}      Return 1.\n      timeout: 60 seconds.\n\n    timeout: 120 seconds.\n  .\n"
    ));
    let started = host.client().post("/api/definitions/pauses/runs", &Value::Null).expect(202).json();
    let ended = host.client().ended(started["workflowId"].as_str().expect("an id"));
    assert_eq!(ended["status"], "COMPLETED", "{ended:#}");
    assert_eq!(metric(&host, "aster_stalls_total"), 0);
}
