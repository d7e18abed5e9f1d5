//! Checks the workflows of the project against the interfaces of its components, which are read from their WIT.

use std::collections::BTreeMap;
use std::path::Path;

use aster_core::wit::{Case, Exports, Field, Function, NamedType, Type};
use aster_dsl::{check_with, render};
use wit_parser::{Resolve, TypeDefKind, WorldItem};

#[test]
fn the_workflows_fit_the_components_that_they_call() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let names = ["orders", "inventory", "payment", "shipping", "notification", "suppliers"];
    let components: BTreeMap<String, Exports> = names
        .map(|name| (name.to_owned(), exports(&root.join("guest-steps").join(name).join("wit/world.wit"))))
        .into();
    for name in ["order-fulfillment", "payment-compensation", "inventory-replenishment"] {
        let path = root.join("workflows").join(format!("{name}.aster"));
        let source = std::fs::read_to_string(&path).expect("the workflow is there");
        let checked = check_with(name, &source, &components);
        let report = render(name, &source, &checked.diagnostics, false);
        // A step that only reads or notifies has nothing to undo.
        assert!(checked.diagnostics.iter().all(|diagnostic| diagnostic.code == "E023"), "{report}");
        assert_eq!(checked.plans.len(), 1);
    }
}

fn exports(path: &Path) -> Exports {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut resolve = Resolve::default();
    let package = resolve.push_source("world.wit", &text).expect("the WIT is well-formed");
    let mut exports = Exports::default();
    for world in resolve.packages[package].worlds.values() {
        for item in resolve.worlds[*world].exports.values() {
            let WorldItem::Interface { id, .. } = item else { continue };
            let name = resolve.id_of(*id);
            for function in resolve.interfaces[*id].functions.values() {
                let params = function.params.iter();
                exports.functions.push(Function {
                    interface: name.clone(),
                    name: function.name.clone(),
                    params: params.map(|p| Field { name: p.name.clone(), ty: ty(&resolve, &p.ty) }).collect(),
                    result: function.result.as_ref().map(|result| ty(&resolve, result)),
                });
            }
            for (type_name, id) in &resolve.interfaces[*id].types {
                let ty = ty(&resolve, &wit_parser::Type::Id(*id));
                exports.types.push(NamedType { interface: name.clone(), name: type_name.clone(), ty });
            }
        }
    }
    exports
}

fn ty(resolve: &Resolve, of: &wit_parser::Type) -> Type {
    let boxed = |of: &wit_parser::Type| Box::new(ty(resolve, of));
    match of {
        wit_parser::Type::Bool => Type::Bool,
        wit_parser::Type::S8 => Type::S8,
        wit_parser::Type::U8 => Type::U8,
        wit_parser::Type::S16 => Type::S16,
        wit_parser::Type::U16 => Type::U16,
        wit_parser::Type::S32 => Type::S32,
        wit_parser::Type::U32 => Type::U32,
        wit_parser::Type::S64 => Type::S64,
        wit_parser::Type::U64 => Type::U64,
        wit_parser::Type::F32 => Type::F32,
        wit_parser::Type::F64 => Type::F64,
        wit_parser::Type::Char => Type::Char,
        wit_parser::Type::String => Type::String,
        wit_parser::Type::ErrorContext => Type::Opaque("error context".into()),
        wit_parser::Type::Id(id) => match &resolve.types[*id].kind {
            TypeDefKind::Type(alias) => ty(resolve, alias),
            TypeDefKind::Record(record) => Type::Record(
                record
                    .fields
                    .iter()
                    .map(|f| Field { name: f.name.clone(), ty: ty(resolve, &f.ty) })
                    .collect(),
            ),
            TypeDefKind::Variant(variant) => Type::Variant(
                variant
                    .cases
                    .iter()
                    .map(|case| Case {
                        name: case.name.clone(),
                        ty: case.ty.as_ref().map(|of| ty(resolve, of)),
                    })
                    .collect(),
            ),
            TypeDefKind::Enum(of) => Type::Enum(of.cases.iter().map(|case| case.name.clone()).collect()),
            TypeDefKind::Flags(of) => Type::Flags(of.flags.iter().map(|flag| flag.name.clone()).collect()),
            TypeDefKind::Tuple(of) => Type::Tuple(of.types.iter().map(|of| ty(resolve, of)).collect()),
            TypeDefKind::List(of) => Type::List(boxed(of)),
            TypeDefKind::Option(of) => Type::Option(boxed(of)),
            TypeDefKind::Map(key, value) => Type::Map(boxed(key), boxed(value)),
            TypeDefKind::Result(of) => {
                Type::Result { ok: of.ok.as_ref().map(boxed), err: of.err.as_ref().map(boxed) }
            }
            other => Type::Opaque(other.as_str().into()),
        },
    }
}
