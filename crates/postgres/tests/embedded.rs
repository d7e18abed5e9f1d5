//! Tests with the real Postgres of this machine. Under root it runs as another user, and one test runs all others without
//! root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aster_postgres::{Embedded, Error, Options};
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// The variable that names the data folder of [`a_host_for_other_tests`].
const HOST_FOLDER: &str = "ASTER_TEST_HOST_FOLDER";

/// A folder that only its owner can enter.
fn private_folder() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn options(data_dir: &Path) -> Options {
    Options { durable: false, max_connections: 10, ..Options::new(data_dir) }
}

fn start(data_dir: &Path) -> Embedded {
    Embedded::start(options(data_dir)).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a statement and returns the first column of its row.
fn query(url: &str, statement: &'static str) -> Result<i32, sqlx::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query_scalar(statement).fetch_one(&mut connection).await
    })
}

fn execute(url: &str, statement: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    });
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed()).unwrap()
}

fn is_alive(raw: u32) -> bool {
    // A process that has ended but was not reaped yet does not count.
    let is_zombie =
        fs::read_to_string(format!("/proc/{raw}/status")).is_ok_and(|status| status.contains("State:\tZ"));
    test_kill_process(pid(raw)).is_ok() && !is_zombie
}

/// A host in a process of its own, which can be killed.
struct Host(Child);

