use std::io;
use std::path::{Path, PathBuf};

/// Why there is no Postgres. Each message says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "no Postgres ({oldest} or newer) was found on this machine: install it with `apt-get install postgresql` or \
         `brew install postgresql`, name the folder of its binaries in ASTER_POSTGRES_BIN, or give a database URL",
        oldest = crate::binaries::OLDEST
    )]
    NotInstalled,
    #[error("ASTER_POSTGRES_BIN is `{}`, where there is no working `postgres` and `initdb`", .0.display())]
    NoSuchBinaries(PathBuf),
    #[error(
        "`{}` was made by Postgres {cluster}, and only {} is installed: install Postgres {cluster}, or bring the data \
         to the newer one with `pg_upgrade`",
        .path.display(),
        list(.installed)
    )]
    Version { path: PathBuf, cluster: u32, installed: Vec<u32> },
    #[error("`{}` is not the cluster of a Postgres: {what}", .path.display())]
    NotACluster { path: PathBuf, what: String },
    #[error("the data folder `{}` is in use by another host{}", .path.display(), holder(*.pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error(
        "Postgres refuses to run as root, and its user `{user}` can't enter `{}`, which is above the data folder `{}`: \
         choose a data folder elsewhere, such as `/var/lib/aster`, or let the user pass with `chmod o+x {}`",
        .closed.display(),
        .data_dir.display(),
        .closed.display()
    )]
    Unreachable { data_dir: PathBuf, closed: PathBuf, user: String },
    #[error("Postgres refuses to run as root, and this machine has neither a user `postgres` nor `nobody`")]
    NoAccount,
    #[error("`{}` belongs to another user (uid {owner}): run the host as that user or as root, or choose another data folder", .path.display())]
    ForeignFolder { path: PathBuf, owner: u32 },
    #[error("no folder has a path short enough for a Unix socket (tried {}): set TMPDIR to one", paths(.0))]
    NoSocketDir(Vec<PathBuf>),
    #[error("`{program}` failed ({status}): {output}")]
    Failed { program: &'static str, status: std::process::ExitStatus, output: String },
    #[error("Postgres ended while it was starting ({status}); the end of its log `{}`:\n{tail}", .log.display())]
    Died { status: std::process::ExitStatus, log: PathBuf, tail: String },
    #[error("Postgres was not ready after {seconds} s; the end of its log `{}`:\n{tail}", .log.display())]
    NotReady { seconds: u64, log: PathBuf, tail: String },
    #[error("Postgres (pid {pid}), left behind in `{}` by a host that was killed, doesn't end", .path.display())]
    Orphan { path: PathBuf, pid: i32 },
    #[error("can't run `{}`", .program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("can't use `{}`", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Error {
    pub(crate) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), source: source.into() }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

fn list(versions: &[u32]) -> String {
    versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
}
