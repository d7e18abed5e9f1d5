//! The host's log for operators: the ends of runs, refusals, and people's acts, one line each.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aster_tests::orders::{declined, order};
use aster_tests::{Client, Database, Host, Options, binary, ledger};
use serde_json::{Value, json};

/// The flight's undo never works.
const TRIP: &str = r#"
This module is logs.trips.

To bookTrip with trip: Json, produce Json with IO. It performs io with Bank:

  workflow:

    step book_flight:
      Return "seat 12A".
      compensate:
        Return err of "this fare is never refunded".

    step book_hotel:
      Return err of trip.name.

    timeout: 60 seconds.
    trigger: POST "/api/trips" keyed by trip.tripId.
  .
"#;

/// Starts a host that logs as JSON, with the trip deployed.
fn host(database: &Database) -> Host {
    let host = Host::start(&Options::database(&database.url()).argument("--log-format").argument("json"));
    host.set_up();
    let bank = host.client().put("/api/components/bank", &aster_tests::component("greeter-v1"));
    assert_eq!(bank.status, 201);
    host.deploy(TRIP);
    host
}

/// Returns the lines for which `is_it` holds. Waits for at least one, since another thread writes them.
#[track_caller]
fn lines(host: &Host, is_it: impl Fn(&Value) -> bool) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let log = host.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        let found: Vec<_> = all.filter(&is_it).collect();
        if !found.is_empty() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no such line:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the one line about the end of a run.
#[track_caller]
fn end(host: &Host, run: &Value) -> Value {
    let mut ends = lines(host, |line| {
        line["run.id"] == run["workflowId"] && !line["run.status"].is_null() && line["level"] != "DEBUG"
    });
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends.remove(0)
}

#[test]
fn each_end_of_a_run_is_one_line_at_its_level() {
    let database = Database::create();
    let host = host(&database);
    let client = host.client();
    ledger::seed(client, "PROD-A", 100);

    let run = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    client.ended(run["workflowId"].as_str().unwrap());
    let line = end(&host, &run);
    assert_eq!((&line["level"], &line["run.status"]), (&json!("INFO"), &json!("COMPLETED")), "{line}");
    assert_eq!(line["run.key"], "ORD-1");
    assert_eq!(line["tenant.id"], "default");
    assert!(line["definition.name"].as_str().unwrap().ends_with(".fulfillOrder"), "{line}");
    assert!(line["duration_ms"].as_u64().is_some_and(|took| took < 60_000), "{line}");

    let run = client.post("/api/orders", &declined("ORD-2")).expect(200).json();
    client.ended(run["workflowId"].as_str().unwrap());
    let line = end(&host, &run);
    assert_eq!((&line["level"], &line["run.status"]), (&json!("WARN"), &json!("COMPENSATED")), "{line}");
    assert_eq!((&line["run.cause"], &line["error.code"]), (&json!("STEP"), &json!("ERROR")));
    assert_eq!(line["step.name"], "charge_payment");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("charge_payment") && message.contains(line["error.message"].as_str().unwrap()));

    let trip = json!({"tripId": "trip-1", "name": "no room is free"});
    let run = client.post("/api/trips", &trip).expect(200).json();
    client.ended(run["workflowId"].as_str().unwrap());
    let line = end(&host, &run);
    assert_eq!((&line["level"], &line["run.status"]), (&json!("ERROR"), &json!("COMPENSATION_FAILED")));
    assert_eq!((&line["run.key"], &line["error.message"]), (&json!("trip-1"), &json!("no room is free")));
    assert_eq!(line["compensation.failed"], "book_flight (ERROR: this fare is never refunded)");

    // An operator's act is logged with the actor and the reason, and then the run's new end.
    let path =
        format!("/api/workflows/{}/compensations/book_flight/skip", run["workflowId"].as_str().unwrap());
    let skip = json!({"reason": "written off"});
    client.post_with(&path, &[("X-User-Id", "grace"), ("X-Request-Id", "repair-7")], &skip);
    let line = &lines(&host, |line| line["order.act"] == "skip")[0];
    assert_eq!((&line["level"], &line["user.id"]), (&json!("INFO"), &json!("grace")));
    assert_eq!((&line["order.reason"], &line["step.name"]), (&json!("written off"), &json!("book_flight")));
    assert_eq!((&line["run.id"], &line["span"]["request.id"]), (&run["workflowId"], &json!("repair-7")));
    let ends =
        lines(&host, |line| line["run.id"] == run["workflowId"] && line["run.status"] == "COMPENSATED");
    assert_eq!(ends[0]["level"], "WARN");
}

