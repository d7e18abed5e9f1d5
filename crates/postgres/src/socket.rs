//! The place of the server's socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;
use crate::user::Account;

/// A part of the socket's name. There is no TCP port.
pub(crate) const PORT: u16 = 5432;

/// The longest path in the address of a socket, in bytes without the closing NUL. See `sun_path` in unix(7), which is 104
/// bytes long on the BSDs and macOS.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The folder of the socket. Only the server's user and root can enter it.
#[derive(Debug)]
pub(crate) enum SocketDir {
    Private(PathBuf),
    /// Removed when this is dropped.
    Temporary(TempDir),
}

impl SocketDir {
    /// The `private` folder if its path is short enough, otherwise a new folder below the system's temporary one.
    pub(crate) fn choose(private: &Path, account: Option<&Account>) -> Result<Self, Error> {
        if fits(private) {
            return Ok(Self::Private(private.to_owned()));
        }
        let parents = [std::env::temp_dir(), PathBuf::from("/tmp")];
        for parent in &parents {
            // Only our user can enter it, and nobody can guess its name and take it first.
            let private = fs::Permissions::from_mode(0o700);
            let made = tempfile::Builder::new().prefix("aster-").permissions(private).tempdir_in(parent);
            let Ok(dir) = made else { continue };
            let reachable = account.is_none_or(|account| account.check_reach(dir.path()).is_ok());
            if !fits(dir.path()) || !reachable {
                continue;
            }
            if let Some(account) = account {
                chown(dir.path(), Some(account.uid), Some(account.gid))
                    .map_err(|e| Error::io(dir.path(), e))?;
            }
            return Ok(Self::Temporary(dir));
        }
        Err(Error::NoSocketDir([&[private.to_owned()], &parents[..]].concat()))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Private(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// The socket in `dir`.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(format!(".s.PGSQL.{PORT}"))
}

/// Whether a socket in `dir` has a path that is short enough, and is text: clients get it in a URL, the server in a
/// setting.
fn fits(dir: &Path) -> bool {
    path(dir).to_str().is_some_and(|path| path.len() <= LONGEST_PATH)
}

/// Removes a socket and its lock file after their server has ended.
pub(crate) fn remove_stale(dir: &Path) {
    let socket = path(dir);
    let _ = fs::remove_file(socket.with_added_extension("lock"));
    let _ = fs::remove_file(socket);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_107_bytes_is_the_longest() {
        let dir = |length: usize| PathBuf::from(format!("/{}", "d".repeat(length - 1)));
        let name = "/.s.PGSQL.5432".len();
        assert!(fits(&dir(LONGEST_PATH - name)));
        assert!(!fits(&dir(LONGEST_PATH - name + 1)));
    }
}
