//! A Postgres server with durable settings, which the faults stop, restart and starve of disk space.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aster_postgres::Programs;
use sqlx::postgres::PgConnectOptions;

use super::volume::Volume;

pub(crate) const NAME: &str = "aster";
/// The port is only a part of the socket's name.
const PORT: u16 = 5432;
/// The time for recovery after an immediate stop.
const START_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// The settings are those of a data folder's private Postgres, except for what several hosts and a full disk need.
const SETTINGS: [&str; 13] = [
    "listen_addresses=",
    "max_connections=200",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=256MB",
    "max_wal_size=1GB",
    // Each part of the log is a new file, so that a full disk affects the log, too, and not only the tables.
    "wal_recycle=off",
    "max_parallel_workers_per_gather=0",
    "jit=off",
    "timezone=UTC",
    "log_checkpoints=off",
    "logging_collector=off",
];

/// Dropping this stops the server and unmounts its volume.
#[derive(Debug)]
pub(crate) struct Server {
    programs: Programs,
    data: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
    process: Option<Child>,
    // This comes after the process, which the drop of this struct ends first.
    volume: Option<Volume>,
}

impl Server {
    /// Creates a cluster below `folder`, on a volume of its own if possible, and starts a server.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let programs = Programs::find()?;
        // The server's user passes through this folder, and can't list it.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        let (place, socket_dir) = (folder.join("volume"), folder.join("socket"));
        let volume = Volume::mount(&place)?;
        let data = place.join("data");
        for own in [&data, &socket_dir] {
            fs::create_dir_all(own).with_context(|| format!("can't make `{}`", own.display()))?;
            fs::set_permissions(own, fs::Permissions::from_mode(0o700))?;
            programs.hand_over(own)?;
        }
        let mut initdb = programs.command("initdb");
        initdb.arg("--pgdata").arg(&data).args(["--username", NAME, "--encoding", "UTF8", "--locale", "C"]);
        initdb.args(["--auth-local", "trust", "--auth-host", "reject", "--no-instructions"]);
        run(initdb.current_dir(&data))?;
        let log = folder.join("postgres.log");
        let mut server = Self { programs, data, socket_dir, log, process: None, volume };
        server.ensure_running()?;
        let mut createdb = server.client_program("createdb");
        run(createdb.arg(NAME))?;
        Ok(server)
    }

    /// Returns the options for connections that bypass all proxies.
    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(PORT)
            .username(NAME)
            .database(NAME)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{PORT}"))
    }

    pub(crate) fn has_volume(&self) -> bool {
        self.volume.is_some()
    }

    /// Returns whether the server has ended since it was started without being asked to.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)))
    }

    /// Starts the server unless it runs, and waits until it takes connections.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if self.process.is_none() || self.has_ended() {
                self.process = Some(self.spawn()?);
            }
            let mut ready = self.client_program("pg_isready");
            if ready.args(["--quiet", "--timeout", "1"]).status()?.success() {
                return Ok(());
            }
            ensure!(
                began.elapsed() < START_PATIENCE,
                "Postgres isn't ready after {} s; see `{}`",
                START_PATIENCE.as_secs(),
                self.log.display()
            );
            thread::sleep(POLL);
        }
    }

    /// Stops the server with an "Immediate Shutdown": it writes no checkpoint, and the next start recovers from the
    /// log.
    pub(crate) fn stop_immediately(&mut self) -> Result<()> {
        let mut pg_ctl = self.programs.command("pg_ctl");
        pg_ctl.arg("stop").arg("--pgdata").arg(&self.data).args([
            "--mode",
            "immediate",
            "--wait",
            "--silent",
        ]);
        let stopped = run(pg_ctl.current_dir(&self.data));
        // The server may have ended by itself meanwhile, which is no failure here.
        if let Err(error) = stopped
            && !self.has_ended()
        {
            return Err(error);
        }
        if let Some(mut process) = self.process.take() {
            process.wait()?;
        }
        Ok(())
    }

    /// Leaves no space on the server's volume.
    pub(crate) fn fill_volume(&self) -> Result<()> {
        self.volume.as_ref().map_or(Ok(()), Volume::fill)
    }

    pub(crate) fn empty_volume(&self) -> Result<()> {
        self.volume.as_ref().map_or(Ok(()), Volume::empty)
    }

    fn spawn(&self) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut server = self.programs.command("postgres");
        server.arg("-D").arg(&self.data).arg("-k").arg(&self.socket_dir).args(["-p", &PORT.to_string()]);
        for setting in SETTINGS {
            server.args(["-c", setting]);
        }
        server
            .current_dir(&self.data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The server doesn't receive Ctrl-C; this process stops it.
            .process_group(0)
            .spawn()
            .context("can't run `postgres`")
    }

    fn client_program(&self, name: &str) -> Command {
        let mut command = self.programs.command(name);
        command.arg("--host").arg(&self.socket_dir).args(["--port", &PORT.to_string(), "--username", NAME]);
        command.current_dir("/");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stop_immediately().is_err()
            && let Some(mut process) = self.process.take()
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("can't run `{program}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program}` failed ({}): {}", output.status, said.trim());
    Ok(())
}
