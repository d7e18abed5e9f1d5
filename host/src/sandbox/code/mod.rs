//! Where a component's code comes from: memory, the folder on this machine, another host, or the compiler.
//!
//! Everything slow (reading, linking, writing) runs on threads for blocking work, and compilations run in processes of
//! their own. Different components are loaded concurrently, each once; only the number of compilations is small.
//!
//! **Invariant:** code that is loaded was made by one of our hosts ([`Trusted`]), and code that is stored or shared has
//! been instantiated once.

mod child;
mod compile;
mod digest_locks;
mod folder;
mod key;
mod line;

use std::fmt;
use std::hash::{Hash as _, Hasher};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use aster_core::id::Digest;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

pub use self::child::{Order, SUBCOMMAND, compile_ordered};
use self::compile::Budget;
pub use self::compile::Compiler;
pub(super) use self::digest_locks::DigestLocks;
pub(super) use self::folder::Folder;
pub use self::key::{CodeKey, InvalidKey};
pub use self::line::Behalf;
pub(super) use self::line::Line;
use super::load::not_loaded;
use super::{Loaded, Sandbox, UploadError, bounds};

/// A hash of everything that decides whether code fits an engine: Wasmtime's version, the machine with its features,
/// and the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compatibility(pub [u8; 32]);

impl Compatibility {
    pub(super) fn of(engine: &Engine) -> Self {
        let mut hasher = ShaHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Feeds hashable values to SHA-256. The 64 bits of a `Hasher` are too few for a name, and the standard hasher may
/// change.
struct ShaHasher(Sha256);

impl Hasher for ShaHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// This is never called.
    fn finish(&self) -> u64 {
        0
    }
}

/// Code that one of our hosts has made. It was in the folder that only this user can write to, its tag was valid, or it
/// came through the pipe of a compiler that this process started.
// INVARIANT: constructed only in `folder`, `key` and `compile`, after they have made sure of that.
struct Trusted(Vec<u8>);

impl Trusted {
    fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes must be the output of `Component::serialize`, since they run in this process. By the
        // invariant of this type, they are. Wasmtime itself checks whether they are for this engine.
        #[expect(unsafe_code, reason = "compiled code is machine code: there is no safe way to load it")]
        unsafe {
            Component::deserialize(engine, &self.0)
        }
    }
}

