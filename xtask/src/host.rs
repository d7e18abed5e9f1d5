//! A host as a child process. It is stopped when its owner drops it.

use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::api::Api;

/// The first start creates a database cluster.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// A stopping host drains its runs and stops its Postgres.
const STOP_PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

pub(crate) struct Host {
    process: Child,
    address: String,
    api: Api,
    log: PathBuf,
}

impl Host {
    /// Starts `program` with its own Postgres in `data_dir`, and waits until it is ready. The host doesn't receive
    /// Ctrl-C; its owner does, and stops it.
    pub(crate) fn start(
        program: &Path,
        data_dir: &Path,
        address: &str,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Self> {
        fs::create_dir_all(data_dir).with_context(|| format!("can't make `{}`", data_dir.display()))?;
        let log = data_dir.join("aster.log");
        // The log may be that of an earlier start.
        let _ = fs::remove_file(&log);
        let data_dir = data_dir.display().to_string();
        Self::spawn(program, ["--data-dir", &data_dir], &log, address, is_wanted)
    }

    /// The same on a Postgres that somebody else runs.
    pub(crate) fn start_on(
        program: &Path,
        database_url: &str,
        lease: &str,
        log: &Path,
        address: &str,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Self> {
        let arguments = ["--database-url", database_url, "--lease", lease];
        Self::spawn(program, arguments, log, address, is_wanted)
    }

    fn spawn<const N: usize>(
        program: &Path,
        arguments: [&str; N],
        log: &Path,
        address: &str,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("can't write `{}`", log.display()))?;
        let process = Command::new(program)
            .args(["serve", "--listen", address])
            .args(arguments)
            // The host would use the variable instead of the data folder.
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't run `{}`", program.display()))?;
        let api = Api::new(address);
        let mut host = Self { process, address: address.to_owned(), api, log: log.to_owned() };
        host.wait_until_ready(is_wanted)?;
        Ok(host)
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Ends the host as a power cut would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Returns how much memory the host holds, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))
            .context("only Linux reports the memory of a process")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is not a number")
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Returns an error if the host has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(20)..].join("\n");
                bail!("the host has ended ({status}); the end of its log `{}`:\n{tail}", self.log.display());
            }
            None => Ok(()),
        }
    }

    fn wait_until_ready(&mut self, is_wanted: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_PATIENCE {
            self.check_alive()?;
            if !is_wanted() {
                bail!("interrupted");
            }
            if self.api.is_ready() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("the host wasn't ready after {} s; see `{}`", START_PATIENCE.as_secs(), self.log.display());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < STOP_PATIENCE {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns `preferred` if nobody listens there, or otherwise a free port of the same machine.
pub(crate) fn free_address(preferred: &str) -> Result<String> {
    let listener = TcpListener::bind(preferred).or_else(|_| TcpListener::bind("127.0.0.1:0"));
    Ok(listener.context("no port is free")?.local_addr()?.to_string())
}
