//! Checks and deployments of source files.

use std::collections::BTreeMap;

use aster_core::id::{Digest, TenantId};
use aster_core::plan::Plan;
use aster_core::wit::Exports;
use aster_dsl::{Checked, Diagnostic, Severity};
use sha2::{Digest as _, Sha256};

use super::{Error, Registry, View};
use crate::store::{self, NewDefinition};

/// What a deployment made, for each function of the file.
#[derive(Clone, Debug)]
pub struct Deployed {
    pub definitions: Vec<DeployedDefinition>,
    /// Warnings; a file with errors isn't deployed.
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Clone, Debug)]
pub struct DeployedDefinition {
    /// The full name.
    pub name: String,
    /// SHA-256 of the source.
    pub digest: Digest,
    /// The path that it answers.
    pub trigger: Option<String>,
    /// False if this very source was deployed already.
    pub created: bool,
}

/// Paths that the host itself answers; a trigger's may not be one, nor lie below one.
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
    /// The diagnostics of `source` against the tenant's active components; deploys nothing.
    pub async fn check(&self, tenant: &TenantId, file: &str, source: &str) -> Result<Vec<Diagnostic>, Error> {
        let view = self.view_anew(tenant).await?;
        Ok(check_in(&view, file, source).diagnostics)
    }

    /// Deploys every function of `source`, or nothing.
    ///
    /// # Errors
    /// The source has errors, or a trigger's path is answered by someone else.
    pub async fn deploy(&self, tenant: &TenantId, file: &str, source: &str) -> Result<Deployed, Error> {
        let digest = Digest(Sha256::digest(source).into());
        let now = self.shared.store.clock().await?;
        loop {
            let view = self.view_anew(tenant).await?;
            let checked = check_in(&view, file, source);
            if checked.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
                return Err(Error::Diagnostics(checked.diagnostics));
            }
            for plan in &checked.plans {
                refuse_taken_path(plan, &view, &checked.plans)?;
            }
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

    /// The definition that answers `POST path`, if there is one.
    pub async fn trigger(&self, tenant: &TenantId, path: &str) -> Result<Option<String>, Error> {
        Ok(self.shared.store.find_trigger(tenant, path).await?)
    }
}

fn check_in(view: &View, file: &str, source: &str) -> Checked {
    let components = view.snapshot.components.iter();
    let exports: BTreeMap<String, Exports> =
        components.map(|(name, active)| (name.clone(), active.exports.clone())).collect();
    aster_dsl::check_with(file, source, &exports)
}

/// A trigger answers `POST path` and `GET path/{key}/status`; the host's own paths and those of other definitions, also of
/// the same file, are taken.
fn refuse_taken_path(plan: &Plan, view: &View, deployed: &[Plan]) -> Result<(), Error> {
    let Some(path) = plan.trigger.as_ref().map(|trigger| &trigger.path) else { return Ok(()) };
    let taken = |by: String| Err(Error::TriggerTaken { path: path.clone(), by });
    let is_own =
        |own: &&&str| path.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(own) = OWN_PATHS.iter().find(is_own) {
        return taken(format!("the host itself (`{own}`)"));
    }
    let others = view.snapshot.definitions.values().map(|definition| &definition.plan).chain(deployed);
    for other in others.filter(|other| other.name != plan.name) {
        // One that is deployed anew in this file counts as it will be.
        let is_old = deployed.iter().any(|new| new.name == other.name && !std::ptr::eq(new, other));
        let Some(trigger) = other.trigger.as_ref().filter(|_| !is_old) else { continue };
        if *path == trigger.path || is_status(path, &trigger.path) || is_status(&trigger.path, path) {
            return taken(format!("definition `{}`", other.name));
        }
    }
    Ok(())
}

/// Whether `path` is `trigger/{key}/status`.
fn is_status(path: &str, trigger: &str) -> bool {
    let key = path.strip_prefix(trigger).and_then(|rest| rest.strip_prefix('/')?.strip_suffix("/status"));
    key.is_some_and(|key| !key.is_empty())
}