impl Sandbox {
    /// Returns the component version, if it is in memory.
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest)
    }

    /// Returns whether more code is in memory than should be kept there.
    pub fn holds_too_much(&self) -> bool {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).trim()
    }

    /// Loads the component version with this digest from memory or from the folder. If neither has it, it takes the
    /// result of `otherwise`, which both then keep. A caller that asks for a digest which is being loaded waits for
    /// that load.
    ///
    /// # Errors
    /// Returns the errors of `otherwise`. A caller that waited then tries in its turn.
    ///
    /// # Cancel safety
    /// A compilation that has begun continues, and its result is discarded.
    pub async fn load<E>(
        &self,
        digest: Digest,
        otherwise: impl Future<Output = Result<Loaded, E>>,
    ) -> Result<Arc<Loaded>, E> {
        if let Some(loaded) = self.loaded(&digest) {
            return Ok(loaded);
        }
        let _lock = self.inner.digest_locks.take(digest).await;
        if let Some(loaded) = self.loaded(&digest) {
            return Ok(loaded);
        }
        let kept = self.load_kept(digest).await;
        let is_kept = kept.is_some();
        let loaded = Arc::new(match kept {
            Some(loaded) => loaded,
            None => otherwise.await?,
        });
        let mut all = self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest, Arc::clone(&loaded), loaded.bytes());
        drop(all);
        if !is_kept {
            self.keep(Arc::clone(&loaded));
        }
        Ok(loaded)
    }

    /// Loads an upload. If its code isn't known, the upload is checked, compiled, linked and started once.
    ///
    /// # Errors
    /// Returns what is wrong with the upload, or [`UploadError::Host`] or [`UploadError::Busy`] if the host is at
    /// fault.
    pub async fn compile(&self, behalf: Behalf, bytes: Bytes) -> Result<Arc<Loaded>, UploadError> {
        let limit = self.inner.options.max_component_bytes;
        if bytes.len() > limit {
            return Err(UploadError::TooLarge { size: bytes.len(), limit });
        }
        let hashed = bytes.clone();
        let digest = blocking(move || digest_of(&hashed)).await?;
        self.load(digest, self.compile_anew(behalf, digest, bytes)).await
    }

    /// Checks, compiles, links and starts the component, even if its code is stored somewhere. This is for
    /// [`Sandbox::load`].
    ///
    /// # Errors
    /// Returns the errors of [`Sandbox::compile`], and an error if the bytes don't have this `digest`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the compilation, or leaves the line for it.
    pub async fn compile_anew(
        &self,
        behalf: Behalf,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<Loaded, UploadError> {
        let hopeless = self.inner.hopeless.lock().unwrap_or_else(PoisonError::into_inner).get(&digest);
        if let Some(known) = hopeless {
            return Err((*known).clone());
        }
        let checked = bytes.clone();
        blocking(move || {
            if digest_of(&checked) != digest {
                return Err(UploadError::Invalid(format!("its bytes are not those of {digest}")));
            }
            bounds::check(&checked)
        })
        .await??;
        let place = self.inner.line.take(behalf).await.map_err(|why| UploadError::Busy(why.to_string()))?;
        let began = Instant::now();
        let code = tokio::select! {
            code = self.compiled(bytes) => code,
            () = self.inner.line.closed() => Err(UploadError::Busy("the host is stopping".into())),
        };
        let code = code.inspect_err(|error| self.remember_hopeless(digest, error))?;
        let sandbox = self.clone();
        let loaded = blocking(move || {
            let component = code.component(&sandbox.inner.engine).map_err(|error| not_loaded(&error))?;
            sandbox.link(digest, component)
        })
        .await??;
        drop(place);
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(component.digest = %digest, duration_ms, "the host compiled component {digest}");
        self.try_start(&loaded).await?;
        Ok(loaded)
    }

    async fn compiled(&self, bytes: Bytes) -> Result<Trusted, UploadError> {
        let options = &self.inner.options;
        let budget =
            Budget { memory_bytes: options.compile_memory_bytes, processor_time: options.compile_time };
        options.compiler.compile(self.inner.allocation, budget, bytes).await
    }

    /// Remembers a component that the compiler refused, so that nobody can make it work on that component again.
    fn remember_hopeless(&self, digest: Digest, error: &UploadError) {
        if error.is_worth_keeping() {
            let mut hopeless = self.inner.hopeless.lock().unwrap_or_else(PoisonError::into_inner);
            hopeless.insert(digest, Arc::new(error.clone()), 1);
        }
    }

    /// Returns whether code is shared with other hosts.
    pub fn shares_code(&self) -> bool {
        self.inner.options.code_key.is_some()
    }

    /// Returns the compatibility that code from other hosts must have.
    pub fn compatibility(&self) -> Compatibility {
        self.inner.compatibility
    }

    /// Returns a component's code and its tag for other hosts, or `None` without a key.
    pub async fn seal(&self, loaded: Arc<Loaded>) -> Option<(Vec<u8>, Vec<u8>)> {
        let key = self.inner.options.code_key.clone()?;
        let compatibility = self.inner.compatibility;
        let sealed = blocking(move || {
            let code = loaded.serialize()?;
            let tag = key.tag(&loaded.digest(), &compatibility, &code);
            Some((code, tag))
        });
        sealed.await.ok()?
    }

    /// Returns the component whose code another host has sealed. If the tag is wrong or the code is useless, it logs a
    /// warning and returns `None`.
    pub async fn unseal(&self, digest: Digest, code: Vec<u8>, tag: Vec<u8>) -> Option<Loaded> {
        let sandbox = self.clone();
        let unsealed = blocking(move || {
            let key = sandbox.inner.options.code_key.as_ref()?;
            let Some(code) = key.verify(&digest, &sandbox.inner.compatibility, code, &tag) else {
                tracing::warn!(
                    component.digest = %digest,
                    "the host doesn't use compiled code from the database, because its tag is wrong: set the same ASTER_CODE_KEY on all hosts"
                );
                return None;
            };
            sandbox.load_trusted(digest, &code)
        });
        unsealed.await.ok()?
    }

    /// Returns whether the next component that is loaded will displace another.
    pub fn is_full(&self) -> bool {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).is_full()
    }

    async fn load_kept(&self, digest: Digest) -> Option<Loaded> {
        self.inner.folder.as_ref()?;
        let sandbox = self.clone();
        let kept = blocking(move || {
            let folder = sandbox.inner.folder.as_ref()?;
            let code = folder.read(&digest)?;
            let loaded = sandbox.load_trusted(digest, &code);
            if loaded.is_none() {
                folder.remove(&digest);
            }
            loaded
        });
        kept.await.ok()?
    }

    /// Loads code. Failures are only logged: a component that can't be loaded is compiled again.
    fn load_trusted(&self, digest: Digest, code: &Trusted) -> Option<Loaded> {
        let component = code.component(&self.inner.engine).map_err(|error| format!("{error:#}"));
        let loaded = component.and_then(|it| self.link(digest, it).map_err(|error| error.to_string()));
        loaded
            .inspect_err(|error| {
                tracing::warn!(component.digest = %digest, error, "the host can't load compiled code, and compiles the component again");
            })
            .ok()
    }

    /// Writes the code to the folder in the background.
    fn keep(&self, loaded: Arc<Loaded>) {
        if self.inner.folder.is_none() {
            return;
        }
        let sandbox = self.clone();
        tokio::task::spawn_blocking(move || {
            let folder = sandbox.inner.folder.as_ref()?;
            folder.keep(&loaded.digest(), &loaded.serialize()?);
            Some(())
        });
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| UploadError::Host(error.to_string()))
}
