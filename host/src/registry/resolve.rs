//! From a definition's name to what a new run of it pins.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aster_core::eval::{self, Env};
use aster_core::id::{Digest, TenantId};
use aster_core::wit::check::MAX_MISMATCHES;
use aster_core::wit::{Field, Mismatch, Type, check, normalize};
use serde_json::Value;

use super::{Error, Registry, Release, UNPOISONED, View};
use crate::store;

/// A definition as a submission finds it: pinned, compiled, ready to be called.
#[derive(Debug)]
pub struct Resolved {
    /// The full name.
    pub name: String,
    /// SHA-256 of the definition's source.
    pub digest: Digest,
    /// Of the registry in which this was resolved.
    pub generation: i64,
    pub release: Arc<Release>,
    /// The parameters with the types that their names stand for in this release.
    pub parameters: Vec<(String, Type)>,
}

impl Resolved {
    /// What in `input` doesn't fit the parameters; empty if it fits. With one parameter the input is its value, with
    /// several an object by their names, with none it is empty: null or `{}`.
    pub fn check_input(&self, input: &Value) -> Vec<Mismatch> {
        match self.parameters.as_slice() {
            [] if input.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
            [] => check(&Type::Unit, input, "input"),
            [(name, ty)] => check(ty, input, name),
            several => {
                let fields = several.iter().map(|(name, ty)| Field { name: name.clone(), ty: ty.clone() });
                let mut mismatches = check(&Type::Record(fields.collect()), input, "input");
                // A parameter's name is the source's, and not one of several spellings.
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

    /// An input that fits, as the workflow sees it: options that were left out are null, names are camelCase.
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

    /// What `keyed by` makes of `input`: none if the definition has no trigger.
    ///
    /// # Errors
    /// Why the input has no key, in one line.
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
    /// The definition of that full name, or of that own name where it is unique.
    ///
    /// # Errors
    /// There is none, or several, or it can't start now because a component is missing.
    pub async fn resolve(&self, tenant: &TenantId, name: &str) -> Result<Arc<Resolved>, Error> {
        let view = self.view(tenant).await?;
        match self.resolve_in(&view, tenant, name).await {
            // What is missing in a view, or was deleted since, may be otherwise now.
            Err(error) if !error.may_pass() => self.resolve_anew(tenant, name).await,
            resolved => resolved,
        }
    }

    /// The same, after the registry was seen to have moved.
    pub async fn resolve_anew(&self, tenant: &TenantId, name: &str) -> Result<Arc<Resolved>, Error> {
        let view = self.view_anew(tenant).await?;
        self.resolve_in(&view, tenant, name).await
    }

    /// Whether nothing in the tenant's registry has changed since this was resolved.
    ///
    /// # Errors
    /// The database is unreachable.
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
            release: ready(self.release(id.0).await?)?,
            parameters,
        });
        let mut all = view.resolved.lock().expect(UNPOISONED);
        all.insert(full_name.to_owned(), Arc::clone(&resolved), 1);
        drop(all);
        Ok(resolved)
    }
}

impl Registry {
    /// A definition's version, that of an earlier run say, with the components that are active now.
    ///
    /// # Errors
    /// The version is gone, or the active components don't offer what it calls.
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
        ready(self.release(id.0).await?)
    }
}

/// For a new run, or a repair: all that it may call can be called.
fn ready(release: Arc<Release>) -> Result<Arc<Release>, Error> {
    match release.set_aside() {
        Some(set_aside) => Err(Error::NotReady(set_aside.why.to_string())),
        None => Ok(release),
    }
}

fn active<'v>(view: &'v View, component: &str) -> Result<&'v store::ActiveComponent, Error> {
    view.snapshot.components.get(component).ok_or_else(|| {
        Error::NotReady(format!("component `{component}` has no active version: upload it and send again"))
    })
}

/// The full name that `name` stands for among the current definitions.
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
