//! Uploads, versions, and the versions that runs in flight keep.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aster_tests::orders::order;
use aster_tests::{Client, Database, Host, Options, component};
use serde_json::{Value, json};

/// Two greetings, with time in between for an upload. Then a failure, so that the undo of the first step greets once
/// more.
const GREET: &str = r#"This module is test.greet.

To greetTwice with name: Text, produce Json with IO. It performs io with Greeter and Hostile:

  workflow:

    step before:
      Return Greeter.greet(name).
      compensate:
        Greeter.greet(name).

    step pause:
      Return Hostile.sleep(2500).

    step after:
      Return Greeter.greet(name).

    step fail:
      Return err of "on purpose".

    timeout: 60 seconds.
  .
"#;

fn digest_of(client: &Client, name: &str) -> Value {
    client.get(&format!("/api/components/{name}")).expect(200).json()["activeDigest"].clone()
}

#[test]
fn an_input_is_checked_against_the_definition_that_is_current_on_every_host() {
    let database = Database::create();
    let first = Host::start(&Options::database(&database.url()));
    let second = Host::start(&Options::database(&database.url()));
    let takes = |ty: &str| {
        format!(
            "This module is test.takes.\n\nTo take with thing: {ty}, produce Json with IO. It performs io:\n\n  workflow:\n\n    \
             step only:\n      Return thing.\n\n    timeout: 60 seconds.\n  .\n"
        )
    };
    let start = |host: &Host, thing: Value| host.client().post("/api/definitions/take/runs", &thing).status;
    first.deploy(&takes("Text"));
    for host in [&first, &second] {
        assert_eq!(start(host, json!("a")), 202);
        assert_eq!(start(host, json!(1)), 400);
    }
    first.deploy(&takes("Int"));
    for host in [&second, &first] {
        assert_eq!(start(host, json!(1)), 202, "what this host knew was old");
        assert_eq!(start(host, json!("a")), 400);
    }
}

#[test]
fn a_host_runs_code_that_another_host_compiled() {
    let database = Database::create();
    let folder = tempfile::tempdir().expect("a folder");
    let start = |name: &str| {
        let options = Options::database(&database.url())
            .environment("ASTER_CODE_KEY", &"0f".repeat(32))
            .argument("--cache-dir")
            .argument(&folder.path().join(name).display().to_string());
        Host::start(&options)
    };
    let mut first = start("first");
    first.push("orders");
    first.deploy(
        "This module is test.shared.\n\nTo validate with order: Json, produce Json with IO. It performs io with Orders:\n\n  \
         workflow:\n\n    step only:\n      Return Orders.validate(order).\n\n    timeout: 60 seconds.\n  .\n",
    );
    // The code is shared after the answer.
    let began = Instant::now();
    while database.query("select count(*)::text from compiled_code") != ["1"] {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing was handed on");
        std::thread::sleep(Duration::from_millis(10));
    }
    first.stop();
    assert_eq!(database.query("update component_bytes set bytes = '' returning 'gone'"), ["gone"]);
    let second = start("second");
    let headers = [("Content-Type", "application/json"), ("Prefer", "wait=20")];
    let order = serde_json::to_vec(&order("o-1")).expect("it is JSON");
    let run = second.client().request("POST", "/api/definitions/validate/runs", &headers, &order);
    let run = run.expect("the host answers").json();
    assert_eq!(run["status"], "COMPLETED", "{run}");
}

#[test]
fn runs_in_flight_keep_their_pinned_versions_also_for_compensations() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    client.put("/api/components/greeter", &component("greeter-v1"));
    let first = digest_of(client, "greeter");
    host.deploy(GREET);
    let start = || {
        let answer = client.post("/api/definitions/greetTwice/runs", &json!("Ada")).expect(202).json();
        answer["workflowId"].as_str().unwrap().to_owned()
    };
    let old = start();
    while !client.log(&old).contains(&"STEP_STARTED pause".to_owned()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let uploaded = client.put("/api/components/greeter", &component("greeter-v2"));
    assert!(matches!(uploaded.status, 200 | 201));
    let second = digest_of(client, "greeter");
    assert_ne!(first, second);
    assert!(
        !client.log(&old).contains(&"STEP_COMPLETED pause".to_owned()),
        "the machine was too slow to tell"
    );
    let new = start();

    for (id, digest) in [(old, first), (new, second)] {
        assert_eq!(client.ended(&id)["status"], "COMPENSATED");
        let events = client.events(&id);
        let greetings: Vec<&Value> = events
            .as_array()
            .unwrap()
            .iter()
            .map(|event| &event["payload"])
            .filter(|payload| payload["component"] == "greeter")
            .collect();
        assert_eq!(greetings.len(), 3, "before, after and the undo of before: {events:#}");
        assert!(greetings.iter().all(|payload| payload["digest"] == digest), "{greetings:#?}");
    }
}

