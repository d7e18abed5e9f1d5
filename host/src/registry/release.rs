//! What a run pins, ready to be called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aster_core::id::Digest;
use aster_core::name;
use aster_core::plan::{Call, Plan};

use super::{Error, Registry, UNPOISONED};
use crate::sandbox::{FunctionHandle, Loaded};
use crate::store::{self, ReleaseId};

/// Interned by its content: a definition's version and the digest of every component that it can call.
#[derive(Debug)]
pub struct Release {
    pub id: i64,
    pub plan: Arc<Plan>,
    targets: HashMap<CallSite, Result<Target, SetAside>>,
}

/// A component that the release pins and this host can't load: it was taken by another version of the host, or within other limits.
#[derive(Clone, Debug)]
pub struct SetAside {
    pub digest: Digest,
    /// In one sentence, with the component's name.
    pub why: Arc<str>,
}

/// What a call in the plan names, as the source spells it.
type CallSite = (String, Option<String>, String);

/// The function that a call means.
#[derive(Clone, Debug)]
pub struct Target {
    /// Registered name.
    pub component: Arc<str>,
    pub loaded: Arc<Loaded>,
    pub function: FunctionHandle,
}

impl Release {
    fn new(
        id: i64,
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
                Error::NotReady(format!("component `{component}` is not there: upload it first"))
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

    /// For guests that are no components.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn without_code(id: i64, plan: Plan) -> Self {
        Self { id, plan: Arc::new(plan), targets: HashMap::new() }
    }

    /// The function that `call`, one of the plan's, means; none if the plan is of another release.
    pub fn target(&self, call: &Call) -> Option<Result<&Target, &SetAside>> {
        self.targets.get(&site(call)).map(Result::as_ref)
    }

    /// A component that can't be called on this host, if there is one.
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.targets.values().find_map(|target| target.as_ref().err())
    }
}

fn site(call: &Call) -> CallSite {
    (call.capability.clone(), call.interface.clone(), call.function.clone())
}

impl Registry {
    /// The release of that id, compiled; at once if it was asked for before. Calls of a component that can't be loaded fail.
    ///
    /// # Errors
    /// It doesn't exist, or the database is unreachable.
    pub async fn release(&self, id: i64) -> Result<Arc<Release>, Error> {
        let known = self.shared.releases.lock().expect(UNPOISONED).get(&id);
        if let Some(release) = known {
            return Ok(release);
        }
        let stored = self.shared.store.load_release(ReleaseId(id)).await?;
        let stored = stored.ok_or_else(|| missing("release", &id.to_string()))?;
        let version = self
            .shared
            .store
            .load_definition_version(&stored.tenant, &stored.definition, stored.definition_digest)
            .await?
            .ok_or_else(|| missing("definition", &stored.definition))?;
        let components = self.loaded_by_name(stored.components).await?;
        let release = Arc::new(Release::new(id, version.plan, &components)?);
        // What was set aside may be there the next time: another host has compiled it, or an operator has restored its bytes.
        if release.set_aside().is_none() {
            self.shared.releases.lock().expect(UNPOISONED).insert(id, Arc::clone(&release), 1);
        }
        self.drop_releases_that_hold_code();
        Ok(release)
    }

    /// Gives up releases that no run uses, while they hold more code than is to be kept in memory.
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
