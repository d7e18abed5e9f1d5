//! Compiled code on the local disk, so that a restart compiles nothing again.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aster_core::id::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

/// A folder that only the host's own user can enter.
///
/// Files are named by the component's digest and lie in a folder named by everything else that decides about the code:
/// Wasmtime's version, the machine, and the engine's configuration.
#[derive(Debug)]
pub(super) struct Cache {
    // INVARIANT: owned by this process's user, mode 0700; what is in it was written by `store` under the same user.
    folder: PathBuf,
}

impl Cache {
    /// # Errors
    /// The folder can't be made, or others can write to it.
    pub(super) fn open(parent: &Path, engine: &Engine) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        private_folder(parent)?;
        let folder = parent.join(format!("{:016x}", hasher.finish()));
        private_folder(&folder)?;
        Ok(Self { folder })
    }

    /// The compiled component, if it is here and fits the engine.
    pub(super) fn load(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let path = self.path(digest);
        if !path.exists() {
            return None;
        }
        // SAFETY: what is loaded must have been made by `Component::serialize`, since its code runs in this process.
        // The file is in a folder that only this user can write to (checked in `open`), where `store` alone puts files,
        // whole ones, by renaming. Whoever can write there as this user could as well replace the host itself.
        #[expect(unsafe_code, reason = "compiled code is machine code: there is no safe way to load it")]
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        match loaded {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(component.digest = %digest, error = format!("{error:#}"), "cached code is of no use");
                fs::remove_file(&path).ok();
                None
            }
        }
    }

    /// Keeps a compiled component. Trouble is logged only: the next start compiles it again.
    pub(super) fn store(&self, component: &Component, digest: &Digest) {
        let written = || -> anyhow::Result<()> {
            let code = component.serialize().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&code)?;
            file.as_file().sync_all()?;
            file.persist(self.path(digest))?;
            File::open(&self.folder)?.sync_all()?;
            Ok(())
        };
        if let Err(error) = written() {
            tracing::warn!(component.digest = %digest, error = format!("{error:#}"), "compiled code isn't kept");
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.cwasm", hex::encode(digest.0)))
    }
}

/// Makes the folder unless it is there, and sees that nobody else may write to it.
fn private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    let private =
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if private {
        return Ok(());
    }
    let message = format!("`{}` must be a folder of this user alone (mode 0700)", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}