#[test]
fn a_version_that_breaks_a_deployed_definition_is_refused_with_the_reason() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    host.push("hostile");
    client.put("/api/components/greeter", &component("greeter-v1"));
    host.deploy(GREET);
    let before = digest_of(client, "greeter");
    let refused = client.put("/api/components/greeter", &component("greeter-v3"));
    assert_eq!(refused.status, 409, "{}", String::from_utf8_lossy(&refused.body));
    let detail = refused.json().to_string();
    assert!(detail.contains("greetTwice") && detail.contains("greet"), "{detail}");
    assert_eq!(digest_of(client, "greeter"), before);

    // A staged version does no harm.
    let staged = client.put("/api/components/greeter?activate=false", &component("greeter-v3"));
    assert!(matches!(staged.status, 200 | 201));
    let digest = staged.json()["digest"].clone();
    assert_eq!(client.post("/api/components/greeter/activate", &json!({"digest": digest})).status, 409);
    assert_eq!(digest_of(client, "greeter"), before);
    // A version that nothing pins can be deleted; an active one can't.
    let path = |digest: &Value| format!("/api/components/greeter/versions/{}", digest.as_str().unwrap());
    assert_eq!(client.delete(&path(&digest)).status, 204);
    assert_eq!(client.delete(&path(&before)).status, 409);
}

#[test]
fn the_same_bytes_twice_are_one_version_and_an_older_one_can_be_activated_again() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    let first = client.put("/api/components/greeter", &component("greeter-v1")).expect(201).json();
    let again = client.put("/api/components/greeter", &component("greeter-v1")).expect(200).json();
    assert_eq!(first["digest"], again["digest"]);
    assert_eq!(first["uploadedAt"], again["uploadedAt"]);
    client.put("/api/components/greeter", &component("greeter-v2")).expect(201);
    let known = client.get("/api/components/greeter").expect(200).json();
    assert_eq!(known["versions"].as_array().map(Vec::len), Some(2), "{known:#}");
    assert_ne!(known["activeDigest"], first["digest"]);
    let activated = client.post("/api/components/greeter/activate", &json!({"digest": first["digest"]}));
    assert!(matches!(activated.status, 200 | 204));
    assert_eq!(digest_of(client, "greeter"), first["digest"]);

    let path = format!("/api/components/greeter/versions/{}", first["digest"].as_str().unwrap());
    let version = client.get(&path).expect(200).json();
    assert!(version["wit"].as_str().unwrap().contains("greet"), "{version}");
    let bytes = client.request("GET", &path, &[("Accept", "application/wasm")], &[]).unwrap().expect(200);
    assert_eq!(bytes.body, component("greeter-v1"));
}

#[test]
fn the_refusal_of_an_invalid_upload_says_what_it_is() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    let whole = component("greeter-v1");
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("empty", Vec::new(), "empty"),
        ("nonsense", b"#!/bin/sh\necho hello\n".to_vec(), "not WebAssembly"),
        ("core module", core_module, "core"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "cut off"),
        ("unknown import", component("stranger"), "acme:secret/vault"),
    ];
    for (case, bytes, said) in cases {
        let refused = client.put("/api/components/bad", &bytes);
        let body = String::from_utf8_lossy(&refused.body).into_owned();
        assert!((400..500).contains(&refused.status), "{case}: {} {body}", refused.status);
        assert!(body.contains(said), "{case}: {body}");
    }
    assert_eq!(client.get("/api/components/bad").status, 404);
    assert_eq!(client.put("/api/components/9%20lives", &whole).status, 400);
}

