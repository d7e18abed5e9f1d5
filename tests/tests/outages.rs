//! A host and its Postgres, each of which may be gone for a while.

use std::time::{Duration, Instant};

use aster_postgres::Embedded;
use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::{declined, order};
use aster_tests::{Database, Host, Options};
use serde_json::{Value, json};

/// A folder that the server's user can reach, whoever runs the test.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("aster-outage-")
        .tempdir_in("/tmp")
        .expect("a temporary folder can be made")
}

#[test]
fn a_private_postgres_survives_the_death_of_its_host_and_its_own() {
    let folder = folder();
    let options = Options::data_dir(folder.path());
    let mut host = Host::start(&options);
    host.set_up();
    ledger::seed(host.client(), "PROD-A", 100);
    let first = host.client().post("/api/orders", &order("ORD-1")).expect(200).json();
    host.kill();

    // Its Postgres is an orphan now. The next host takes over the folder and continues.
    let host = Host::start(&options);
    let client = host.client();
    let first = client.ended(first["workflowId"].as_str().unwrap());
    assert_eq!(first["status"], "COMPLETED");

    let pid_file = std::fs::read_to_string(folder.path().join("postgres/data/postmaster.pid"));
    let pid: i32 = pid_file.expect("a postmaster runs").lines().next().unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the postmaster can be killed");

    // A submission is refused until the server is back, and the same one is accepted then.
    let began = Instant::now();
    let second = loop {
        let answer = client.post("/api/orders", &declined("ORD-2"));
        if answer.status == 200 {
            break answer.json();
        }
        assert_eq!(answer.status, 503, "{}", String::from_utf8_lossy(&answer.body));
        assert!(answer.header("retry-after").is_some());
        assert!(began.elapsed() < Duration::from_secs(60), "Postgres doesn't come back:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    let second = client.ended(second["workflowId"].as_str().unwrap());
    assert_eq!(second["status"], "COMPENSATED");
    Ledger::read(client).check(&[("PROD-A".to_owned(), 100)].into(), &[first, second]);
}

#[test]
fn a_host_that_stops_in_order_stops_its_postgres() {
    let folder = folder();
    let mut host = Host::start(&Options::data_dir(folder.path()));
    assert_eq!(host.stop(), Some(0), "{}", host.log());
    assert!(!folder.path().join("postgres/data/postmaster.pid").exists(), "Postgres still runs");
}

#[test]
fn a_data_folder_or_a_port_that_another_host_uses_is_refused_by_name() {
    let folder = folder();
    let host = Host::start(&Options::data_dir(folder.path()));
    let mut second = Host::spawn(&Options::data_dir(folder.path()));
    assert_eq!(second.wait(Duration::from_secs(30)), Some(2));
    assert!(second.log().contains("in use by another host"), "{}", second.log());

    let listen = host.client().base().trim_start_matches("http://");
    let elsewhere = self::folder();
    let listen = listen.parse().ok();
    let mut third = Host::spawn(&Options { listen, ..Options::data_dir(elsewhere.path()) });
    assert_eq!(third.wait(Duration::from_secs(30)), Some(2));
    assert!(third.log().contains("can't listen on"), "{}", third.log());
    host.client().get("/readyz").expect(200);
}

#[test]
fn a_host_that_cannot_use_its_database_says_why_without_the_password() {
    let database = Database::create();
    let url = database.url();
    // The URL names a server over TCP, or a Unix socket with everything else in its query.
    let (base, query) = url.split_once('?').unwrap_or((&url, ""));
    let (server, _) = base.rsplit_once('/').expect("a URL has slashes");
    let address = server.trim_start_matches("postgres://");
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    let others = query.split('&').filter(|word| !word.is_empty() && !word.starts_with("user="));
    let others: String = others.map(|word| format!("{word}&")).collect();
    database.query("do $$ begin create role aster_none login connection limit 0; exception when duplicate_object or unique_violation then end $$");
    for (url, why) in [
        (format!("{server}/nothing_here?{query}"), "database \"nothing_here\" does not exist (3D000)"),
        (
            format!("postgres://{address}/postgres?{others}user=nobody_here&password=s3cret"),
            "role \"nobody_here\" does not exist (28000)",
        ),
        (
            format!("postgres://{address}/postgres?{others}user=aster_none&password=s3cret"),
            "too many connections for role \"aster_none\"",
        ),
        ("postgres://u:s3cret@127.0.0.1:1/aster".to_owned(), "Connection refused"),
        (
            "mysql://u:s3cret@127.0.0.1/aster".to_owned(),
            "it begins with `mysql://`, and Aster keeps its data in Postgres",
        ),
        ("u:s3cret@127.0.0.1/aster".to_owned(), "it is no URL: expected postgres://"),
        ("postgres://u:s3cret@127.0.0.1:99999/aster".to_owned(), "invalid port number"),
    ] {
        let began = Instant::now();
        let mut host = Host::spawn(&Options::database(&url));
        assert_eq!(host.wait(Duration::from_secs(30)), Some(2));
        assert!(host.log().contains(why), "{why}: {}", host.log());
        assert!(!host.log().contains("s3cret"), "{}", host.log());
        assert!(began.elapsed() < Duration::from_secs(10), "{why} took {:?}", began.elapsed());
    }
}

#[test]
fn a_host_without_its_database_answers_503_and_nothing_is_half_done() {
    let folder = folder();
    let start = || {
        let options = aster_postgres::Options::new(folder.path().to_owned());
        Embedded::start(options).expect("Postgres starts")
    };
    let postgres = start();
    let host = Host::start(&Options::database(postgres.url()));
    let client = host.client();
    host.set_up();
    ledger::seed(client, "PROD-A", 100);
    postgres.stop();

    let refused = client.post("/api/orders", &order("ORD-1"));
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    assert!(refused.header("retry-after").is_some());
    let not_ready = client.get("/readyz").expect(503).json();
    let why = not_ready["detail"].as_str().expect("a problem has a detail");
    assert!(why.contains("No such file") || why.contains("refused"), "{why}");
    let began = Instant::now();
    while !host.log().contains(&format!("error={why}")) {
        assert!(began.elapsed() < Duration::from_secs(20), "the log doesn't say `{why}`:\n{}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    client.get("/healthz").expect(200);

    let _postgres = start();
    let began = Instant::now();
    while client.get("/readyz").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(60), "the host doesn't find its database again");
        std::thread::sleep(Duration::from_millis(50));
    }
    let runs = client.get("/api/workflows").expect(200).json();
    assert_eq!(runs["items"], json!([]), "a refused order left something behind");
    let answer = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    let run: Value = client.ended(answer["workflowId"].as_str().unwrap());
    assert_eq!(run["status"], "COMPLETED");
    Ledger::read(client).check(&[("PROD-A".to_owned(), 100)].into(), &[run]);
}
