//! Resolving a definition's name to the release that a new run of it pins.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aster_core::eval::{self, Env};
use aster_core::id::{Digest, TenantId};
use aster_core::wit::check::MAX_MISMATCHES;
use aster_core::wit::{Field, Mismatch, Type, check, normalize};
use serde_json::Value;

use super::{Error, Registry, Release, UNPOISONED, View};
use crate::store;

/// A definition as a submission finds it: pinned, compiled and ready to be called.
#[derive(Debug)]
pub struct Resolved {
    /// The full name.
    pub name: String,
    /// SHA-256 of the definition's source.
    pub digest: Digest,
    /// The generation of the registry in which this was resolved.
    pub generation: i64,
    pub release: Arc<Release>,
    /// The parameters, with the types that their names stand for in this release.
    pub parameters: Vec<(String, Type)>,
}

impl Resolved {
    /// Returns the mismatches between `input` and the parameters, or nothing if it fits. If the workflow has one
    /// parameter, the input is its value; if it has several, an object with a field for each; if it has none, null or
    /// `{}`.
    pub fn check_input(&self, input: &Value) -> Vec<Mismatch> {
        match self.parameters.as_slice() {
            [] if input.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
            [] => check(&Type::Unit, input, "input"),
            [(name, ty)] => check(ty, input, name),
            several => {
                let fields = several.iter().map(|(name, ty)| Field { name: name.clone(), ty: ty.clone() });
                let mut mismatches = check(&Type::Record(fields.collect()), input, "input");
                // A parameter has only the spelling in the source, unlike a field of a WIT type.
                let names: HashSet<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                let known: HashSet<&str> = mismatches.iter().map(|known| known.pointer.as_str()).collect();
                let given = input.as_object().into_iter().flat_map(|values| values.keys());
                let misspelled: Vec<Mismatch> = given
                    .filter(|given| !names.contains(given.as_str()))
                    .map(|given| (given, format!("/{}", given.replace('~', "~0").replace('/', "~1"))))
                    .filter(|(_, pointer)| !known.contains(pointer.as_str()))
                    .take(MAX_MISMATCHES)
                    .map(|(given, pointer)| Mismatch {
                        path: format!("input.{given}"),
                        pointer,
                        message: "the workflow has no such parameter".to_owned(),
                    })
                    .collect();
                mismatches.extend(misspelled);
                mismatches
            }
        }
    }

    /// Returns a fitting input as the workflow sees it: omitted options are null, and names are in camelCase.
    pub fn normalize(&self, input: Value) -> Value {
        match (self.parameters.as_slice(), input) {
            ([(_, ty)], input) => normalize(ty, input),
            (several, Value::Object(mut values)) => {
                for (name, ty) in several {
                    if let Some(value) = values.get_mut(name) {
                        *value = normalize(ty, value.take());
                    }
                }
                Value::Object(values)
            }
            (_, input) => input,
        }
    }

    /// Computes the key of `input` with `keyed by`. Returns `None` if the definition has no trigger.
    ///
    /// # Errors
    /// Returns one line that says why the input has no key.
    pub fn key(&self, input: &Value) -> Result<Option<String>, String> {
        let plan = &self.release.plan;
        let Some(trigger) = &plan.trigger else { return Ok(None) };
        let field = &trigger.key_field;
        match eval::pure(&trigger.key, Env::of_input(plan, input)) {
            Ok(Value::String(key)) => Ok(Some(key)),
            Ok(Value::Number(key)) => Ok(Some(key.to_string())),
            Ok(Value::Null) => Err(format!("the key `{field}` is missing")),
            Ok(_) => Err(format!("the key `{field}` is neither a text nor a number")),
            Err(failure) => Err(format!("the key `{field}` can't be computed: {}", failure.message)),
        }
    }
}

impl Registry {
    /// Resolves the definition with this full name, or with this function's name if it is unique.
    ///
    /// # Errors
    /// Returns an error if there is no such definition, if there are several, or if it can't start now because a
    /// component is missing.
    pub async fn resolve(&self, tenant: &TenantId, name: &str) -> Result<Arc<Resolved>, Error> {
        let view = self.view(tenant).await?;
        match self.resolve_in(&view, tenant, name).await {
            // A definition or component that an old view lacks may exist by now.
            Err(error) if !error.may_pass() => self.resolve_anew(tenant, name).await,
            resolved => resolved,
        }
    }