impl Host {
    fn start(data_dir: &Path) -> Self {
        let host = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_host_for_other_tests"])
            .env(HOST_FOLDER, data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the host is ready", || data_dir.join("ready").exists());
        Self(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: if the variable is set, this is a host that runs until it is killed.
#[test]
fn a_host_for_other_tests() {
    let Some(data_dir) = std::env::var_os(HOST_FOLDER) else { return };
    let data_dir = Path::new(&data_dir);
    let postgres = start(data_dir);
    fs::write(data_dir.join("ready.new"), postgres.pid().unwrap().to_string()).unwrap();
    fs::rename(data_dir.join("ready.new"), data_dir.join("ready")).unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn data_outlives_a_stop() {
    let folder = private_folder();
    let first = start(folder.path());
    let server = first.pid().unwrap();
    execute(first.url(), "create table kept as select 41 as n");
    first.stop();
    assert!(!is_alive(server));

    let second = start(folder.path());
    assert_eq!(query(second.url(), "select n + 1 from kept").unwrap(), 42);
}

#[test]
fn committed_data_is_on_the_disk_by_default() {
    let folder = private_folder();
    let postgres = Embedded::start(Options::new(folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let durable = "select count(*)::int from pg_settings \
         where name in ('fsync', 'synchronous_commit', 'full_page_writes') and setting = 'on'";
    assert_eq!(query(postgres.url(), durable).unwrap(), 3);
}

#[test]
fn nobody_else_gets_in() {
    let folder = private_folder();
    let postgres = start(folder.path());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("postgres")), 0o700);
    assert_eq!(mode(folder.path()) & 0o007, 0);
    assert_eq!(
        query(
            postgres.url(),
            "select count(*)::int from pg_hba_file_rules where type <> 'local' and auth_method <> 'reject'"
        )
        .unwrap(),
        0
    );
    assert_eq!(query(postgres.url(), "select 1 where current_setting('listen_addresses') = ''").unwrap(), 1);
}

#[test]
fn a_second_host_on_the_folder_is_refused() {
    let folder = private_folder();
    let postgres = start(folder.path());
    let error = Embedded::start(options(folder.path())).unwrap_err();
    assert!(matches!(error, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains("is in use by another host (pid "), "{error}");
    assert_eq!(query(postgres.url(), "select 1").unwrap(), 1);
}

#[test]
fn a_server_that_is_killed_comes_back() {
    let folder = private_folder();
    let postgres = start(folder.path());
    for _ in 0..2 {
        let killed = postgres.pid().unwrap();
        kill_process(pid(killed), Signal::KILL).unwrap();
        wait_until("another server runs", || postgres.pid().is_some_and(|server| server != killed));
        wait_until("it takes connections", || query(postgres.url(), "select 1").is_ok());
    }
    assert_eq!(postgres.given_up(), None);
}

#[test]
fn the_server_of_a_killed_host_is_replaced() {
    let folder = private_folder();
    let mut host = Host::start(folder.path());
    let orphan: u32 = fs::read_to_string(folder.path().join("ready")).unwrap().parse().unwrap();
    host.0.kill().unwrap();
    host.0.wait().unwrap();
    assert!(is_alive(orphan));

    let postgres = start(folder.path());
    assert!(!is_alive(orphan));
    assert_eq!(query(postgres.url(), "select 1").unwrap(), 1);
}

#[test]
fn a_folder_whose_host_and_server_were_both_killed_recovers() {
    let folder = private_folder();
    let host = Host::start(folder.path());
    let orphan: u32 = fs::read_to_string(folder.path().join("ready")).unwrap().parse().unwrap();
    drop(host);
    kill_process(pid(orphan), Signal::KILL).unwrap();
    wait_until("the server is gone", || !is_alive(orphan));

    // Its number may belong to another process by now. Here it belongs to this one.
    let pid_file = folder.path().join("postgres/data/postmaster.pid");
    let stale = fs::read_to_string(&pid_file).unwrap();
    let (_, rest) = stale.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();

    let postgres = start(folder.path());
    assert_eq!(query(postgres.url(), "select 1").unwrap(), 1);
}

#[test]
fn a_half_made_cluster_is_made_anew() {
    let folder = private_folder();
    let half_made = folder.path().join("postgres/data.new");
    fs::create_dir_all(&half_made).unwrap();
    fs::write(half_made.join("PG_VERSION"), "15\n").unwrap();
    let postgres = start(folder.path());
    assert_eq!(query(postgres.url(), "select 1").unwrap(), 1);
    assert!(!half_made.exists());
}

#[test]
fn a_cluster_of_another_version_is_refused() {
    let folder = private_folder();
    fs::create_dir_all(folder.path().join("postgres/data")).unwrap();
    fs::write(folder.path().join("postgres/data/PG_VERSION"), "3\n").unwrap();
    let message = Embedded::start(options(folder.path())).unwrap_err().to_string();
    assert!(message.contains("was made by Postgres 3, and only "), "{message}");
}

#[test]
fn a_server_that_cannot_start_is_quoted() {
    let folder = private_folder();
    start(folder.path()).stop();
    break_settings(folder.path());
    let message = Embedded::start(options(folder.path())).unwrap_err().to_string();
    assert!(message.contains("ended while it was starting"), "{message}");
    assert!(message.contains("no_such_setting"), "{message}");
}

#[test]
fn a_server_that_dies_again_and_again_is_given_up() {
    let folder = private_folder();
    let postgres = start(folder.path());
    break_settings(folder.path());
    kill_process(pid(postgres.pid().unwrap()), Signal::KILL).unwrap();
    wait_until("it is given up", || postgres.given_up().is_some());
    let reason = postgres.given_up().unwrap();
    assert!(reason.contains("isn't started again"), "{reason}");
    assert!(reason.contains("no_such_setting"), "{reason}");
    assert_eq!(postgres.pid(), None);
}

/// Makes the server refuse to run from its next start on.
fn break_settings(data_dir: &Path) {
    let path = data_dir.join("postgres/data/postgresql.conf");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings + "\nno_such_setting = on\n").unwrap();
}

#[test]
fn a_path_too_long_for_a_socket_gets_one_elsewhere() {
    let folder = private_folder();
    let long = folder.path().join("l".repeat(100));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let postgres = start(&long);
    assert!(!postgres.url().contains("lll"), "{}", postgres.url());
    assert_eq!(query(postgres.url(), "select 1").unwrap(), 1);
}

#[test]
fn a_folder_that_the_servers_user_cannot_reach_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let home = private_folder();
    let data_dir = home.path().join("project");
    let message = aster_postgres::check_reachable(&data_dir).unwrap_err().to_string();
    assert!(message.contains("can't enter"), "{message}");
    assert!(message.contains("choose a data folder elsewhere"), "{message}");
    assert!(matches!(Embedded::start(options(&data_dir)), Err(Error::Unreachable { .. })));
}

/// Runs the tests of this file once more as `nobody`, from a copy that this user can reach.
#[test]
fn every_test_here_passes_without_root() {
    if !geteuid().is_root() {
        return;
    }
    let folder = private_folder();
    let program = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let output = Command::new(&program)
        .args(["--test-threads", "4"])
        .uid(65_534)
        .gid(65_534)
        .env_remove(HOST_FOLDER)
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
