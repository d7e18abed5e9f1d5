//! One server process: how it is started, when it is ready, and how the rest of a dead or orphaned one is removed.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::log::Log;
use crate::user::{self, Account};
use crate::{Error, socket};

/// Recovery from the largest log that the settings allow takes a fraction of this time.
const START_PATIENCE: Duration = Duration::from_secs(300);
const ORPHAN_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Everything that a start of the server needs. It is kept, since the server may be started many times.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) server: PathBuf,
    pub(crate) cluster: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) account: Option<Account>,
    pub(crate) log: Log,
}

impl Launch {
    /// Removes what an earlier server left, and starts the server. It isn't ready yet.
    pub(crate) fn spawn(&self) -> Result<Child, Error> {
        self.clear_the_way()?;
        let log = self.log.open().map_err(|e| Error::io(self.log.path(), e))?;
        let log_too = log.try_clone().map_err(|e| Error::io(self.log.path(), e))?;
        let mut command = user::command(&self.server, self.account.as_ref());
        command
            .current_dir(&self.cluster)
            .arg("-D")
            .arg(&self.cluster)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            // A Ctrl-C must reach only the host, which stops the server itself once its runs have come to rest.
            .process_group(0);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.spawn().map_err(|source| Error::Spawn { program: self.server.clone(), source })
    }

    /// Waits until `server` accepts connections.
    pub(crate) fn wait_until_ready(&self, server: &mut Child) -> Result<(), Error> {
        let (log, tail) = (self.log.path().to_owned(), || self.log.tail());
        let start = Instant::now();
        while start.elapsed() < START_PATIENCE {
            let exited =
                server.try_wait().map_err(|source| Error::Spawn { program: self.server.clone(), source })?;
            if let Some(status) = exited {
                return Err(Error::Died { status, log, tail: tail() });
            }
            let file = PidFile::read(&self.cluster);
            if file.is_some_and(|file| file.pid == raw_pid(server) && file.ready) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(Error::NotReady { seconds: START_PATIENCE.as_secs(), log, tail: tail() })
    }

    /// Stops an orphaned server and removes a stale pid file. This process holds the lock of the data folder, so a server
    /// that is alive here has lost its host.
    fn clear_the_way(&self) -> Result<(), Error> {
        let Some(file) = PidFile::read(&self.cluster) else { return Ok(()) };
        let Some(pid) = Pid::from_raw(file.pid).filter(|&pid| is_alive(pid)) else {
            // Postgres itself notices that the process is gone.
            return Ok(());
        };
        if !serves(pid, &self.cluster) {
            // The number now belongs to a process that has nothing to do with us, and Postgres can't tell it from a
            // server. After a restart of a container this is the rule rather than the exception.
            tracing::info!(pid = file.pid, "removing the pid file of a Postgres that is gone");
            let path = PidFile::path(&self.cluster);
            fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            socket::remove_stale(&self.socket_dir);
            return Ok(());
        }
        tracing::warn!(pid = file.pid, "stopping the Postgres that a killed host left behind");
        let start = Instant::now();
        while is_alive(pid) && serves(pid, &self.cluster) {
            if start.elapsed() > ORPHAN_PATIENCE {
                return Err(Error::Orphan { path: self.cluster.clone(), pid: file.pid });
            }
            // Repeating the signal does no harm, and a server that is still recovering may miss the first one.
            let _ = stop_fast(pid);
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Asks for a "Fast Shutdown": the server aborts open transactions and writes a checkpoint.
pub(crate) fn stop_fast(pid: Pid) -> io::Result<()> {
    Ok(kill_process(pid, Signal::INT)?)
}

/// Asks for an "Immediate Shutdown": the next start recovers from the log.
pub(crate) fn stop_immediately(pid: Pid) -> io::Result<()> {
    Ok(kill_process(pid, Signal::QUIT)?)
}

/// The file in which a server describes itself, `postmaster.pid`, read as `pg_ctl` does (`pidfile.h` of Postgres).
struct PidFile {
    pid: i32,
    /// Whether the eighth line says `ready`; it says `starting` while the server recovers.
    ready: bool,
}

impl PidFile {
    fn path(cluster: &Path) -> PathBuf {
        cluster.join("postmaster.pid")
    }

    fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path(cluster)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let ready = lines.nth(6).is_some_and(|status| status.trim() == "ready");
        Some(Self { pid, ready })
    }
}

fn is_alive(pid: Pid) -> bool {
    // Any other error means that the process is alive, and may belong to another user.
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Whether the process is a server of this cluster. A server's working folder is its cluster.
fn serves(pid: Pid, cluster: &Path) -> bool {
    let pid = pid.as_raw_nonzero();
    if Path::new("/proc/self/cwd").exists() {
        return fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == cluster);
    }
    let output = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&*cluster.to_string_lossy()))
}

/// The process id in the type of the pid file.
fn raw_pid(child: &Child) -> i32 {
    child.id().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_when_its_pid_file_says_so() {
        let file = |status: &str| {
            PidFile::parse(&format!("17\n/data\n1700000000\n5432\n/data\n\n  1234  5678\n{status}\n"))
                .unwrap()
        };
        assert_eq!(file("ready   ").pid, 17);
        assert!(file("ready   ").ready);
        assert!(!file("starting").ready);
        assert!(!PidFile::parse("17\n/data\n").unwrap().ready);
        assert!(PidFile::parse("").is_none());
    }
}
