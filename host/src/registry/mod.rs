//! Components and definitions by name: uploads, activations, deployments, and how a submission is resolved.
//!
//! What is current depends only on the tenant's registry at one generation. A view of it is cached until it turns out
//! to be outdated: every decision on a view names the view's generation, and is refused if the registry has moved.
//! Compiled code is cached by digest, and releases by their id, which never change their meaning.

mod checks;
mod code;
mod components;
mod definitions;
mod release;
mod resolve;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use aster_core::id::{ReleaseId, TenantId};
use aster_core::name;
use aster_dsl::Diagnostic;

use crate::recent::Recent;
use crate::sandbox::{self, Sandbox, UploadError};
use crate::store::{self, Snapshot, Store};

use self::checks::Checks;

pub use self::components::Uploaded;
pub use self::definitions::{Deployed, DeployedDefinition};
pub use self::release::{Release, SetAside, Target};
pub use self::resolve::Resolved;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    sandbox: Sandbox,
    /// A decision counts only if its view is current, so an outdated view costs a repetition and no more.
    views: Mutex<Recent<TenantId, View>>,
    releases: Mutex<Recent<ReleaseId, Release>>,
    /// Held while compiled code is shared, because each copy takes as much memory again.
    sharing: tokio::sync::Mutex<()>,
    checks: Checks,
}

/// How many resolved definitions of a view, and how many releases, are kept besides those in use. A resolved definition
/// holds its release, and a release holds the code of its components. If that takes too much memory, they are dropped
/// before this number is reached.
const MOST_KEPT: u64 = 1_000;
/// The memory for views besides those in use. The types of components are most of it.
const BYTES_OF_VIEWS: u64 = 64 << 20;
/// The least memory that a view is counted with.
const BYTES_OF_A_VIEW: u64 = 32 << 10;

/// A tenant's registry at one generation, with the definitions that were resolved in it.
#[derive(Debug)]
struct View {
    snapshot: Snapshot,
    /// Resolved definitions by full name.
    resolved: Mutex<Recent<String, Resolved>>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is not valid. The text says what is.
    #[error("{0}")]
    InvalidName(String),
    /// The bytes are not a component that can run here. The text says what they are and what to do.
    #[error("{0}")]
    InvalidComponent(String),
    /// The compiler is busy.
    #[error("{0}")]
    Busy(String),
    #[error("the component has {size} bytes; expected at most {limit}")]
    TooLarge { size: usize, limit: usize },
    /// The new version lacks functions that deployed definitions call.
    #[error("deployed definitions call functions that this version doesn't offer: {}", .0.join("; "))]
    Breaks(Vec<String>),
    #[error("the source has errors")]
    Diagnostics(Vec<Diagnostic>),
    #[error("the path `{path}` is already answered by {by}")]
    TriggerTaken { path: String, by: String },
    #[error("there is no {kind} `{name}`")]
    NotFound { kind: &'static str, name: String },
    #[error("`{name}` is the name of several definitions: {}", .candidates.join(", "))]
    Ambiguous { name: String, candidates: Vec<String> },
    /// The definition can't start now, but can once its components are there.
    #[error("{0}")]
    NotReady(String),
    #[error("{0}")]
    InUse(String),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Store(store::Error),
}

impl Error {
    /// Returns whether the same request may succeed in a while.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Sandbox(_) | Self::Store(store::Error::Unavailable { .. }))
    }
}

/// The runner needs to know only whether the error may pass.
impl From<Error> for aster_runner::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            error => Self::Other { may_pass: error.may_pass(), cause: Arc::new(error) },
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::PathTaken { path, definition } => {
                Self::TriggerTaken { path, by: format!("definition `{definition}`") }
            }
            store::Error::InUse { what, by } => Self::InUse(format!("{what} is in use: {by}")),
            other => Self::Store(other),
        }
    }
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            UploadError::Host(trouble) => Self::Sandbox(sandbox::Error::Engine(trouble)),
            busy @ UploadError::Busy(_) => Self::Busy(busy.to_string()),
            fault => Self::InvalidComponent(fault.to_string()),
        }
    }
}

impl Registry {
    pub fn new(store: Store, sandbox: Sandbox) -> Self {
        let shared = Shared {
            store,
            sandbox,
            views: Mutex::new(Recent::new(BYTES_OF_VIEWS)),
            releases: Mutex::new(Recent::new(MOST_KEPT)),
            sharing: tokio::sync::Mutex::default(),
            checks: Checks::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the tenant's registry as it was last read.
    async fn view(&self, tenant: &TenantId) -> Result<Arc<View>, Error> {
        let known = self.shared.views.lock().expect(UNPOISONED).get(tenant);
        match known {
            Some(view) => Ok(view),
            None => self.view_anew(tenant).await,
        }
    }

    /// Returns the current registry of the tenant. It is read only if it has changed since it was last read.
    async fn view_of_now(&self, tenant: &TenantId) -> Result<Arc<View>, Error> {
        let known = self.shared.views.lock().expect(UNPOISONED).get(tenant);
        if let Some(view) = known
            && self.shared.store.generation(tenant).await? == view.snapshot.generation
        {
            return Ok(view);
        }
        self.view_anew(tenant).await
    }

    /// Reads the tenant's registry.
    async fn view_anew(&self, tenant: &TenantId) -> Result<Arc<View>, Error> {
        let snapshot = self.shared.store.registry_snapshot(tenant).await?;
        let view = Arc::new(View { snapshot, resolved: Mutex::new(Recent::new(MOST_KEPT)) });
        // Nothing was ever done in this registry. It isn't cached, because a client can make up names of tenants.
        if view.snapshot.generation == 0 {
            return Ok(view);
        }
        let mut views = self.shared.views.lock().expect(UNPOISONED);
        // A slow reader must not replace a newer view.
        let newer = views.get(tenant).filter(|known| known.snapshot.generation >= view.snapshot.generation);
        if let Some(newer) = newer {
            return Ok(newer);
        }
        let types =
            view.snapshot.components.values().map(|active| sandbox::bytes_of_exports(&active.exports));
        let weight = BYTES_OF_A_VIEW + types.sum::<u64>();
        views.insert(tenant.clone(), Arc::clone(&view), weight);
        Ok(view)
    }
}

/// Returns the form of a component's name in which it is stored and matched: its words in kebab-case.
///
/// # Errors
/// Returns an error if the text is not a name.
pub fn component_name(text: &str) -> Result<String, Error> {
    let kebab = name::kebab(text);
    let fits = kebab.len() <= 64
        && kebab.starts_with(|first: char| first.is_ascii_lowercase())
        && kebab.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        return Ok(kebab);
    }
    let cut: String = text.chars().take(80).collect();
    Err(Error::InvalidName(format!(
        "`{cut}` can't be a component's name: expected a letter, then letters, digits, `-` or `_`, 64 characters at most"
    )))
}

const UNPOISONED: &str = "nothing panics while it is held";
