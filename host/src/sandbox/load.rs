//! From uploaded bytes to a component that can be called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aster_core::id::{Digest, TenantId, WorkflowId};
use aster_core::wit::{Exports, Function, LookupError};
use aster_runner::call::{CallLimits, Context, Direction};
use aster_runner::session::{InMemory, Session};
use bytes::Bytes;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use super::capability::{OFFERED, State};
use super::engine::MAX_MEMORIES_PER_COMPONENT;
use super::limits::{self, MemoryExceeded};
use super::weight::Weight;
use super::{Sandbox, exports, failure};

/// The memory that the smallest component takes, as measured, and the memory for each byte of a component's image.
/// Wasmtime keeps data about its functions and types, and images of its memories.
const BYTES_PER_COMPONENT: u64 = 64 << 10;
const BYTES_PER_IMAGE_BYTE: u64 = 2;
/// An upload must start within these limits of fuel and time. Compiling isn't counted.
const START_LIMITS: (u64, Duration) = (1_000_000_000, Duration::from_secs(10));

/// A component version, compiled and linked, on which calls are made. There is one for each digest, which is shared.
pub struct Loaded {
    digest: Digest,
    exports: Exports,
    warnings: Vec<String>,
    pub(super) pre: InstancePre<State>,
    /// The index for each of `exports.functions`, in the same order.
    indices: Vec<ComponentExportIndex>,
    /// The number of the sandbox's slots that an instance takes.
    pub(super) slots: u32,
    /// What is known from its calls.
    pub(super) weight: Arc<Weight>,
}

/// A function of the [`Loaded`] that returned this handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionHandle(usize);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Loaded {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Returns warnings for whoever uploads the component, one sentence each, about functions that can't be called.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Finds a function with [`Exports::find_function`].
    ///
    /// # Errors
    /// Returns an error if no function or more than one matches, or if it can't be called.
    pub fn find(&self, interface: Option<&str>, name: &str) -> Result<FunctionHandle, FindError> {
        let found = self.exports.find_function(interface, name)?;
        if let Some(opaque) = found.opaque() {
            return Err(FindError::NotCallable { name: found.qualified_name(), opaque: opaque.to_owned() });
        }
        let place = self.exports.functions.iter().position(|f| std::ptr::eq(f, found));
        Ok(FunctionHandle(place.expect("it was found in this list")))
    }

    /// Returns the function's signature.
    ///
    /// # Panics
    /// Panics if the handle is of another component.
    pub fn function(&self, handle: FunctionHandle) -> &Function {
        &self.exports.functions[handle.0]
    }

    /// Serializes the code for storing and sharing. Returns `None` if there is no memory for that.
    pub(super) fn serialize(&self) -> Option<Vec<u8>> {
        self.pre.component().serialize().ok()
    }

    /// Returns the memory that the component takes: its code, what Wasmtime and this host know about its types, and
    /// images of its memories.
    pub(super) fn bytes(&self) -> u64 {
        let image = self.pre.component().image_range();
        let image = (image.end.addr() - image.start.addr()) as u64;
        BYTES_PER_COMPONENT + image.saturating_mul(BYTES_PER_IMAGE_BYTE) + exports::bytes(&self.exports)
    }

    pub(super) fn index(&self, handle: FunctionHandle) -> &ComponentExportIndex {
        &self.indices[handle.0]
    }
}

/// Why a function can't be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("`{name}` can't be called: a {opaque} in its signature has no JSON form")]
    NotCallable { name: String, opaque: String },
}

