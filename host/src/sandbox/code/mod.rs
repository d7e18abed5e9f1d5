//! Where a component's code comes from: memory, the folder on this machine, another host, or the compiler.
//!
//! All that takes its time (reading, linking, writing) is done on threads for blocking work, and compiling in processes of its own.
//! Components are loaded beside each other, each once; only compilations are few at a time.
//!
//! **Invariant:** code that is loaded was made by a host of ours ([`Trusted`]), and what is kept or handed on has started once.

mod child;
mod compile;
mod folder;
mod key;
mod line;
mod turns;

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
pub(super) use self::folder::Folder;
pub use self::key::{CodeKey, InvalidKey};
pub use self::line::Behalf;
pub(super) use self::line::Line;
pub(super) use self::turns::Turns;
use super::load::not_loaded;
use super::{Loaded, Sandbox, UploadError, bounds};

/// All that decides whether code fits an engine: Wasmtime's version, the machine with its features, and the configuration.
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

/// Feeds whatever can be hashed to SHA-256: 64 bits, and those of a hasher that may change, are too few for a name.
struct ShaHasher(Sha256);

impl Hasher for ShaHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not asked for.
    fn finish(&self) -> u64 {
        0
    }
}

/// Code that a host of ours has made: it lay in the folder that only this user writes to, or its tag is right, or it came through
/// the pipe of a compiler that this process has started.
// INVARIANT: made in `folder`, `key` and `compile` only, after they have seen to that.
struct Trusted(Vec<u8>);

impl Trusted {
    fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes must be what `Component::serialize` has made, since they run in this process. They are, by the
        // invariant of this type. Whether they are for this engine, Wasmtime checks itself.
        #[expect(unsafe_code, reason = "compiled code is machine code: there is no safe way to load it")]
        unsafe {
            Component::deserialize(engine, &self.0)
        }
    }
}

impl Sandbox {
    /// The component version, if it is in memory.
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest)
    }

    /// Whether more code is held in memory than is to be kept there.
    pub fn holds_too_much(&self) -> bool {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).trim()
    }

    /// The component version of that digest from memory or from the folder, or else what `otherwise` makes of it, which both then
    /// keep. Who asks for one that is being loaded waits for that.
    ///
    /// # Errors
    /// Those of `otherwise`. Who waits then tries it in turn.
    ///
    /// # Cancel safety
    /// A compilation that has begun goes on, and is thrown away.
    pub async fn load<E>(
        &self,
        digest: Digest,
        otherwise: impl Future<Output = Result<Loaded, E>>,
    ) -> Result<Arc<Loaded>, E> {
        if let Some(loaded) = self.loaded(&digest) {
            return Ok(loaded);
        }
        let _turn = self.inner.turns.take(digest).await;
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

    /// An upload: loads it, or checks, compiles, links and starts it once.
    ///
    /// # Errors
    /// What is wrong with the upload; [`UploadError::Host`] or [`UploadError::Busy`] if it is the host.
    pub async fn compile(&self, behalf: Behalf, bytes: Bytes) -> Result<Arc<Loaded>, UploadError> {
        let limit = self.inner.options.max_component_bytes;
        if bytes.len() > limit {
            return Err(UploadError::TooLarge { size: bytes.len(), limit });
        }
        let hashed = bytes.clone();
        let digest = blocking(move || digest_of(&hashed)).await?;
        self.load(digest, self.compile_anew(behalf, digest, bytes)).await
    }

    /// Checks, compiles, links and starts the component, wherever its code may lie already: for [`Sandbox::load`].
    ///
    /// # Errors
    /// Those of [`Sandbox::compile`], and if the bytes are not those of `digest`.
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
        tracing::debug!(component.digest = %digest, duration_ms, "compiled a component");
        self.try_start(&loaded).await?;
        Ok(loaded)
    }

    async fn compiled(&self, bytes: Bytes) -> Result<Trusted, UploadError> {
        let options = &self.inner.options;
        let budget =
            Budget { memory_bytes: options.compile_memory_bytes, processor_time: options.compile_time };
        options.compiler.compile(self.inner.allocation, budget, bytes).await
    }

    /// So that nobody can have the compiler work for it again.
    fn remember_hopeless(&self, digest: Digest, error: &UploadError) {
        if error.is_worth_keeping() {
            let mut hopeless = self.inner.hopeless.lock().unwrap_or_else(PoisonError::into_inner);
            hopeless.insert(digest, Arc::new(error.clone()), 1);
        }
    }

    /// Whether code is handed on to other hosts, and taken from them.
    pub fn shares_code(&self) -> bool {
        self.inner.options.code_key.is_some()
    }

    /// What code from other hosts must have been made for.
    pub fn compatibility(&self) -> Compatibility {
        self.inner.compatibility
    }

    /// A component's code for other hosts, and its tag. None without a key.
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

    /// The component whose code another host has sealed. None, and a warning, if the tag is not right or the code is of no use.
    pub async fn unseal(&self, digest: Digest, code: Vec<u8>, tag: Vec<u8>) -> Option<Loaded> {
        let sandbox = self.clone();
        let unsealed = blocking(move || {
            let key = sandbox.inner.options.code_key.as_ref()?;
            let Some(code) = key.verify(&digest, &sandbox.inner.compatibility, code, &tag) else {
                tracing::warn!(
                    component.digest = %digest,
                    "compiled code in the database is not used, its tag is wrong: have all hosts the same ASTER_CODE_KEY?"
                );
                return None;
            };
            sandbox.load_trusted(digest, &code)
        });
        unsealed.await.ok()?
    }

    /// Whether what is loaded next will drive out something else.
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

    /// Trouble is logged only: what can't be loaded is compiled.
    fn load_trusted(&self, digest: Digest, code: &Trusted) -> Option<Loaded> {
        let component = code.component(&self.inner.engine).map_err(|error| format!("{error:#}"));
        let loaded = component.and_then(|it| self.link(digest, it).map_err(|error| error.to_string()));
        loaded
            .inspect_err(|error| {
                tracing::warn!(component.digest = %digest, error, "compiled code is of no use");
            })
            .ok()
    }

    /// Writes the code to the folder. Nobody waits for it.
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
