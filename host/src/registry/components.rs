//! Uploads, activations and deletions of components.

use std::sync::Arc;

use aster_core::id::{Digest, TenantId};
use aster_core::name;
use aster_core::time::Timestamp;
use aster_core::wit::{Break, Exports, fits::fits_calls};
use bytes::Bytes;

use super::{Error, Registry, component_name};
use crate::sandbox::{self, Behalf};
use crate::store::{self, Snapshot, Upload};

/// The result of an upload.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// The component's registered name: its words in kebab-case.
    pub name: String,
    pub digest: Digest,
    pub size_bytes: u64,
    pub uploaded_at: Timestamp,
    pub active: bool,
    /// False if this component already had a version with the same bytes.
    pub created: bool,
    pub exports: Exports,
    pub wit: String,
    /// Functions that are listed but can't be called, each with the reason.
    pub warnings: Vec<String>,
}

impl Registry {
    /// Compiles `bytes` and stores them as a version of `name`. The version becomes active at once if `activate` is
    /// set.
    ///
    /// # Errors
    /// Returns an error, and stores nothing, if the bytes are not a component that can run here, or if deployed
    /// definitions call functions that it doesn't offer.
    pub async fn upload(
        &self,
        tenant: &TenantId,
        name: &str,
        bytes: Bytes,
        activate: bool,
    ) -> Result<Uploaded, Error> {
        let name = component_name(name)?;
        let behalf = Behalf::Tenant(tenant.clone());
        let loaded = self.shared.sandbox.compile(behalf, bytes.clone()).await?;
        let wit = sandbox::wit_text(bytes.clone(), loaded.exports().clone()).await?;
        let digest = loaded.digest();
        let uploaded_at = self.shared.store.clock().await?;
        let registered = loop {
            let activate_at = match activate {
                true => Some(self.check_fit(tenant, &name, loaded.exports()).await?),
                false => None,
            };
            let upload = Upload {
                name: &name,
                digest,
                bytes: &bytes,
                exports: loaded.exports(),
                wit: &wit,
                uploaded_at,
                activate_at,
            };
            match self.shared.store.put_component_version(tenant, upload).await {
                Err(store::Error::RegistryMoved { .. }) => {}
                done => break done?,
            }
        };
        self.share_if_missing(Arc::clone(&loaded));
        let stored = self.shared.store.get_component(tenant, &name).await?;
        let version =
            stored.iter().flat_map(|component| &component.versions).find(|version| version.digest == digest);
        Ok(Uploaded {
            active: stored.as_ref().is_some_and(|component| component.active == Some(digest)),
            uploaded_at: version.map_or(uploaded_at, |version| version.uploaded_at),
            name,
            digest,
            size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            created: registered.is_new,
            exports: loaded.exports().clone(),
            wit,
            warnings: loaded.warnings().to_vec(),
        })
    }

    /// Makes a version the active one, which new runs pin.
    ///
    /// # Errors
    /// Returns an error if there is no such version, or if deployed definitions call functions that it doesn't offer.
    pub async fn activate(&self, tenant: &TenantId, name: &str, digest: Digest) -> Result<(), Error> {
        let name = component_name(name)?;
        let no_version = || Error::NotFound { kind: "version", name: format!("{name}@{digest}") };
        let Some(offer) = self.shared.store.load_offer(tenant, &name, digest).await? else {
            return match self.shared.store.get_component(tenant, &name).await? {
                None => Err(Error::NotFound { kind: "component", name }),
                Some(_) => Err(no_version()),
            };
        };
        loop {
            let checked_at = self.check_fit(tenant, &name, &offer.exports).await?;
            match self.shared.store.activate_component(tenant, &name, digest, checked_at).await {
                Err(store::Error::RegistryMoved { .. }) => {}
                Err(store::Error::NotFound { .. }) => return Err(no_version()),
                done => return done.map(|_| ()).map_err(Error::from),
            }
        }
    }

    /// Deletes a version that is neither active nor pinned by an unfinished run.
    pub async fn delete_version(&self, tenant: &TenantId, name: &str, digest: Digest) -> Result<(), Error> {
        let name = component_name(name)?;
        match self.shared.store.delete_component_version(tenant, &name, digest).await {
            Err(store::Error::NotFound { .. }) => {
                Err(Error::NotFound { kind: "version", name: format!("{name}@{digest}") })
            }
            done => done.map(|_| ()).map_err(Error::from),
        }
    }

    /// Checks that the current definitions can continue with `exports` as the active version of `component`. Returns
    /// the generation for which that holds.
    async fn check_fit(&self, tenant: &TenantId, component: &str, exports: &Exports) -> Result<i64, Error> {
        let view = self.view_anew(tenant).await?;
        let generation = view.snapshot.generation;
        let (component, exports) = (component.to_owned(), exports.clone());
        let breaks = self.shared.checks.run(move || breaks(&view.snapshot, &component, &exports)).await;
        if breaks.is_empty() { Ok(generation) } else { Err(Error::Breaks(breaks)) }
    }
}

/// More than this many tell a reader nothing new.
const MOST_BREAKS: usize = 100;

/// Returns the functions of `component` that current definitions call and `new` doesn't offer, each with its
/// definition. At most [`MOST_BREAKS`] are returned.
fn breaks(snapshot: &Snapshot, component: &str, new: &Exports) -> Vec<String> {
    let mut breaks = Vec::new();
    for (definition, current) in &snapshot.definitions {
        if breaks.len() >= MOST_BREAKS {
            break;
        }
        let mut calls: Vec<(Option<&str>, &str)> = current
            .plan
            .calls()
            .into_iter()
            .filter(|(_, call)| name::kebab(&call.capability) == component)
            .map(|(_, call)| (call.interface.as_deref(), call.function.as_str()))
            .collect();
        calls.sort_unstable();
        calls.dedup();
        match snapshot.components.get(component) {
            Some(active) => breaks.extend(
                fits_calls(&active.exports, new, calls)
                    .into_iter()
                    .take(MOST_BREAKS)
                    .map(|broken| format!("`{definition}`: {}", said(&broken))),
            ),
            None => {
                let missing = calls.into_iter().filter_map(|(interface, function)| {
                    let error = new.find_function(interface, function).err()?;
                    Some(format!("`{definition}`: component `{component}`: {error}"))
                });
                breaks.extend(missing.take(MOST_BREAKS));
            }
        }
    }
    breaks.truncate(MOST_BREAKS);
    breaks
}

fn said(broken: &Break) -> String {
    let Break { function, path, message } = broken;
    let at = if path.is_empty() { String::new() } else { format!(", {path}") };
    format!("`{function}`{at}: {message}")
}