/// What is wrong with an upload. The message says what it is and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    #[error("{}", not_wasm(.0))]
    NotWebAssembly(&'static str),
    #[error(
        "this is a core WebAssembly module, not a component: build for `wasm32-wasip2`, or wrap it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    #[error(
        "the component is cut off or damaged: a part of it should continue to byte {wanted}, but the file ends at byte {ends}; \
         upload it again"
    )]
    CutOff { ends: usize, wanted: usize },
    #[error("the component has {size}, more than the limit of {limit}", size = limits::bytes(*.size as u64), limit = limits::bytes(*.limit as u64))]
    TooLarge { size: usize, limit: usize },
    #[error(
        "this is not a valid component: {0}; upload it again if it was damaged on its way, or rebuild it"
    )]
    Invalid(String),
    #[error("the component is too complex: {0}")]
    TooComplex(String),
    #[error(
        "the component is built for asynchronous calls: it has {0}, which this host doesn't run; build it for synchronous \
         calls and for WASI 0.2 (`componentize-qjs` does so with `--sync`)"
    )]
    NeedsAsync(&'static str),
    #[error(
        "the component needs a part of WebAssembly that this host doesn't have: {0}; build the component without it"
    )]
    Unsupported(String),
    #[error(
        "compiling the component takes more than {0}: make it smaller or split it, or have the host's operator allow more"
    )]
    TooCostly(String),
    #[error(
        "the compiler crashed on the component ({0}): this is a bug of the compiler, please report it; another version or \
         other settings of your toolchain may avoid it"
    )]
    CompilerCrashed(String),
    #[error(
        "the component imports {}, which this host doesn't offer; it offers {}",
        list(missing), OFFERED.join(", ")
    )]
    UnknownImports { missing: Vec<String> },
    #[error(
        "the component imports something in a form that this host doesn't offer: {why}; build it for the interfaces \
         of this host: {offered}", why = .0, offered = OFFERED.join(", ")
    )]
    UnfitImports(String),
    #[error("the component doesn't fit into the sandbox: {0}")]
    TooBig(String),
    #[error("the component doesn't start: {0}")]
    DoesNotStart(String),
    /// The upload is not at fault, and may succeed in a while.
    #[error("the component wasn't compiled: {0}; try again in a while")]
    Busy(String),
    /// The upload is not at fault.
    #[error("the host couldn't compile the component: {0}")]
    Host(String),
}

impl UploadError {
    /// Returns whether the compiler worked hard to find the fault, and would find it again.
    pub(super) fn is_worth_keeping(&self) -> bool {
        matches!(self, Self::TooCostly(_) | Self::CompilerCrashed(_))
    }
}

impl Sandbox {
    /// Links a component, wherever its code came from.
    pub(super) fn link(&self, digest: Digest, component: Component) -> Result<Loaded, UploadError> {
        let engine = &self.inner.engine;
        let pre = self.inner.linker.instantiate_pre(&component).map_err(|error| {
            match missing_imports(engine, &component) {
                missing if missing.is_empty() => UploadError::UnfitImports(chain(&error)),
                missing => UploadError::UnknownImports { missing },
            }
        })?;
        let exports::Read { exports, indices, not_listed } =
            exports::read(engine, &component).map_err(|exports::TooComplex(most)| {
                UploadError::TooComplex(format!(
                    "written out, its types have more than {most} parts: nest them less, or split it into several components"
                ))
            })?;
        let warnings = exports.functions.iter().filter_map(warning).chain(not_listed).collect();
        let slots = component.resources_required().map_or(MAX_MEMORIES_PER_COMPONENT, |needed| {
            needed.num_memories.max(needed.num_tables.div_ceil(2)).clamp(1, MAX_MEMORIES_PER_COMPONENT)
        });
        Ok(Loaded { digest, exports, warnings, pre, indices, slots, weight: Arc::default() })
    }