    /// Resolves the definition in the current registry, after the registry was seen to have moved.
    pub async fn resolve_anew(&self, tenant: &TenantId, name: &str) -> Result<Arc<Resolved>, Error> {
        let view = self.view_anew(tenant).await?;
        self.resolve_in(&view, tenant, name).await
    }

    /// Returns whether the tenant's registry has not changed since this was resolved.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable.
    pub async fn is_current(&self, resolved: &Resolved, tenant: &TenantId) -> Result<bool, Error> {
        Ok(self.shared.store.generation(tenant).await? == resolved.generation)
    }

    async fn resolve_in(&self, view: &View, tenant: &TenantId, name: &str) -> Result<Arc<Resolved>, Error> {
        let full_name = full_name(view, name)?;
        let known = view.resolved.lock().expect(UNPOISONED).get(full_name);
        if let Some(resolved) = known {
            return Ok(resolved);
        }
        let definition = &view.snapshot.definitions[full_name];
        let mut digests = BTreeMap::new();
        let mut exports = BTreeMap::new();
        for component in definition.plan.components() {
            let active = active(view, &component)?;
            digests.insert(component.clone(), active.digest);
            exports.insert(component, active.exports.clone());
        }
        let mut parameters = Vec::new();
        for parameter in &definition.plan.parameters {
            let ty = aster_dsl::resolve_type(&parameter.ty, &exports)
                .map_err(|error| Error::NotReady(format!("parameter `{}`: {error}", parameter.name)))?;
            parameters.push((parameter.name.clone(), ty));
        }
        let release = store::Release {
            tenant: tenant.clone(),
            definition: full_name.to_owned(),
            definition_digest: definition.digest,
            components: digests,
        };
        let id = self.shared.store.intern_release(&release).await?;
        let resolved = Arc::new(Resolved {
            name: full_name.to_owned(),
            digest: definition.digest,
            generation: view.snapshot.generation,
            release: ready(self.release(id).await?)?,
            parameters,
        });
        let mut all = view.resolved.lock().expect(UNPOISONED);
        all.insert(full_name.to_owned(), Arc::clone(&resolved), 1);
        drop(all);
        Ok(resolved)
    }
}

impl Registry {
    /// Makes a release of a definition's version, for example that of an earlier run, with the components that are
    /// active now.
    ///
    /// # Errors
    /// Returns an error if the version no longer exists, or if the active components don't offer the functions that it
    /// calls.
    pub async fn release_of_active(
        &self,
        tenant: &TenantId,
        name: &str,
        version: Digest,
    ) -> Result<Arc<Release>, Error> {
        let view = self.view_anew(tenant).await?;
        let stored = self.shared.store.load_definition_version(tenant, name, version).await?;
        let stored = stored.ok_or_else(|| Error::NotFound { kind: "definition", name: name.to_owned() })?;
        let mut components = BTreeMap::new();
        for component in stored.plan.components() {
            components.insert(component.clone(), active(&view, &component)?.digest);
        }
        let release = store::Release {
            tenant: tenant.clone(),
            definition: name.to_owned(),
            definition_digest: version,
            components,
        };
        let id = self.shared.store.intern_release(&release).await?;
        ready(self.release(id).await?)
    }
}

/// Checks that all components of a release can be called, as a new run or a repair needs them.
fn ready(release: Arc<Release>) -> Result<Arc<Release>, Error> {
    match release.set_aside() {
        Some(set_aside) => Err(Error::NotReady(set_aside.why.to_string())),
        None => Ok(release),
    }
}

fn active<'v>(view: &'v View, component: &str) -> Result<&'v store::ActiveComponent, Error> {
    view.snapshot.components.get(component).ok_or_else(|| {
        Error::NotReady(format!(
            "component `{component}` has no active version: activate one and send the request again"
        ))
    })
}

/// Returns the full name that `name` stands for among the current definitions.
fn full_name<'v>(view: &'v View, name: &str) -> Result<&'v str, Error> {
    let definitions = &view.snapshot.definitions;
    if let Some((full, _)) = definitions.get_key_value(name) {
        return Ok(full);
    }
    let of_that_function =
        definitions.keys().filter(|full| full.rsplit_once('.').is_some_and(|(_, own)| own == name));
    match of_that_function.collect::<Vec<_>>().as_slice() {
        [] => Err(Error::NotFound { kind: "definition", name: name.chars().take(200).collect() }),
        [one] => Ok(one),
        several => Err(Error::Ambiguous {
            name: name.to_owned(),
            candidates: several.iter().map(|full| (*full).clone()).collect(),
        }),
    }
}
