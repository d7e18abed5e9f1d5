//! Components and definitions by name: uploads, activations, deployments, and what a submission resolves to.
//!
//! What is current is a function of the tenant's registry at one generation. A view of it is kept until it turns out to be
//! old: whatever was decided on it names its generation, and is refused if that has moved. What was compiled or resolved
//! is kept by digest and by release, which never change.

mod checks;
mod code;
mod components;
mod definitions;
mod release;
mod resolve;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use aster_core::id::TenantId;
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
    /// Only an answer on a view that is current counts; an old one costs a repetition.
    views: Mutex<Recent<TenantId, View>>,
    releases: Mutex<Recent<i64, Release>>,
    /// Held by who hands compiled code on: as a copy it takes memory once more.
    sharing: tokio::sync::Mutex<()>,
    checks: Checks,
}

/// How many definitions of a view, and releases, are kept beside those in use. What is resolved holds its release, and a release
/// its components' code: where that is too much, they go before their number is reached.
const MOST_KEPT: u64 = 1_000;
/// What views may take, beside those in use: the types of components are most of them.
const BYTES_OF_VIEWS: u64 = 64 << 20;
/// The least that one takes, whatever is in it.
const BYTES_OF_A_VIEW: u64 = 32 << 10;

/// A tenant's registry at one generation, and what was resolved in it.
#[derive(Debug)]
struct View {
    snapshot: Snapshot,
    /// By full name.
    resolved: Mutex<Recent<String, Resolved>>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that can't be one; says what it may be.
    #[error("{0}")]
    InvalidName(String),
    /// The bytes are no component that could run here; says what they are and what to do.
    #[error("{0}")]
    InvalidComponent(String),
    /// The compiler has no time for it.
    #[error("{0}")]
    Busy(String),
    #[error("the component is {size} bytes, and at most {limit} are taken")]
    TooLarge { size: usize, limit: usize },
    /// The new version lacks what deployed definitions call.
    #[error("deployed definitions call what this version doesn't offer: {}", .0.join("; "))]
    Breaks(Vec<String>),
    #[error("the source has errors")]
    Diagnostics(Vec<Diagnostic>),
    #[error("the path `{path}` is already answered by {by}")]
    TriggerTaken { path: String, by: String },
    #[error("there is no {kind} `{name}`")]
    NotFound { kind: &'static str, name: String },
    #[error("`{name}` is the name of several definitions: {}", .candidates.join(", "))]
    Ambiguous { name: String, candidates: Vec<String> },
    /// The definition can't start now; it can when the component is there.
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
    /// Whether the same may succeed in a while.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Sandbox(_) | Self::Store(store::Error::Unavailable { .. }))
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

    /// The tenant's registry as it was when it was last read.
    async fn view(&self, tenant: &TenantId) -> Result<Arc<View>, Error> {
        let known = self.shared.views.lock().expect(UNPOISONED).get(tenant);
        match known {
            Some(view) => Ok(view),
            None => self.view_anew(tenant).await,
        }
    }

    /// The tenant's registry as it is now, read only if it has changed since it was read last.
    async fn view_of_now(&self, tenant: &TenantId) -> Result<Arc<View>, Error> {
        let known = self.shared.views.lock().expect(UNPOISONED).get(tenant);
        if let Some(view) = known
            && self.shared.store.generation(tenant).await? == view.snapshot.generation
        {
            return Ok(view);
        }
        self.view_anew(tenant).await
    }

    /// The tenant's registry, read now.
    async fn view_anew(&self, tenant: &TenantId) -> Result<Arc<View>, Error> {
        let snapshot = self.shared.store.registry_snapshot(tenant).await?;
        let view = Arc::new(View { snapshot, resolved: Mutex::new(Recent::new(MOST_KEPT)) });
        // Nothing was ever done in it: anybody can make up the name of a tenant.
        if view.snapshot.generation == 0 {
            return Ok(view);
        }
        let mut views = self.shared.views.lock().expect(UNPOISONED);
        // A slower reading must not replace a newer one.
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

/// The form in which a component's name is kept: its words in kebab-case, as it is matched.
///
/// # Errors
/// There is nothing of a name in it, or something else.
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
