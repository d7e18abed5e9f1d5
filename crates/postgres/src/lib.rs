//! A private Postgres for one host, from the binaries that are on the machine.
//!
//! [`Embedded::start`] makes a database cluster in a data folder where there is none, starts a server on a Unix socket
//! that only this host can reach, and keeps it running: a server that dies is started again, one that a killed host
//! left behind is stopped first. [`Embedded::stop`], or dropping the value, ends the server after a checkpoint.
//!
//! The data folder holds:
//!
//! | path | holds |
//! |---|---|
//! | `lock` | the lock that keeps a second host out, and the process id of the first |
//! | `postgres.log` | the server's log; the previous one is `postgres.log.old` |
//! | `postgres/` | owned by the server's user and closed to all others |
//! | `postgres/data` | the cluster; `data.new` while it is being made |
//! | `postgres/.s.PGSQL.5432` | the socket, where the path isn't too long for one |
//!
//! There is never a TCP port, and there are no passwords: whoever can enter `postgres/` is the host.
//! Postgres refuses to run as root, so under a host that is root it runs as the user `postgres`, or `nobody`.
//!
//! A caller that runs a server by itself, as tests that ill-treat one do, finds the programs with [`Programs`].
//!
//! Every function here blocks. All are quick except [`Embedded::start`] and [`Embedded::stop`], which take seconds:
//! an async host calls them off its executor. Nothing is downloaded or upgraded.

mod binaries;
mod cluster;
mod error;
mod folder;
mod log;
mod postmaster;
mod programs;
mod settings;
mod socket;
mod supervisor;
mod user;

use std::path::{Path, PathBuf};

pub use error::Error;
pub use programs::Programs;

use binaries::Binaries;
use folder::Folder;
use log::Log;
use postmaster::Launch;
use socket::SocketDir;
use supervisor::Supervisor;
use user::Account;

/// The only role, a superuser, and the database that the host uses.
const NAME: &str = "aster";

/// How to start the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; it is made if it doesn't exist.
    /// If the host is root, the server's user must be able to enter the folders above it.
    pub data_dir: PathBuf,
    /// Whether committed data survives a crash of the machine. The default is true; false is for tests and benchmarks.
    pub durable: bool,
    /// How many connections the server accepts. The default is 100; each open connection costs a process.
    pub max_connections: u32,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), durable: true, max_connections: 100 }
    }
}

/// A running Postgres that belongs to this process.
#[derive(Debug)]
pub struct Embedded {
    url: String,
    log: Log,
    supervisor: Supervisor,
    // These come after the supervisor, since fields are dropped in this order: the server ends, then its socket's
    // folder is removed, then the lock is released and the next host may start.
    _socket: SocketDir,
    _folder: Folder,
}

impl Embedded {
    /// Starts the server and waits until it accepts connections. The database exists by then.
    ///
    /// Blocks for a few seconds where the cluster must be made, and after a crash until Postgres has recovered.
    ///
    /// # Errors
    /// Postgres can't run here. The message says what to do; if the server ended or didn't become ready, the message
    /// quotes the end of its log.
    pub fn start(options: Options) -> Result<Self, Error> {
        let mut folder = Folder::lock(&options.data_dir)?;
        let account = Account::for_folder(folder.private())?;
        folder.prepare(account.as_ref())?;

        let binaries = match cluster::version(&folder)? {
            Some(version) => Binaries::find_for(version, &folder.cluster())?,
            None => {
                let binaries = Binaries::find()?;
                cluster::create(&folder, &binaries, account.as_ref(), options.durable)?;
                binaries
            }
        };

        let socket = SocketDir::choose(folder.private(), account.as_ref())?;
        let log = Log::new(folder.path());
        let url = url(socket.path());
        let launch = Launch {
            server: binaries.server(),
            cluster: folder.cluster(),
            socket_dir: socket.path().to_owned(),
            settings: settings::of(&options, socket.path()),
            account,
            log: log.clone(),
        };
        let supervisor = Supervisor::start(launch)?;
        Ok(Self { url, log, supervisor, _socket: socket, _folder: folder })
    }

    /// The address for sqlx and for `psql`: `postgres:///aster?host=%2F…&port=5432&user=aster`.
    /// It is valid until this value is dropped; the next start may give another one.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the server writes its log.
    pub fn log_path(&self) -> &Path {
        self.log.path()
    }

    /// The process id of the server, or `None` while no server runs: it is being started again, or was given up.
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Why the server won't be started again, if it died so often that another start is hopeless.
    pub fn given_up(&self) -> Option<String> {
        self.supervisor.given_up()
    }

    /// Closes all connections, writes a checkpoint and waits until the server has ended.
    pub fn stop(self) {
        drop(self);
    }
}

/// Checks whether the users and permissions of this machine let a server run in `data_dir`. A caller that is free to
/// choose a folder asks first. Nothing is made or changed.
///
/// # Errors
/// [`Error::Unreachable`], and every other error about users that [`Embedded::start`] would return.
pub fn check_reachable(data_dir: &Path) -> Result<(), Error> {
    let data_dir = folder::resolve(data_dir).map_err(|e| Error::io(data_dir, e))?;
    match Account::for_folder(&folder::private(&data_dir))? {
        Some(account) => account.check_reach(&data_dir),
        None => Ok(()),
    }
}

/// The address of the socket in `socket_dir`. It names the port, which is a part of the socket's name, because clients
/// would otherwise take it from `PGPORT`.
fn url(socket_dir: &Path) -> String {
    let host: String = socket_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("postgres:///{NAME}?host={host}&port={port}&user={NAME}", port = socket::PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_escapes_the_special_characters_of_a_path() {
        assert_eq!(
            url(Path::new("/tmp/a b&c/ü")),
            "postgres:///aster?host=%2Ftmp%2Fa%20b%26c%2F%C3%BC&port=5432&user=aster"
        );
    }
}