#[test]
fn a_refusal_is_logged_with_the_request_id_of_its_client() {
    let database = Database::create();
    let host = host(&database);
    let client = host.client();
    let answer = client.post_with("/api/orders", &[("X-Request-Id", "web-1:42")], &json!({"orderId": 7}));
    assert_eq!((answer.status, answer.header("x-request-id")), (400, Some("web-1:42")));
    let line = &lines(&host, |line| line["span"]["request.id"] == "web-1:42" && line["level"] == "INFO")[0];
    assert_eq!((&line["problem.kind"], &line["http.status"]), (&json!("invalid-input"), &json!(400)));
    assert_eq!(line["span"]["http.path"], "/api/orders");
    assert!(line["message"].as_str().unwrap().contains("the input doesn't fit"), "{line}");

    // An id that isn't plain is replaced, even if nothing is refused.
    let answer = client.request("GET", "/healthz", &[("X-Request-Id", "a b{c}")], &[]).unwrap();
    let id = answer.header("x-request-id").expect("an id is answered");
    assert!(id.len() == 36 && id != "a b{c}", "{id}");
    let answer = client.get("/api/nowhere");
    let id = json!(answer.header("x-request-id").unwrap());
    assert_eq!(lines(&host, |line| line["span"]["request.id"] == id)[0]["problem.kind"], "not-found");

    // A client that repeats a refused request doesn't fill the log.
    for _ in 0..400 {
        client.get("/api/nowhere");
    }
    client.get("/api/workflows").expect(200);
    let told = lines(&host, |line| line["problem.kind"] == "not-found").len();
    assert!((2..=400).contains(&told), "{told}");
}

