//! Where the server's socket is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;
use crate::user::Account;

/// Not a TCP port: only a part of the socket's name.
pub(crate) const PORT: u16 = 5432;

/// What an address holds, without its closing NUL (`sun_path` in unix(7); it is 104 bytes on the BSDs and macOS).
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The folder of the socket: only the server's user and root can enter it.
#[derive(Debug)]
pub(crate) enum SocketDir {
    Private(PathBuf),
    /// Removed when this is dropped.
    Temporary(TempDir),
}

impl SocketDir {
    /// The `private` folder if its path is short enough, else a new one below the system's folder for such things.
    pub(crate) fn choose(private: &Path, account: Option<&Account>) -> Result<Self, Error> {
        if fits(private) {
            return Ok(Self::Private(private.to_owned()));
        }
        let parents = [std::env::temp_dir(), PathBuf::from("/tmp")];
        for parent in &parents {
            // It is made for us alone, under a name that nobody could guess and occupy.
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

/// Clients get the path as text in a URL, and the server in a setting.
fn fits(dir: &Path) -> bool {
    path(dir).to_str().is_some_and(|path| path.len() <= LONGEST_PATH)
}

/// Removes a socket and its lock file that no server holds any more.
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
