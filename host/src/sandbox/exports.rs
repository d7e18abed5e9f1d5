//! What a component exports, read from the component itself.

use aster_core::wit::{Case, Exports, Field, Function, NamedType, Type};
use wasmtime::Engine;
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex};
use wit_component::{DecodedWasm, WitPrinter};

/// Bounds what a component's types take in memory, in answers and in the database: they are written out structurally, so
/// a type of n levels can have 2ⁿ parts.
const MAX_TYPE_PARTS: usize = 50_000;

/// A component's types are too large to be written out.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooComplex;

/// The exports, and for each function the index by which an instance finds it.
pub(super) fn read(
    engine: &Engine,
    component: &Component,
) -> Result<(Exports, Vec<ComponentExportIndex>), TooComplex> {
    let mut reader = Reader { parts_left: MAX_TYPE_PARTS };
    let mut exports = Exports::default();
    let mut indices = Vec::new();
    let ty = component.component_type();
    // A type that a world declares itself is an import of the component: nobody provides it, it only has a name.
    for (name, item) in ty.imports(engine) {
        if let ComponentItem::Type(ty) = item.ty {
            exports.types.push(NamedType { interface: None, name: name.into(), ty: reader.ty(&ty)? });
        }
    }
    for (name, item) in ty.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(function) => {
                let Some(index) = component.get_export_index(None, name) else { continue };
                exports.functions.push(reader.function(None, name, &function)?);
                indices.push(index);
            }
            ComponentItem::Type(ty) => {
                let ty = reader.ty(&ty)?;
                exports.types.push(NamedType { interface: None, name: name.into(), ty });
            }
            ComponentItem::ComponentInstance(instance) => {
                let Some(parent) = component.get_export_index(None, name) else { continue };
                for (inner, item) in instance.exports(engine) {
                    match item.ty {
                        ComponentItem::ComponentFunc(function) => {
                            let Some(index) = component.get_export_index(Some(&parent), inner) else {
                                continue;
                            };
                            exports.functions.push(reader.function(Some(name), inner, &function)?);
                            indices.push(index);
                        }
                        ComponentItem::Type(ty) => exports.types.push(NamedType {
                            interface: Some(name.into()),
                            name: inner.into(),
                            ty: reader.ty(&ty)?,
                        }),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok((exports, indices))
}

/// The component's world as WIT text.
pub(super) fn wit_text(bytes: &[u8]) -> Result<String, String> {
    let decoded = wit_component::decode(bytes).map_err(|error| format!("{error:#}"))?;
    let nested: Vec<_> = match &decoded {
        DecodedWasm::Component(resolve, _) => {
            resolve.packages.iter().map(|(id, _)| id).filter(|id| *id != decoded.package()).collect()
        }
        DecodedWasm::WitPackage(..) => Vec::new(),
    };
    let mut printer = WitPrinter::default();
    printer.print(decoded.resolve(), decoded.package(), &nested).map_err(|error| format!("{error:#}"))?;
    Ok(printer.output.to_string())
}

struct Reader {
    parts_left: usize,
}

impl Reader {
    fn function(
        &mut self,
        interface: Option<&str>,
        name: &str,
        function: &types::ComponentFunc,
    ) -> Result<Function, TooComplex> {
        let params = function
            .params()
            .map(|(name, ty)| Ok(Field { name: name.into(), ty: self.ty(&ty)? }))
            .collect::<Result<_, _>>()?;
        let result = function.results().next().map(|ty| self.ty(&ty)).transpose()?;
        Ok(Function { interface: interface.map(Into::into), name: name.into(), params, result })
    }

    fn ty(&mut self, ty: &types::Type) -> Result<Type, TooComplex> {
        self.parts_left = self.parts_left.checked_sub(1).ok_or(TooComplex)?;
        Ok(match ty {
            types::Type::Bool => Type::Bool,
            types::Type::S8 => Type::S8,
            types::Type::U8 => Type::U8,
            types::Type::S16 => Type::S16,
            types::Type::U16 => Type::U16,
            types::Type::S32 => Type::S32,
            types::Type::U32 => Type::U32,
            types::Type::S64 => Type::S64,
            types::Type::U64 => Type::U64,
            types::Type::Float32 => Type::F32,
            types::Type::Float64 => Type::F64,
            types::Type::Char => Type::Char,
            types::Type::String => Type::String,
            types::Type::List(list) => Type::List(self.boxed(&list.ty())?),
            types::Type::Map(map) => Type::Map(self.boxed(&map.key())?, self.boxed(&map.value())?),
            types::Type::Record(record) => Type::Record(
                record
                    .fields()
                    .map(|f| Ok(Field { name: f.name.into(), ty: self.ty(&f.ty)? }))
                    .collect::<Result<_, _>>()?,
            ),
            types::Type::Tuple(tuple) => {
                Type::Tuple(tuple.types().map(|ty| self.ty(&ty)).collect::<Result<_, _>>()?)
            }
            types::Type::Variant(variant) => Type::Variant(
                variant
                    .cases()
                    .map(|c| {
                        let ty = c.ty.as_ref().map(|ty| self.ty(ty)).transpose()?;
                        Ok(Case { name: c.name.into(), ty })
                    })
                    .collect::<Result<_, _>>()?,
            ),
            types::Type::Enum(names) => Type::Enum(self.names(names.names())?),
            types::Type::Flags(names) => Type::Flags(self.names(names.names())?),
            types::Type::Option(option) => Type::Option(self.boxed(&option.ty())?),
            types::Type::Result(result) => Type::Result {
                ok: result.ok().map(|ty| self.boxed(&ty)).transpose()?,
                err: result.err().map(|ty| self.boxed(&ty)).transpose()?,
            },
            types::Type::Own(_) => Type::Opaque("resource".into()),
            types::Type::Borrow(_) => Type::Opaque("borrowed resource".into()),
            types::Type::Future(_) => Type::Opaque("future".into()),
            types::Type::Stream(_) => Type::Opaque("stream".into()),
            types::Type::ErrorContext => Type::Opaque("error context".into()),
            types::Type::FixedLengthList(_) => Type::Opaque("list of fixed length".into()),
        })
    }

    fn boxed(&mut self, ty: &types::Type) -> Result<Box<Type>, TooComplex> {
        self.ty(ty).map(Box::new)
    }

    fn names<'a>(
        &mut self,
        names: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<Vec<String>, TooComplex> {
        self.parts_left = self.parts_left.checked_sub(names.len()).ok_or(TooComplex)?;
        Ok(names.map(Into::into).collect())
    }
}
