//! Runs functions of WebAssembly components on behalf of steps, each call in a fresh instance.
//!
//! - [`Sandbox::compile`] turns uploaded bytes into a [`Loaded`] component, [`Sandbox::load`] has it again by its digest; `bounds`
//!   looks at the bytes first; `code` has them compiled, by processes of their own, keeps what was compiled, and hands it on to other
//!   hosts.
//! - [`Sandbox::call`] calls one function with JSON, under limits of fuel, memory and time, and answers a [`CallReport`].
//! - `heavy` has threads of their own for guests that compute for long, so that these don't hold up the host.
//! - [`Session`] holds what an attempt reads and writes through `wasi:keyvalue`; the committed state comes from a
//!   [`KeyValueReader`]; the effects go to whoever commits.
//! - [`Context`] is what the guest may know of its run.
//!
//! **Invariant:** what a guest does ends its own call and nothing else. What it hands over (values, keys, output) is
//! checked here, so that it spoils no commit that it shares with others. Trouble of the host is an [`Error`], never a
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Engine;
use wasmtime::component::Linker;

pub use bounds::check as check_upload;
pub use call::{Call, CallReport, Limits};
pub use capability::context::{Context, Direction};
#[cfg(any(test, feature = "simulation"))]
pub(crate) use capability::session::Error as SessionError;
pub use capability::session::{
    InMemory, KeyValueReader, MAX_KEYS, MAX_VALUE_BYTES, MAX_WRITTEN_BYTES, Session, Unavailable,
};
pub use code::{Behalf, CodeKey, Compatibility, Compiler, InvalidKey, Order, SUBCOMMAND, compile_ordered};
pub use engine::Allocation;
pub(crate) use exports::bytes as bytes_of_exports;
pub use load::{FindError, FunctionHandle, Loaded, UploadError, wit_text};
pub use output::Output;

use crate::recent::Recent;
use capability::State;
use code::{Folder, Line, Turns};
use heavy::Heavy;

/// How the sandbox is set up; all of it holds for its lifetime.
#[derive(Clone, Debug)]
pub struct Options {
    /// Default: [`Allocation::Pool`], or the next slower one that the machine allows.
    pub allocation: Allocation,
    /// Instances alive at the same time, at least 8; further calls wait. Default 1000. Each may take 4 GiB of address space and four
    /// mappings (`vm.max_map_count`, mostly 65,530, ends at about 6,000).
    pub max_instances: u32,
    /// Largest upload. Default 64 MiB.
    pub max_component_bytes: usize,
    /// The most memory that an upload may need to start. A call's own limit comes with the call. Default 1 GiB.
    pub max_memory_bytes: u64,
    /// Largest answer of a function, as JSON. Default 1 MiB.
    pub max_value_bytes: usize,
    /// How much of standard output and of standard error is kept, each. Default 8 KiB.
    pub max_output_bytes: usize,
    /// How often a guest that computes lets others run, and how soon one that is dropped stops. Default 5 ms.
    pub tick: Duration,
    /// How much compiled code is kept in memory; what is in use stays beyond that. Default 512 MiB, for components of 130 MiB or so.
    pub loaded_bytes: u64,
    /// Where compiled code is kept between starts: a folder for this user alone. Default: nowhere.
    pub cache_dir: Option<PathBuf>,
    /// How much of it. Default 1 GiB.
    pub cache_bytes: u64,
    /// By which compiled code of other hosts is known. Default: none, and nothing is shared.
    pub code_key: Option<CodeKey>,
    /// How components are compiled. Default: in this process, which no stranger's component should be.
    pub compiler: Compiler,
    /// What compiling a component may take of memory. Default 2 GiB.
    pub compile_memory_bytes: u64,
    /// What compiling a component may take of the processors, all together. Default 2 min.
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

/// The sandbox. Clones are the same one; its ticker and its threads end with the last.
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
    /// For those that are being loaded.
    turns: Turns,
    /// For the compiler.
    line: Arc<Line>,
    /// What the compiler has refused after much work.
    hopeless: Mutex<Recent<Digest, UploadError>>,
    /// One permit for each slot of the pool.
    slots: Arc<Semaphore>,
    /// Where guests go on that compute for long.
    heavy: Heavy,
}

/// Components that are compiled at the same time. Cranelift takes all processors for a component, and leaves some idle at its
/// beginning and end; more at a time would only take memory. With two, a tenant's component never waits for another's alone.
const COMPILATIONS: std::ops::RangeInclusive<usize> = 2..=4;
const MOST_HOPELESS: u64 = 10_000;

/// Trouble of the host's own. Nothing is known about the step: its attempt is to be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No slot came free before the deadline.
    #[error("the sandbox is busy: {0}")]
    Busy(String),
    #[error(transparent)]
    KeyValue(#[from] Unavailable),
    #[error("the sandbox failed: {0}")]
    Engine(String),
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("allocation", &self.inner.allocation).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts the engine, its ticker, and the threads for heavy guests. A slower allocation than wanted, or a cache folder
    /// that can't be used, is told in the log.
    ///
    /// # Errors
    /// The machine can't run WebAssembly at all, or gives no threads.
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
                Ok(_) => tracing::info!(cache.dir = %dir.display(), "compiled code is kept between starts"),
                Err(error) => {
                    tracing::warn!(cache.dir = %dir.display(), %error, "compiled code isn't kept between starts");
                }
            }
            opened.ok()
        });
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let compilations = processors.clamp(*COMPILATIONS.start(), *COMPILATIONS.end());
        let slots = Arc::new(Semaphore::new(options.max_instances as usize));
        let heavy =
            Heavy::start().map_err(|error| Error::Engine(format!("no threads for heavy guests: {error}")))?;
        tracing::info!(allocation = ?allocation, max_instances = options.max_instances, "sandbox is ready");
        let loaded = Mutex::new(Recent::new(options.loaded_bytes));
        let inner = Inner {
            options,
            allocation,
            engine,
            linker,
            compatibility,
            folder,
            loaded,
            turns: Turns::default(),
            line: Line::new(compilations),
            hopeless: Mutex::new(Recent::new(MOST_HOPELESS)),
            slots,
            heavy,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives up all that is compiled or waits for it, and compiles nothing any more.
    pub fn stop_compiling(&self) {
        self.inner.line.close();
    }

    /// What the machine allowed.
    pub fn allocation(&self) -> Allocation {
        self.inner.allocation
    }

    /// Waits for the slots of the pool that an instance takes, so that the pool itself is never exhausted. The permit goes
    /// with the instance.
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
            Err(_) => Err(Error::Busy("no instance came free before the deadline".into())),
        }
    }

    /// The engine, for measurements that compare a call with Wasmtime alone.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }
}
