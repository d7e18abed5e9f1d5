//! The data folder: its lock, and the part of it that belongs to the server's user.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::Error;
use crate::user::Account;

/// A data folder that this process has locked; dropping the value releases it.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Has no symbolic links, so that it can be compared with the working folder of a process.
    path: PathBuf,
    private: PathBuf,
    /// Held open. Closing it releases the lock, and so does any end of the process.
    _lock: File,
}

/// The part of the data folder `path` that the server owns.
pub(crate) fn private(path: &Path) -> PathBuf {
    path.join("postgres")
}

/// `path` with the symbolic links resolved in the part of it that exists.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for existing in path.ancestors() {
        if let Ok(resolved) = fs::canonicalize(existing) {
            let rest = path.strip_prefix(existing).expect("it is one of the path's ancestors");
            return Ok(resolved.join(rest));
        }
    }
    Ok(path)
}

impl Folder {
    /// Makes the folder if it doesn't exist, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, Error> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io(path, e))?;
        let path = fs::canonicalize(path).map_err(|e| Error::io(path, e))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| Error::io(&lock_path, e))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Without the process id the message is less helpful, but still true.
                let _ = lock.read_to_string(&mut holder);
                return Err(Error::InUse { path, pid: holder.trim().parse().ok() });
            }
            Err(errno) => return Err(Error::io(&lock_path, errno)),
        }
        write_pid(&mut lock).map_err(|e| Error::io(&lock_path, e))?;
        Ok(Self { private: private(&path), path, _lock: lock })
    }

    /// Makes the private part. If the server's user is not ours, lets that user reach it.
    pub(crate) fn prepare(&mut self, account: Option<&Account>) -> Result<(), Error> {
        match fs::DirBuilder::new().mode(0o700).create(&self.private) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(&self.private, error)),
        }
        if let Some(account) = account {
            account.check_reach(&self.path)?;
            self.let_through(account).map_err(|e| Error::io(&self.path, e))?;
            chown(&self.private, Some(account.uid), Some(account.gid))
                .map_err(|e| Error::io(&self.private, e))?;
        }
        fs::set_permissions(&self.private, fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::io(&self.private, e))
    }

    /// Lets the server's user pass through the data folder, by its group, which lets in nobody else. The folder is ours,
    /// so its permissions may be changed.
    fn let_through(&self, account: &Account) -> io::Result<()> {
        let metadata = fs::metadata(&self.path)?;
        if account.can_enter(&metadata) {
            return Ok(());
        }
        chown(&self.path, None, Some(account.gid))?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(metadata.mode() & 0o707 | 0o010))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Only the server's user (and root) can enter it.
    pub(crate) fn private(&self) -> &Path {
        &self.private
    }

    /// The cluster. If it exists, it is complete.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.private.join("data")
    }

    /// The cluster while it is being made.
    pub(crate) fn new_cluster(&self) -> PathBuf {
        self.private.join("data.new")
    }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}
