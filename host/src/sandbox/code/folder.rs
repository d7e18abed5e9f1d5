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
/// Files are named by the component's digest and lie in a folder named by the [`Compatibility`] of their code. A file's time of
/// modification is that of its last use. When all files come to more than the bound, those used the longest ago go, whichever
/// engine they were for: so what an older version has left behind goes too.
#[derive(Debug)]
pub(in crate::sandbox) struct Folder {
    // INVARIANT: both belong to this process's user, mode 0700; what is in them was written by `keep` under the same user.
    parent: PathBuf,
    folder: PathBuf,
    max_bytes: u64,
}

impl Folder {
    /// # Errors
    /// The folder can't be made, or others can write to it.
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

    /// The component's code, if it is here.
    pub(super) fn read(&self, digest: &Digest) -> Option<Trusted> {
        let read = || -> io::Result<Trusted> {
            let mut file = File::open(self.path(digest))?;
            // What is open can't be exchanged any more.
            let found = file.metadata()?;
            if !(found.is_file() && is_ours(&found) && found.mode() & 0o022 == 0) {
                return Err(io::Error::other("it isn't this user's alone"));
            }
            let mut code = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
            file.read_to_end(&mut code)?;
            file.set_modified(SystemTime::now()).ok();
            // Only this user can write to the folder and to the file, and this user writes by `keep` alone, whole files.
            // Whoever can write as this user could as well replace the host itself.
            Ok(Trusted(code))
        };
        match read() {
            Ok(code) => Some(code),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(component.digest = %digest, %error, "kept code can't be read");
                None
            }
        }
    }

    /// Keeps a component's code. Trouble is logged only: the next start compiles it again.
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
            tracing::warn!(component.digest = %digest, %error, "compiled code isn't kept");
        }
    }

    /// Removes what turned out to be of no use.
    pub(super) fn remove(&self, digest: &Digest) {
        fs::remove_file(self.path(digest)).ok();
    }

    /// Brings the folder below its bound. Files that are away meanwhile are another host's doing; what is nobody's code stays,
    /// should there be more in the folder that somebody has chosen.
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

/// Makes the folder unless it is there, and sees that nobody else may write to it.
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

/// A folder named by a [`Compatibility`], or by what stood for it in older versions.
fn is_for_code(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    matches!(name.len(), 16 | 64)
        && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
        && entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Also one that a host had no time to finish.
fn is_code(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Says that a file was last used so long ago.
    fn age(folder: &Folder, digest: &Digest, hours: u64) {
        let file = File::open(folder.path(digest)).expect("it is kept");
        let then = SystemTime::now() - Duration::from_secs(hours * 3_600);
        file.set_modified(then).expect("the file is ours");
    }

    #[test]
    fn what_was_used_the_longest_ago_goes_whoever_has_left_it() {
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