/// A component within all bounds that takes any host more than a minute to compile.
fn laborious(variant: usize) -> Vec<u8> {
    let begin = "loop ".repeat(80);
    let end = "(br_if 0 (i32.wrap_i64 (local.get 0))) end ".repeat(80);
    let used: String = (0..1_000)
        .map(|local| format!("(local.set {local} (i64.add (local.get {local}) (i64.const {variant}))) "))
        .collect();
    let function = format!("(func (local {}) {begin} {used} {end})", "i64 ".repeat(1_000));
    wat::parse_str(format!("(component (core module {}))", function.repeat(12))).expect("it is a component")
}

/// Returns how many processes compile for the host.
fn compilers(host: &Host) -> usize {
    let parent = format!("PPid:\t{}", host.pid());
    let children = std::fs::read_dir("/proc").expect("it is Linux").flatten().filter(|entry| {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        read("status").lines().any(|line| line == parent) && read("cmdline").contains("compile-component")
    });
    children.count()
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends an upload without waiting for the answer.
fn send_upload(host: &Host, tenant: &str, bytes: &[u8]) -> TcpStream {
    let address = host.client().base().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).expect("the host listens");
    let head = format!(
        "PUT /api/components/slow HTTP/1.1\r\nHost: {address}\r\nX-Tenant-Id: {tenant}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).expect("the host reads");
    stream.write_all(bytes).expect("the host reads");
    stream
}

#[test]
fn uploads_whose_clients_have_left_delay_nobody() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let gone: Vec<TcpStream> =
        (0..3).map(|n| send_upload(&host, &format!("gone-{n}"), &laborious(n))).collect();
    until("two are compiled", || compilers(&host) == 2);
    drop(gone);
    until("nothing is compiled", || compilers(&host) == 0);
    host.push("greeter-v1");
}

#[test]
fn a_host_that_is_stopped_while_it_compiles_ends_at_once() {
    let database = Database::create();
    let mut host = Host::start(&Options::database(&database.url()));
    let _waits = send_upload(&host, "default", &laborious(1));
    until("it is compiled", || compilers(&host) == 1);
    let began = Instant::now();
    assert_eq!(host.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
}

#[test]
fn a_component_that_cannot_be_loaded_is_set_aside_and_calls_to_it_fail() {
    let database = Database::create();
    let mut first = Host::start(&Options::database(&database.url()));
    first.push("hostile");
    first.client().put("/api/components/greeter", &component("greeter-v1")).expect(201);
    first.deploy(GREET);
    let run = first.client().post("/api/definitions/greetTwice/runs", &json!("Ada")).expect(202).json();
    let run = run["workflowId"].as_str().expect("an id");
    until("it pauses", || first.client().log(run).contains(&"STEP_STARTED pause".to_owned()));
    first.kill();
    // A newer host with stricter bounds would see the same: the bytes exist, but can't be loaded.
    let spoil = "update component_bytes b set bytes = 'spoilt' from component c
        where c.active_digest = b.digest and c.name = 'greeter' returning c.name";
    assert_eq!(database.query(spoil), ["greeter"]);
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options::database(&database.url())
        .argument("--cache-dir")
        .argument(&folder.path().join("code").display().to_string());
    let second = Host::start(&options);
    until("its log says so", || {
        second.log().lines().any(|line| {
            line.contains("ERROR")
                && line.contains("set aside")
                && line.contains("greeter")
                && line.contains("sha256:")
        })
    });
    let ended = second.client().ended(run);
    assert_eq!(ended["status"], "COMPENSATION_FAILED", "the undo of `before` calls it, too: {ended:#}");
    assert_eq!(ended["error"]["code"], "UNAVAILABLE", "{ended:#}");
    assert!(
        ended["error"]["message"].to_string().contains("`greeter` can't be loaded on this host"),
        "{ended:#}"
    );
    let refused = second.client().post("/api/definitions/greetTwice/runs", &json!("Ada"));
    assert_eq!(refused.status, 409);
    assert!(refused.json()["detail"].to_string().contains("`greeter` can't be loaded"), "{}", refused.json());
}
