//! Releases: everything that a run pins, ready to be called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aster_core::id::{Digest, ReleaseId};
use aster_core::name;
use aster_core::plan::{Call, Plan};

use super::{Error, Registry, UNPOISONED};
use crate::sandbox::{FunctionHandle, Loaded};
use crate::store;

/// A definition's version, and the digest of every component that it can call. Releases are interned by this content.
#[derive(Debug)]
pub struct Release {
    pub id: ReleaseId,
    pub plan: Arc<Plan>,
    targets: HashMap<CallSite, Result<Target, SetAside>>,
}

/// A component that the release pins but this host can't load, because another version of the host accepted it, or this
/// host has other limits.
#[derive(Clone, Debug)]
pub struct SetAside {
    pub digest: Digest,
    /// One sentence with the component's name.
    pub why: Arc<str>,
}

/// The names of a call in the plan, as the source spells them.
type CallSite = (String, Option<String>, String);

/// The function that a call refers to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The component's registered name.
    pub component: Arc<str>,
    pub loaded: Arc<Loaded>,
    pub function: FunctionHandle,
}

impl Release {
    fn new(
        id: ReleaseId,
        plan: Plan,
        components: &BTreeMap<String, Result<Arc<Loaded>, SetAside>>,
    ) -> Result<Self, Error> {
        let mut targets = HashMap::new();
        for (_, call) in plan.calls() {
            let site = site(call);
            if targets.contains_key(&site) {
                continue;
            }
            let component = name::kebab(&call.capability);
            let loaded = components.get(&component).ok_or_else(|| {
                Error::NotReady(format!("there is no component `{component}`: upload it first"))
            })?;
            let target = match loaded {
                Ok(loaded) => {
                    let function = loaded
                        .find(call.interface.as_deref(), &call.function)
                        .map_err(|error| Error::NotReady(format!("component `{component}`: {error}")))?;
                    Ok(Target { component: component.as_str().into(), loaded: Arc::clone(loaded), function })
                }
                Err(set_aside) => Err(set_aside.clone()),
            };
            targets.insert(site, target);
        }
        Ok(Self { id, plan: Arc::new(plan), targets })
    }

    /// Returns the function that `call` refers to. `None` means that the call is of another release's plan.
    pub fn target(&self, call: &Call) -> Option<Result<&Target, &SetAside>> {
        self.targets.get(&site(call)).map(Result::as_ref)
    }

    /// Returns a component that can't be called on this host, if there is one.
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.targets.values().find_map(|target| target.as_ref().err())
    }
}

fn site(call: &Call) -> CallSite {
    (call.capability.clone(), call.interface.clone(), call.function.clone())
}

impl Registry {
    /// Loads the release with this id and its components, unless it is cached. Calls of a component that can't be
    /// loaded fail.
    ///
    /// # Errors
    /// Returns an error if the release doesn't exist, or if the database is unreachable.
    pub async fn release(&self, id: ReleaseId) -> Result<Arc<Release>, Error> {
        let known = self.shared.releases.lock().expect(UNPOISONED).get(&id);
        if let Some(release) = known {
            return Ok(release);
        }
        let stored = self.shared.store.load_release(id).await?;
        let stored = stored.ok_or_else(|| missing("release", &id.to_string()))?;
        let version = self
            .shared
            .store
            .load_definition_version(&stored.tenant, &stored.definition, stored.definition_digest)
            .await?
            .ok_or_else(|| missing("definition", &stored.definition))?;
        let components = self.loaded_by_name(stored.components).await?;
        let release = Arc::new(Release::new(id, version.plan, &components)?);
        // A component that was set aside may load the next time, because another host has shared its code or an
        // operator has restored its bytes.
        if release.set_aside().is_none() {
            self.shared.releases.lock().expect(UNPOISONED).insert(id, Arc::clone(&release), 1);
        }
        self.drop_releases_that_hold_code();
        Ok(release)
    }

    /// Drops releases that no run uses while more code is in memory than should be kept.
    fn drop_releases_that_hold_code(&self) {
        let sandbox = &self.shared.sandbox;
        if !sandbox.holds_too_much() {
            return;
        }
        for view in self.shared.views.lock().expect(UNPOISONED).values() {
            view.resolved.lock().expect(UNPOISONED).clear();
        }
        let mut releases = self.shared.releases.lock().expect(UNPOISONED);
        while releases.drop_oldest() && sandbox.holds_too_much() {}
    }
}

pub(super) fn missing(kind: &str, name: &str) -> Error {
    Error::Store(store::Error::NotFound { what: format!("{kind} `{name}`") })
}
