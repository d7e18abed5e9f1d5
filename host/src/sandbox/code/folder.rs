//! Compiled code on the local disk, so that a restart compiles nothing again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aster_core::id::Digest;

use super::{Compatibility, Trusted};

const SUFFIX: &str = ".cwasm";

/// A folder that only the host's own user can enter. Hosts of the same user may share it.
///
/// Files are named by the component's digest, in a folder named by the [`Compatibility`] of their code. A file's
/// modification time is the time of its last use. When all files together exceed the bound, the least recently used
/// ones are deleted, whichever engine they were for. So the files of older versions go, too.
#[derive(Debug)]
pub(in crate::sandbox) struct Folder {
    // INVARIANT: both belong to this process's user with mode 0700, and `keep` has written the files in them under the
    // same user.
    parent: PathBuf,
    folder: PathBuf,
    max_bytes: u64,
}

impl Folder {
    /// # Errors
    /// Returns an error if the folder can't be created, or if others can write to it.
    pub(in crate::sandbox) fn open(
        parent: &Path,
        compatibility: &Compatibility,
        max_bytes: u64,
    ) -> io::Result<Self> {
        private_folder(parent)?;
        let folder = parent.join(compatibility.to_string());
        private_folder(&folder)?;
        Ok(Self { parent: parent.to_owned(), folder, max_bytes })
    }

    /// Reads the component's code, if it is here.
    pub(super) fn read(&self, digest: &Digest) -> Option<Trusted> {
        let read = || -> io::Result<Trusted> {
            let mut file = File::open(self.path(digest))?;
            // An open file can't be exchanged any more.
            let found = file.metadata()?;
            if !(found.is_file() && is_ours(&found) && found.mode() & 0o022 == 0) {
                return Err(io::Error::other("other users can write to it"));
            }
            let mut code = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
            file.read_to_end(&mut code)?;
            file.set_modified(SystemTime::now()).ok();
            // Only this user can write to the folder and to the file, and this user's hosts write whole files, through
            // `keep`. Anyone who can write as this user could as well replace the host itself.
            Ok(Trusted(code))
        };
        match read() {
            Ok(code) => Some(code),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(component.digest = %digest, %error, "the host can't read compiled code from its folder");
                None
            }
        }
    }

    /// Stores a component's code. Failures are only logged, since the next start then compiles the component again.
    pub(in crate::sandbox) fn keep(&self, digest: &Digest, code: &[u8]) {
        let written = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().suffix(SUFFIX).tempfile_in(&self.folder)?;
            file.write_all(code)?;
            file.as_file().sync_all()?;
            file.persist(self.path(digest))?;
            File::open(&self.folder)?.sync_all()?;
            self.drop_oldest()
        };
        if let Err(error) = written() {
            tracing::warn!(component.digest = %digest, %error, "the host can't write compiled code to its folder");
        }
    }

    /// Deletes code that turned out to be useless.
    pub(super) fn remove(&self, digest: &Digest) {
        fs::remove_file(self.path(digest)).ok();
    }

    /// Brings the folder below its bound. Another host may delete files at the same time. Files that are not code stay,
    /// in case somebody chose a folder that has others.
    fn drop_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for folder in fs::read_dir(&self.parent)?.flatten().filter(is_for_code) {
            for file in fs::read_dir(folder.path())?.flatten().filter(is_code) {
                let Ok(found) = file.metadata() else { continue };
                files.push((found.modified()?, found.len(), file.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort_unstable();
        for (_, size, path) in files {
            if bytes <= self.max_bytes {
                break;
            }
            fs::remove_file(path).ok();
            bytes -= size;
        }
        Ok(())
    }

    pub(in crate::sandbox) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}{SUFFIX}", hex::encode(digest.0)))
    }
}

/// Creates the folder if it doesn't exist, and checks that nobody else may write to it.
fn private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() && is_ours(&found) && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("`{}` must be a folder of this user alone (mode 0700)", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

fn is_ours(found: &fs::Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

/// Returns whether this is a folder for code: named by a [`Compatibility`], or by its predecessor in older versions.
fn is_for_code(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    matches!(name.len(), 16 | 64)
        && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
        && entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Returns whether this is a file with code, or one that a host didn't finish writing.
fn is_code(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sets the time of a file's last use.
    fn age(folder: &Folder, digest: &Digest, hours: u64) {
        let file = File::open(folder.path(digest)).expect("it is kept");
        let then = SystemTime::now() - Duration::from_secs(hours * 3_600);
        file.set_modified(then).expect("the file is ours");
    }

    #[test]
    fn the_least_recently_used_file_is_deleted_whichever_engine_it_was_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |version| Folder::open(&dir.path().join("code"), &Compatibility([version; 32]), 3_000);
        let (old, new) = (open(1).expect("a folder"), open(2).expect("a folder"));
        let others = dir.path().join("code").join("photos");
        fs::create_dir(&others).expect("the folder is ours");
        fs::write(others.join("old.cwasm"), [0; 9_000]).expect("the folder is ours");
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| Digest([n; 32]));
        for (folder, digest, hours) in [(&old, a, 4), (&new, b, 3), (&new, c, 2)] {
            folder.keep(&digest, &[0; 1_000]);
            age(folder, &digest, hours);
        }
        assert!(new.read(&b).is_some(), "all fit, and this one is used now");
        new.keep(&d, &[0; 1_500]);
        assert!(old.read(&a).is_none() && new.read(&c).is_none());
        assert!(new.read(&b).is_some() && new.read(&d).is_some());
        assert!(others.join("old.cwasm").exists());
    }

    #[test]
    fn a_file_that_others_could_have_written_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let folder =
            Folder::open(&dir.path().join("code"), &Compatibility([1; 32]), 3_000).expect("a folder");
        let digest = Digest([1; 32]);
        folder.keep(&digest, b"code");
        assert!(folder.read(&digest).is_some());
        let others_too = fs::Permissions::from_mode(0o622);
        fs::set_permissions(folder.path(&digest), others_too).expect("the file is ours");
        assert!(folder.read(&digest).is_none());
    }
}
