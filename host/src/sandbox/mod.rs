//! Runs functions of WebAssembly components on behalf of steps, each call in a fresh instance.
//!
//! - [`Sandbox::compile`] turns uploaded bytes into a [`Loaded`] component, and [`Sandbox::load`] loads it again by its
//!   digest. `bounds` checks the bytes first. `code` has them compiled in processes of their own, stores the compiled
//!   code, and shares it with other hosts.
//! - [`Sandbox::call`] calls one function with JSON, under limits on fuel, memory and time, and returns a
//!   [`CallReport`](aster_runner::call::CallReport).
//! - `heavy` has threads for guests that compute for long, so that they don't hold up the host.
//! - `capability` implements what guests may import: `wasi:keyvalue` on the attempt's
//!   [`Session`](aster_runner::session::Session), and what a guest may know about its run.
//!
//! **Invariant:** a guest can end only its own call. The values, keys and output that it hands over are checked here,
//! so that it can't spoil a commit that it shares with others. A failure of the host is an [`Error`], and never a
//! verdict on the step.
//!
//! Nothing here knows SQL or HTTP, and nothing is retried.

mod bounds;
mod call;
mod capability;
mod code;
mod engine;
mod exports;
mod failure;
mod heavy;
mod limits;
mod load;
mod output;
mod value;
mod weight;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aster_core::id::Digest;
use aster_runner::session::Unavailable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Engine;
use wasmtime::component::Linker;

pub use bounds::check as check_upload;
pub use call::Call;
pub use code::{Behalf, CodeKey, Compatibility, Compiler, InvalidKey, Order, SUBCOMMAND, compile_ordered};
pub use engine::Allocation;
pub(crate) use exports::bytes as bytes_of_exports;
pub use load::{FindError, FunctionHandle, Loaded, UploadError, wit_text};

use crate::recent::Recent;
use capability::State;
use code::{DigestLocks, Folder, Line};
use heavy::Heavy;

/// The configuration of a sandbox, for its whole lifetime.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where instances get their memory. Default: [`Allocation::Pool`], or the next slower allocation that the machine
    /// allows.
    pub allocation: Allocation,
    /// The most instances alive at the same time, at least 8; further calls wait. Default: 1000. Each instance may take
    /// 4 GiB of address space and four mappings (`vm.max_map_count`, by default 65,530, allows about 6,000 instances).
    pub max_instances: u32,
    /// The largest upload. Default: 64 MiB.
    pub max_component_bytes: usize,
    /// The most memory that an upload may need to start. A call has its own limit. Default: 1 GiB.
    pub max_memory_bytes: u64,
    /// The largest answer of a function, as JSON. Default: 1 MiB.
    pub max_value_bytes: usize,
    /// How much of standard output, and of standard error, is captured. Default: 8 KiB each.
    pub max_output_bytes: usize,
    /// How often a guest that computes yields, and how soon one that is dropped stops. Default: 5 ms.
    pub tick: Duration,
    /// The compiled code that is kept in memory; code in use stays beyond that. Default: 512 MiB, for components of
    /// about 130 MiB.
    pub loaded_bytes: u64,
    /// The folder that keeps compiled code between starts, for this user alone. Default: none.
    pub cache_dir: Option<PathBuf>,
    /// The largest size of that folder. Default: 1 GiB.
    pub cache_bytes: u64,
    /// The key with which hosts recognize each other's compiled code. Default: none, and nothing is shared.
    pub code_key: Option<CodeKey>,
    /// How components are compiled. Default: in this process, which is not safe for components of strangers.
    pub compiler: Compiler,
    /// The memory that compiling a component may take. Default: 2 GiB.
    pub compile_memory_bytes: u64,
    /// The processor time that compiling a component may take, over all processors. Default: 2 min.
    pub compile_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allocation: Allocation::Pool,
            max_instances: 1000,
            max_component_bytes: 64 << 20,
            max_memory_bytes: 1 << 30,
            max_value_bytes: 1 << 20,
            max_output_bytes: 8 << 10,
            tick: Duration::from_millis(5),
            loaded_bytes: 512 << 20,
            cache_dir: None,
            cache_bytes: 1 << 30,
            code_key: None,
            compiler: Compiler::InThisProcess,
            compile_memory_bytes: 2 << 30,
            compile_time: Duration::from_secs(120),
        }
    }
}

