//! Resolves the names of types to the types that components export.

use std::collections::BTreeMap;
use std::fmt;

use aster_core::name::kebab;
use aster_core::plan;
use aster_core::wit::lookup::has_words;
use aster_core::wit::{Exports, Type};

/// The name of a type stands for different types in different components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// The name as the source spells it.
    pub name: String,
    /// The components that export a type of this name, sorted.
    pub components: Vec<String>,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let components: Vec<String> = self.components.iter().map(|name| format!("`{name}`")).collect();
        write!(f, "type `{}` is exported with different shapes, by {}", self.name, components.join(" and "))
    }
}

impl std::error::Error for ResolveError {}

/// Resolves a type of the language to a type of WIT.
///
/// `components` are the components that the workflow calls ([`plan::Plan::components`]), by name. A name that none of them
/// exports stands for any JSON.
///
/// # Errors
///
/// Components export a name with different types.
pub fn resolve_type(ty: &plan::Type, components: &BTreeMap<String, Exports>) -> Result<Type, ResolveError> {
    let named = |name: &str| {
        let words = kebab(name);
        let exports = components.iter().flat_map(|(component, exports)| {
            let types = exports.types.iter().filter(|export| has_words(&export.name, &words));
            types.map(move |export| (component.as_str(), &export.ty))
        });
        one_of(name, exports)
    };
    resolve(ty, &named)
}

/// Does the same, with `named` to find the type of a name.
pub(super) fn resolve<'c>(
    ty: &plan::Type,
    named: &impl Fn(&str) -> Result<Option<&'c Type>, ResolveError>,
) -> Result<Type, ResolveError> {
    let boxed = |of: &plan::Type| resolve(of, named).map(Box::new);
    Ok(match ty {
        plan::Type::Text => Type::String,
        plan::Type::Int => Type::S64,
        plan::Type::Float | plan::Type::Double => Type::F64,
        plan::Type::Bool => Type::Bool,
        plan::Type::Unit => Type::Unit,
        // A workflow has no form in JSON.
        plan::Type::Json | plan::Type::Io | plan::Type::Workflow(_) => Type::Any,
        plan::Type::Named(name) => named(name)?.cloned().unwrap_or(Type::Any),
        plan::Type::List(of) => Type::List(boxed(of)?),
        plan::Type::Option(of) => Type::Option(boxed(of)?),
        plan::Type::Result(of) => {
            let payload = |of: Option<&plan::Type>| match of {
                None | Some(plan::Type::Unit) => Ok(None),
                Some(of) => boxed(of).map(Some),
            };
            Type::Result { ok: payload(of.first())?, err: payload(of.get(1))? }
        }
    })
}

/// The only type among the exports of this name, or `None` if there is no export.
pub(super) fn one_of<'e, 'c>(
    name: &str,
    exports: impl Iterator<Item = (&'e str, &'c Type)>,
) -> Result<Option<&'c Type>, ResolveError> {
    let mut found: Option<&Type> = None;
    let mut exporters = Vec::new();
    let mut differ = false;
    for (component, ty) in exports {
        differ |= found.is_some_and(|other| other != ty);
        found.get_or_insert(ty);
        exporters.push(component.to_owned());
    }
    if differ {
        exporters.dedup();
        return Err(ResolveError { name: name.to_owned(), components: exporters });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use aster_core::wit::NamedType;

    use super::*;

    fn exporting(types: &[(&str, &str, Type)]) -> BTreeMap<String, Exports> {
        let mut components: BTreeMap<String, Exports> = BTreeMap::new();
        for (component, name, ty) in types {
            let named = NamedType { interface: None, name: (*name).to_owned(), ty: ty.clone() };
            components.entry((*component).to_owned()).or_default().types.push(named);
        }
        components
    }

    #[test]
    fn a_name_stands_for_the_type_that_is_exported_under_its_words() {
        let components = exporting(&[("a", "line-item", Type::Bool), ("b", "line-item", Type::Bool)]);
        let ty = plan::Type::List(Box::new(plan::Type::Named("LineItem".into())));
        assert_eq!(resolve_type(&ty, &components), Ok(Type::List(Box::new(Type::Bool))));
    }

    #[test]
    fn a_name_that_nobody_exports_is_any_json() {
        assert_eq!(resolve_type(&plan::Type::Named("Order".into()), &BTreeMap::new()), Ok(Type::Any));
    }

    #[test]
    fn a_name_with_two_types_is_an_error_that_names_both_components() {
        let components = exporting(&[("a", "order", Type::Bool), ("b", "order", Type::String)]);
        let error = resolve_type(&plan::Type::Named("Order".into()), &components).expect_err("they differ");
        assert_eq!(error.to_string(), "type `Order` is exported with different shapes, by `a` and `b`");
    }

    #[test]
    fn a_result_without_payload_is_written_with_unit() {
        let ty = plan::Type::Result(vec![plan::Type::Unit, plan::Type::Text]);
        let expected = Type::Result { ok: None, err: Some(Box::new(Type::String)) };
        assert_eq!(resolve_type(&ty, &BTreeMap::new()), Ok(expected));
    }
}
