//! Checking and deploying source files.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aster_core::id::{Digest, TenantId};
use aster_core::plan::Plan;
use aster_core::wit::Exports;
use aster_dsl::{Checked, Diagnostic, Severity};
use sha2::{Digest as _, Sha256};

use super::{Error, Registry, View};
use crate::store::{self, NewDefinition};

/// The result of a deployment, for each function of the file.
#[derive(Clone, Debug)]
pub struct Deployed {
    pub definitions: Vec<DeployedDefinition>,
    /// The warnings. A file with errors isn't deployed.
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Clone, Debug)]
pub struct DeployedDefinition {
    /// The full name.
    pub name: String,
    /// SHA-256 of the source.
    pub digest: Digest,
    /// The path that the definition answers.
    pub trigger: Option<String>,
    /// False if this source was already deployed.
    pub created: bool,
}

/// Paths that the host itself answers. A trigger's path may neither be one of them nor lie below one.
const OWN_PATHS: [&str; 9] = [
    "/api/components",
    "/api/definitions",
    "/api/workflows",
    "/docs",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/problems",
    "/readyz",
];

impl Registry {
    /// Returns the diagnostics of `source` against the tenant's active components. Nothing is deployed.
    pub async fn check(&self, tenant: &TenantId, file: &str, source: &str) -> Result<Vec<Diagnostic>, Error> {
        let view = self.view_of_now(tenant).await?;
        Ok(self.checked(&view, file, source).await.diagnostics)
    }

    /// Deploys either every function of `source` or nothing.
    ///
    /// # Errors
    /// Returns an error if the source has errors, or if something else already answers a trigger's path.
    pub async fn deploy(&self, tenant: &TenantId, file: &str, source: &str) -> Result<Deployed, Error> {
        let now = self.shared.store.clock().await?;
        loop {
            let view = self.view_of_now(tenant).await?;
            let checked = self.checked(&view, file, source).await;
            if checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
                return Err(Error::Diagnostics(checked.diagnostics));
            }
            refuse_taken_paths(&view, &checked.plans)?;
            let digest = Digest(Sha256::digest(source).into());
            let new: Vec<NewDefinition<'_>> = checked
                .plans
                .iter()
                .map(|plan| NewDefinition { digest, source, file_name: file, plan })
                .collect();
            let generation = view.snapshot.generation;
            let deployed = match self.shared.store.deploy_definitions(tenant, &new, now, generation).await {
                Err(store::Error::RegistryMoved { .. }) => continue,
                done => done?.0,
            };
            let definitions =
                deployed.into_iter().zip(&checked.plans).map(|(deployed, plan)| DeployedDefinition {
                    name: deployed.name,
                    digest: deployed.digest,
                    trigger: plan.trigger.as_ref().map(|trigger| trigger.path.clone()),
                    created: deployed.is_new,
                });
            return Ok(Deployed { definitions: definitions.collect(), diagnostics: checked.diagnostics });
        }
    }

    /// Runs the check on a thread for blocking work.
    async fn checked(&self, view: &Arc<View>, file: &str, source: &str) -> Checked {
        let (view, file, source) = (Arc::clone(view), file.to_owned(), source.to_owned());
        self.shared.checks.run(move || check_in(&view, &file, &source)).await
    }

    /// Returns the definition that answers `POST path`, if there is one.
    pub async fn trigger(&self, tenant: &TenantId, path: &str) -> Result<Option<String>, Error> {
        Ok(self.shared.store.find_trigger(tenant, path).await?)
    }
}

fn check_in(view: &View, file: &str, source: &str) -> Checked {
    let components = view.snapshot.components.iter();
    let exports: BTreeMap<String, &Exports> =
        components.map(|(name, active)| (name.clone(), &active.exports)).collect();
    aster_dsl::check_with(file, source, &exports)
}

/// Refuses triggers whose paths are taken. A trigger answers `POST path` and `GET path/{key}/status`; it must not
/// collide with the host's own paths, or with those of other definitions, including those in the same file.
fn refuse_taken_paths(view: &View, deployed: &[Plan]) -> Result<(), Error> {
    // A definition that this file deploys again counts with its new trigger.
    let new: HashSet<&str> = deployed.iter().map(|plan| plan.name.as_str()).collect();
    let current = view.snapshot.definitions.values().map(|definition| &definition.plan);
    let all: Vec<(&str, &str)> = current
        .filter(|plan| !new.contains(plan.name.as_str()))
        .chain(deployed)
        .filter_map(|plan| Some((plan.name.as_str(), plan.trigger.as_ref()?.path.as_str())))
        .collect();
    for plan in deployed {
        let Some(path) = plan.trigger.as_ref().map(|trigger| &trigger.path) else { continue };
        let taken = |by: String| Err(Error::TriggerTaken { path: path.clone(), by });
        let is_own = |own: &&&str| {
            path.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(own) = OWN_PATHS.iter().find(is_own) {
            return taken(format!("the host itself (`{own}`)"));
        }
        for (name, other) in all.iter().filter(|(name, _)| *name != plan.name) {
            if path == other || is_status(path, other) || is_status(other, path) {
                return taken(format!("definition `{name}`"));
            }
        }
    }
    Ok(())
}

/// Returns whether `path` is `trigger/{key}/status`.
fn is_status(path: &str, trigger: &str) -> bool {
    let key = path.strip_prefix(trigger).and_then(|rest| rest.strip_prefix('/')?.strip_suffix("/status"));
    key.is_some_and(|key| !key.is_empty())
}