    /// Makes one instance and calls nothing on it. A start function that traps, or memory beyond a limit, shows now.
    pub(super) async fn try_start(&self, loaded: &Loaded) -> Result<(), UploadError> {
        let (fuel, time) = START_LIMITS;
        let limits = CallLimits {
            fuel,
            memory_bytes: self.inner.options.max_memory_bytes,
            deadline: Instant::now() + time,
        };
        let context = Context {
            workflow_id: WorkflowId(uuid::Uuid::nil()),
            definition: "upload".into(),
            step: "upload".into(),
            attempt: 1,
            deadline: None,
            tenant: TenantId::default(),
            call_number: 1,
            direction: Direction::Forward,
        };
        let session = Session::new(TenantId::default(), Arc::new(InMemory::default()));
        let deadline = tokio::time::Instant::from_std(limits.deadline);
        let slots =
            self.slots(loaded, deadline).await.map_err(|error| UploadError::Host(error.to_string()))?;
        let store = self.store(slots, limits, context, "upload".into(), session);
        let started = self.inner.heavy.run_apart(store.start(loaded.pre.clone())).await;
        match started {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => match error.downcast_ref::<MemoryExceeded>() {
                Some(exceeded) => Err(UploadError::TooBig(exceeded.to_string())),
                None if failure::is_hosts(&error) => Err(UploadError::Host(first_line(&error))),
                None => Err(UploadError::DoesNotStart(first_line(&error))),
            },
            Err(_) => Err(UploadError::DoesNotStart(format!("it took more than {} s", time.as_secs()))),
        }
    }
}

/// Returns a component's world as WIT text. It is for people, so it isn't made for a component that is only called.
///
/// # Errors
/// Returns an error only if the host fails. A component that WIT can't describe is described by its exports.
pub async fn wit_text(bytes: Bytes, exports: Exports) -> Result<String, UploadError> {
    let text = tokio::task::spawn_blocking(move || exports::wit_text(&bytes, &exports)).await;
    text.map_err(|error| UploadError::Host(error.to_string()))
}

/// Interprets Wasmtime's reason for not compiling a component.
pub(super) fn not_compiled(error: &wasmtime::Error) -> UploadError {
    let said = first_line(error);
    let marks =
        ["not enabled", "must be enabled", "support is", "not supported", "are disabled", "unsupported"];
    let is_unsupported = marks.iter().any(|mark| said.contains(mark))
        || (said.contains("require") && said.contains("feature"));
    if is_unsupported { UploadError::Unsupported(said) } else { UploadError::Invalid(said) }
}

/// Interprets Wasmtime's reason for not loading code that was just compiled.
pub(super) fn not_loaded(error: &wasmtime::Error) -> UploadError {
    let text = format!("{error:#}");
    if text.contains("pooling allocator") || text.contains("exceeds the limit") {
        UploadError::TooBig(first_line(error))
    } else {
        UploadError::Host(text)
    }
}

/// Returns the imports that the host doesn't offer. Instances that have only types need no provider.
fn missing_imports(engine: &wasmtime::Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    ty.imports(engine)
        .filter(|(name, item)| match &item.ty {
            ComponentItem::ComponentInstance(instance) => {
                !is_offered(name)
                    && instance.exports(engine).any(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
            }
            ComponentItem::Type(_) => false,
            _ => true,
        })
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn is_offered(import: &str) -> bool {
    OFFERED.iter().any(|offered| match offered.split_once('*') {
        Some((package, version)) => {
            import.starts_with(package)
                && import.split_once('@').is_some_and(|(_, v)| v.starts_with(&version[1..]))
        }
        None => import == *offered,
    })
}

fn warning(function: &Function) -> Option<String> {
    let opaque = function.opaque()?;
    Some(format!(
        "`{}` can't be called: a {opaque} in its signature has no JSON form",
        function.qualified_name()
    ))
}

fn first_line(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    text.lines().next().unwrap_or_default().chars().take(400).collect()
}

/// Joins the causes, from the outermost to the innermost.
fn chain(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(|cause| cause.to_string().lines().next().unwrap_or_default().to_owned());
    causes.collect::<Vec<_>>().join(": ").chars().take(400).collect()
}

fn not_wasm(why: &str) -> String {
    format!("this is not WebAssembly: {why}; upload the `.wasm` file that your toolchain built")
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