#[test]
fn text_from_a_client_breaks_no_line() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let bank = host.client().put("/api/components/bank", &aster_tests::component("greeter-v1"));
    assert_eq!(bank.status, 201);
    host.deploy(TRIP);
    let forged = "\n2026-01-01T00:00:00Z ERROR forged\r\n\u{1b}[2J\u{202e}";
    let trip = json!({"tripId": format!("trip{forged}"), "name": format!("{forged}{}", "x".repeat(100_000))});
    let run = host.client().post("/api/trips", &trip).expect(200).json();
    host.client().ended(run["workflowId"].as_str().unwrap());
    let end = format!("run {} of logs.trips.bookTrip failed", run["workflowId"].as_str().unwrap());
    let began = Instant::now();
    while !host.log().contains(&end) {
        assert!(began.elapsed() < Duration::from_secs(20), "no such line:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = host.log();
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\r']), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z ERROR forged")), "{log}");
    let line = log.lines().find(|line| line.contains(&end)).unwrap();
    assert!(line.contains(r#"run.key="trip\n2026-01-01T00:00:00Z ERROR forged\r\n\u{1b}[2J"#), "{line}");
    assert!(line.len() < 10_000, "{}", line.len());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_its_lines_are_counted() {
    let database = Database::create();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = listener.expect("there is a free port").to_string();
    let mut child = Command::new(binary())
        .args(["serve", "--listen", &address, "--database-url", &database.url()])
        .env("ASTER_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the host's binary can be started");
    let client = Client::new(format!("http://{address}"));
    let began = Instant::now();
    while client.request("GET", "/readyz", &[], &[]).map_or(true, |answer| answer.status != 200) {
        assert!(began.elapsed() < Duration::from_secs(60), "not ready in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let lost = || {
        let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("aster_log_lines_lost_total "));
        line.expect("the metric is there").parse::<u64>().unwrap()
    };
    // The pipe takes 64 KiB, and the host keeps some thousands of lines in memory.
    let began = Instant::now();
    while lost() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no line is lost");
        for _ in 0..200 {
            client.get("/api/nowhere");
        }
    }
    let bank = client.put("/api/components/bank", &aster_tests::component("greeter-v1"));
    assert_eq!(bank.status, 201);
    let headers = [("Content-Type", "text/plain")];
    let deployed = client.request("POST", "/api/definitions", &headers, TRIP.as_bytes()).unwrap();
    assert_eq!(deployed.status, 201);
    let run = client.post("/api/trips", &json!({"tripId": "trip-1", "name": "no room"})).expect(200).json();
    assert_eq!(client.ended(run["workflowId"].as_str().unwrap())["status"], "COMPENSATION_FAILED");

    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn an_unknown_level_or_format_is_refused_by_name() {
    let refused = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", "mysql://u:secret@h/d"])
            .args(arguments)
            .envs(variables.iter().copied())
            .output()
            .expect("the host's binary can be started");
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout.len(), 0);
        let said = String::from_utf8(output.stderr).expect("it says so in UTF-8");
        assert!(!said.contains("secret"), "{said}");
        said
    };
    let said = refused(&["--log", "inof"], &[]);
    assert!(
        said.contains("--log") && said.contains("`inof` is not a level: expected off, error, warn"),
        "{said}"
    );
    let said = refused(&[], &[("ASTER_LOG", "aster_host=loud")]);
    assert!(said.contains("`aster_host=loud`: `loud` is not a level"), "{said}");
    let said = refused(&["--log-format", "xml"], &[]);
    assert!(said.contains("text") && said.contains("json"), "{said}");

    let help = Command::new(binary()).args(["serve", "--help"]).output().expect("it can be asked for help");
    let help = String::from_utf8(help.stdout).expect("it helps in UTF-8");
    for named in ["--log <LEVEL|FILTER>", "ASTER_LOG", "--log-format <FORMAT>", "ASTER_LOG_FORMAT"] {
        assert!(help.contains(named), "{named}: {help}");
    }
}

#[test]
fn a_takeover_is_logged_with_the_dead_host_and_its_number_of_runs() {
    let database = Database::create();
    let options = Options::database(&database.url()).argument("--lease").argument("1s");
    let options = options.argument("--log-format").argument("json");
    let mut dead = Host::start(&options);
    let slow = dead.client().put("/api/components/slow-partner", &aster_tests::component("hostile"));
    assert_eq!(slow.status, 201);
    dead.deploy(
        r#"
This module is logs.asking.

To askPartner with millis: Json, produce Json with IO. It performs io with SlowPartner:

  workflow:

    step ask:
      Return SlowPartner.sleep(millis).

    timeout: 60 seconds.
  .
"#,
    );
    for _ in 0..3 {
        dead.client().post("/api/definitions/askPartner/runs", &json!(10_000)).expect(202);
    }
    let name = dead.client().base().trim_start_matches("http://").to_owned();
    dead.kill();
    let heir = Host::start(&options);
    let is_released = |line: &Value| line["host.name"] == json!(name) && !line["runs"].is_null();
    assert_eq!(lines(&heir, is_released)[0]["runs"], 3);
    let is_dead = |line: &Value| line["host.name"] == json!(name) && line["level"] == "WARN";
    assert_eq!(lines(&heir, is_dead).len(), 1);
    let is_taken = |line: &Value| line["message"] == "took over 3 runs whose host is gone";
    lines(&heir, is_taken);
}
