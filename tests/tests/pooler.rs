//! A host that reaches its database through PgBouncer. The tests are skipped if that isn't installed.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::order;
use aster_tests::{Database, Host, Options};
use sqlx::postgres::PgConnectOptions;

struct Pooler {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// Returns `None` if there is no PgBouncer on this machine.
    fn start(database: &Database, mode: &str) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let Some(program) = program.into_iter().find(|program| Path::new(program).exists()) else {
            #[expect(clippy::print_stderr, reason = "shown with the test")]
            {
                eprintln!("skipped: PgBouncer is not installed");
            }
            return None;
        };
        let server = PgConnectOptions::from_str(&database.url()).expect("tests have a URL");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("there is a free port").port();
        let folder = tempfile::Builder::new().prefix("aster-pooler-").tempdir_in("/tmp");
        let folder = folder.expect("a temporary folder can be made");
        let host =
            server.get_socket().map_or(server.get_host().to_owned(), |path| path.display().to_string());
        let name = server.get_database().expect("the URL names a database");
        let (user, server_port) = (server.get_username(), server.get_port());
        let configuration = format!(
            "[databases]\n{name} = host={host} port={server_port} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 40\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, configuration).expect("the folder takes a file");
        // PgBouncer doesn't run as root.
        let for_all =
            |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        for_all(folder.path(), 0o755).and_then(|()| for_all(&file, 0o644)).expect("it is our own");
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", &account(&host)]);
        }
        let child =
            command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().expect("PgBouncer can be started");
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "PgBouncer doesn't answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, url: format!("postgres://{user}@127.0.0.1:{port}/{name}"), _folder: folder })
    }
}

/// Returns the account that may reach the server: the owner of its socket's folder, or any account over TCP.
fn account(host: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let owner = Path::new(host).is_absolute().then(|| std::fs::metadata(host).expect("the folder is there"));
    let Some(owner) = owner else { return "nobody".to_owned() };
    let id = Command::new("id").args(["-un", &owner.uid().to_string()]).output().expect("`id` can be run");
    String::from_utf8_lossy(&id.stdout).trim().to_owned()
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_host_works_through_pgbouncer_in_session_mode() {
    let database = Database::create();
    let Some(pooler) = Pooler::start(&database, "session") else { return };
    let host = Host::start(&Options::database(&pooler.url));
    host.set_up();
    ledger::seed(host.client(), "PROD-A", 100);
    let runs: Vec<_> = (0..20)
        .map(|n| host.client().post("/api/orders", &order(&format!("ORD-{n}"))).expect(200).json())
        .map(|run| host.client().ended(run["workflowId"].as_str().expect("a run has an id")))
        .collect();
    assert!(runs.iter().all(|run| run["status"] == "COMPLETED"));
    Ledger::read(host.client()).check(&[("PROD-A".to_owned(), 100)].into(), &runs);
}

#[test]
fn a_pooler_in_transaction_mode_is_refused_in_one_sentence() {
    for mode in ["transaction", "statement"] {
        let database = Database::create();
        let Some(pooler) = Pooler::start(&database, mode) else { return };
        let mut host = Host::spawn(&Options::database(&pooler.url));
        assert_eq!(host.wait(Duration::from_secs(30)), Some(2));
        let log = host.log();
        assert!(log.contains("connect to Postgres itself, or set `pool_mode = session`"), "{mode}: {log}");
        let tables = "select count(*)::text from pg_tables where schemaname = 'public'";
        assert_eq!(database.query(tables), ["0"], "{mode}: something was made");
    }
}