/// The sandbox. Clones share it; its ticker and its threads end with the last clone.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    allocation: Allocation,
    engine: Engine,
    linker: Linker<State>,
    compatibility: Compatibility,
    folder: Option<Folder>,
    loaded: Mutex<Recent<Digest, Loaded>>,
    /// Locks for components that are being loaded.
    digest_locks: DigestLocks,
    /// The queue for the compiler.
    line: Arc<Line>,
    /// Components that the compiler refused after much work, with the reason.
    hopeless: Mutex<Recent<Digest, UploadError>>,
    /// One permit for each slot of the pool.
    slots: Arc<Semaphore>,
    /// The threads for guests that compute for long.
    heavy: Heavy,
}

/// The number of components that are compiled at the same time. Cranelift uses all processors for one component and
/// leaves some idle only at its beginning and end, so more than this would only take memory. With at least two, a
/// tenant's component never waits for another tenant's alone.
const COMPILATIONS: std::ops::RangeInclusive<usize> = 2..=4;
const MOST_HOPELESS: u64 = 10_000;

/// A failure of the host itself. Nothing is known about the step, so its attempt is repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No slot became free before the deadline.
    #[error("the sandbox is busy: {0}")]
    Busy(String),
    #[error(transparent)]
    KeyValue(#[from] Unavailable),
    #[error("the sandbox failed: {0}")]
    Engine(String),
}

/// To the runner, a failure of the sandbox is one that may pass.
impl From<Error> for aster_runner::Error {
    fn from(error: Error) -> Self {
        Self::Other { cause: Arc::new(error), may_pass: true }
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("allocation", &self.inner.allocation).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts the engine, its ticker, and the threads for heavy guests. The log says so if the machine allows only a
    /// slower allocation, or if the cache folder can't be used.
    ///
    /// # Errors
    /// Returns an error if the machine can't run WebAssembly at all, or gives no threads.
    pub fn new(mut options: Options) -> Result<Self, Error> {
        // The largest component must fit.
        options.max_instances = options.max_instances.max(engine::MAX_MEMORIES_PER_COMPONENT);
        let failed = |error: wasmtime::Error| Error::Engine(format!("{error:#}"));
        let (engine, allocation) =
            engine::start(options.allocation, options.max_instances, options.tick).map_err(failed)?;
        let linker = capability::linker(&engine).map_err(failed)?;
        let compatibility = Compatibility::of(&engine);
        let folder = options.cache_dir.as_deref().and_then(|dir| {
            let opened = Folder::open(dir, &compatibility, options.cache_bytes);
            match &opened {
                Ok(_) => tracing::info!(
                    cache.dir = %dir.display(),
                    "the host keeps compiled code between starts, in {}", dir.display()
                ),
                Err(error) => tracing::warn!(
                    cache.dir = %dir.display(), %error,
                    "the host can't keep compiled code between starts, in {}", dir.display()
                ),
            }
            opened.ok()
        });
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let compilations = processors.clamp(*COMPILATIONS.start(), *COMPILATIONS.end());
        let slots = Arc::new(Semaphore::new(options.max_instances as usize));
        let heavy = Heavy::start()
            .map_err(|error| Error::Engine(format!("can't start the threads for heavy guests: {error}")))?;
        tracing::info!(allocation = ?allocation, max_instances = options.max_instances, "the sandbox is ready");
        let loaded = Mutex::new(Recent::new(options.loaded_bytes));
        let inner = Inner {
            options,
            allocation,
            engine,
            linker,
            compatibility,
            folder,
            loaded,
            digest_locks: DigestLocks::default(),
            line: Line::new(compilations),
            hopeless: Mutex::new(Recent::new(MOST_HOPELESS)),
            slots,
            heavy,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Abandons all compilations, running and waiting, and compiles nothing more.
    pub fn stop_compiling(&self) {
        self.inner.line.close();
    }

    /// Returns the allocation that the machine allowed.
    pub fn allocation(&self) -> Allocation {
        self.inner.allocation
    }

    /// Waits for the slots of the pool that an instance takes, so that the pool itself is never exhausted. The permit
    /// is dropped with the instance.
    async fn slots(
        &self,
        loaded: &Loaded,
        deadline: tokio::time::Instant,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let slots = &self.inner.slots;
        if let Ok(permit) = Arc::clone(slots).try_acquire_many_owned(loaded.slots) {
            return Ok(permit);
        }
        match tokio::time::timeout_at(deadline, Arc::clone(slots).acquire_many_owned(loaded.slots)).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Error::Busy("no slot became free before the deadline".into())),
        }
    }

    /// Returns the engine, for measurements that compare a call with Wasmtime alone.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }
}
