//! The registered components, with their exports by the words of the names, and the components that a workflow calls.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use aster_core::name::kebab;
use aster_core::wit::{Exports, Function, NamedType, Type};

use super::resolve::{self, ResolveError};
use crate::ast::TypeExpr;

/// All registered components.
pub(crate) struct Components<'c> {
    pub(super) all: BTreeMap<&'c str, &'c Exports>,
    /// The indices of the components that were called so far.
    indices: RefCell<HashMap<&'c str, Rc<Index<'c>>>>,
}

/// The exports of one component, by the words of their names.
pub(super) struct Index<'c> {
    pub(super) exports: &'c Exports,
    functions: HashMap<String, Vec<Export<'c>>>,
    types: HashMap<String, Vec<&'c NamedType>>,
}

pub(super) struct Export<'c> {
    pub(super) function: &'c Function,
    opaque: OnceCell<Option<&'c str>>,
}

/// The registered components that a workflow calls.
pub(super) struct Called<'c> {
    pub(super) by_name: BTreeMap<String, Rc<Index<'c>>>,
    /// Whether a called component is missing, so that its exports are unknown.
    pub(super) missing: bool,
    types: RefCell<HashMap<String, Result<Option<&'c Type>, ResolveError>>>,
}

impl<'c> Components<'c> {
    pub(crate) fn new(all: BTreeMap<&'c str, &'c Exports>) -> Self {
        Self { all, indices: RefCell::default() }
    }

    pub(super) fn index(&self, name: &str) -> Option<Rc<Index<'c>>> {
        let (&name, &exports) = self.all.get_key_value(name)?;
        let mut indices = self.indices.borrow_mut();
        Some(Rc::clone(indices.entry(name).or_insert_with(|| Rc::new(Index::new(exports)))))
    }
}

impl<'c> Index<'c> {
    fn new(exports: &'c Exports) -> Self {
        let mut functions: HashMap<String, Vec<Export<'c>>> = HashMap::new();
        for function in &exports.functions {
            let export = Export { function, opaque: OnceCell::new() };
            functions.entry(kebab(&function.name)).or_default().push(export);
        }
        let mut types: HashMap<String, Vec<&'c NamedType>> = HashMap::new();
        for export in &exports.types {
            types.entry(kebab(&export.name)).or_default().push(export);
        }
        Self { exports, functions, types }
    }

    /// The functions of that name in all interfaces.
    pub(super) fn functions(&self, name: &str) -> &[Export<'c>] {
        self.functions.get(&kebab(name)).map_or(&[], Vec::as_slice)
    }
}

impl<'c> Export<'c> {
    /// The first part of the signature that has no JSON, or `None` if all parts have.
    pub(super) fn opaque(&self) -> Option<&'c str> {
        *self.opaque.get_or_init(|| self.function.opaque())
    }
}

impl<'c> Called<'c> {
    pub(super) fn new(by_name: BTreeMap<String, Rc<Index<'c>>>, missing: bool) -> Self {
        Self { by_name, missing, types: RefCell::default() }
    }

    /// The type that the components export under this name, or `None` if there is none.
    pub(super) fn named(&self, name: &str) -> Result<Option<&'c Type>, ResolveError> {
        let words = kebab(name);
        if let Some(known) = self.types.borrow().get(&words) {
            // The error spells the name as this caller does.
            let respelled = |error: &ResolveError| ResolveError { name: name.to_owned(), ..error.clone() };
            return known.as_ref().map(|ty| *ty).map_err(respelled);
        }
        let exports = self.by_name.iter().flat_map(|(component, index)| {
            let types = index.types.get(&words).into_iter().flatten();
            types.map(move |export| (component.as_str(), &export.ty))
        });
        let found = resolve::one_of(name, exports);
        self.types.borrow_mut().insert(words, found.clone());
        found
    }

    /// The type of the values of a type expression. A name that isn't exported, or not only once, may be anything.
    pub(super) fn resolve(&self, ty: &TypeExpr) -> Cow<'c, Type> {
        let named = |name: &str| self.named(name);
        match &ty.ty {
            aster_core::plan::Type::Named(name) => {
                named(name).ok().flatten().map_or(Cow::Owned(Type::Any), Cow::Borrowed)
            }
            ty => Cow::Owned(resolve::resolve(ty, &named).unwrap_or(Type::Any)),
        }
    }
}
