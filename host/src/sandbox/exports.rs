//! The exports of a component, read from the component itself.

use aster_core::wit::{Case, Exports, Field, Function, NamedType, Type};
use wasmtime::Engine;
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex};
use wit_component::{DecodedWasm, WitPrinter};

/// The most parts that the types of exports may have. They are written out structurally in memory, in answers and in
/// the database, and again in each view of a tenant's registry. A type of n levels can have 2ⁿ parts, and a part takes
/// some 60 bytes.
const MAX_EXPORTED_PARTS: usize = 10_000;
/// The same for imports, whose types are only in the WIT text.
const MAX_IMPORTED_PARTS: usize = 50_000;
/// The most exports that an upload's warnings list as not callable.
const MAX_NOT_LISTED: usize = 20;

/// A component's types are too large to be written out, because they have more parts than this.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooComplex(pub(super) usize);

/// The exports of a component.
pub(super) struct Read {
    pub(super) exports: Exports,
    /// For each function, the index by which an instance finds it.
    pub(super) indices: Vec<ComponentExportIndex>,
    /// One sentence for each export that is neither a function nor a type, nor an interface of those.
    pub(super) not_listed: Vec<String>,
}

/// Reads the exports of a component.
pub(super) fn read(engine: &Engine, component: &Component) -> Result<Read, TooComplex> {
    let mut reader = Reader::new(MAX_EXPORTED_PARTS);
    let mut imports = Reader::new(MAX_IMPORTED_PARTS);
    let mut exports = Exports::default();
    let mut indices = Vec::new();
    let mut not_listed = Vec::new();
    let ty = component.component_type();
    for (name, item) in ty.imports(engine) {
        match item.ty {
            // A type that a world declares itself is an import of the component. It needs no provider, only a name.
            ComponentItem::Type(ty) => {
                exports.types.push(NamedType { interface: None, name: name.into(), ty: reader.ty(&ty)? });
            }
            // These types aren't stored, but they are written out in the WIT text.
            ComponentItem::ComponentInstance(instance) => imports.measure(engine, &instance)?,
            _ => {}
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
                        other => not_listed.extend(no_function(&format!("{name}.{inner}"), &other)),
                    }
                }
            }
            other => not_listed.extend(no_function(name, &other)),
        }
    }
    if not_listed.len() > MAX_NOT_LISTED {
        let left_out = not_listed.len() - MAX_NOT_LISTED;
        not_listed.truncate(MAX_NOT_LISTED);
        not_listed.push(format!("{left_out} more of its exports are not functions"));
    }
    Ok(Read { exports, indices, not_listed })
}

/// Returns why nothing of an export can be called, or `None` if nobody would expect that it can.
fn no_function(name: &str, item: &ComponentItem) -> Option<String> {
    let what = match item {
        ComponentItem::ComponentInstance(_) => "it is an instance within an instance",
        ComponentItem::Module(_) => "it is a core module",
        _ => return None,
    };
    Some(format!("nothing of `{name}` can be called: {what}"))
}

/// Returns the memory that the exports take, approximately.
pub(crate) fn bytes(exports: &Exports) -> u64 {
    let functions = exports.functions.iter().map(|function| {
        let Function { interface, name, params, result } = function;
        let names = name.len() + interface.as_ref().map_or(0, String::len);
        size_of::<Function>() + names + fields_bytes(params) + result.as_ref().map_or(0, type_bytes)
    });
    let types = exports.types.iter().map(|ty| {
        let names = ty.name.len() + ty.interface.as_ref().map_or(0, String::len);
        size_of::<NamedType>() + names + type_bytes(&ty.ty)
    });
    functions.chain(types).map(|bytes| bytes as u64).sum()
}

/// Returns the memory that a type takes besides the value itself.
fn type_bytes(ty: &Type) -> usize {
    let boxed = |inner: &Type| size_of::<Type>() + ALLOCATION + type_bytes(inner);
    match ty {
        Type::List(inner) | Type::Option(inner) => boxed(inner),
        Type::Map(key, value) => boxed(key) + boxed(value),
        Type::Result { ok, err } => [ok, err].into_iter().flatten().map(|inner| boxed(inner)).sum(),
        Type::Tuple(parts) => {
            ALLOCATION + parts.iter().map(|part| size_of::<Type>() + type_bytes(part)).sum::<usize>()
        }
        Type::Record(fields) => fields_bytes(fields),
        Type::Variant(cases) => {
            let case = |case: &Case| {
                size_of::<Case>() + ALLOCATION + case.name.len() + case.ty.as_ref().map_or(0, type_bytes)
            };
            ALLOCATION + cases.iter().map(case).sum::<usize>()
        }
        Type::Enum(names) | Type::Flags(names) => {
            ALLOCATION + names.iter().map(|name| size_of::<String>() + ALLOCATION + name.len()).sum::<usize>()
        }
        _ => 0,
    }
}

fn fields_bytes(fields: &[Field]) -> usize {
    let field = |field: &Field| size_of::<Field>() + ALLOCATION + field.name.len() + type_bytes(&field.ty);
    ALLOCATION + fields.iter().map(field).sum::<usize>()
}

/// The overhead of the allocator, which mostly rounds up.
const ALLOCATION: usize = 8;

/// Returns the component's world as WIT text. If WIT can't describe it, the text lists the exports instead.
pub(super) fn wit_text(bytes: &[u8], exports: &Exports) -> String {
    // The decoder panics on some components that Wasmtime accepts, such as one that exports a function under an
    // interface's name.
    let decoded = std::panic::catch_unwind(|| decoded(bytes));
    let decoded = decoded.unwrap_or_else(|_| Err("the decoder failed".to_owned()));
    decoded.unwrap_or_else(|error| described(exports, &error))
}

fn decoded(bytes: &[u8]) -> Result<String, String> {
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

fn described(exports: &Exports, why: &str) -> String {
    let why: String = why.lines().next().unwrap_or_default().chars().take(200).collect();
    let mut text = format!("// WIT can't describe this component's world: {why}\n// Its functions are:\n");
    for function in &exports.functions {
        let params: Vec<String> =
            function.params.iter().map(|param| format!("{}: {}", param.name, param.ty)).collect();
        let result = function.result.as_ref().map(|ty| format!(" -> {ty}")).unwrap_or_default();
        text.push_str(&format!("{}: func({}){result};\n", function.qualified_name(), params.join(", ")));
    }
    text
}

struct Reader {
    most: usize,
    parts_left: usize,
}

impl Reader {
    fn new(most: usize) -> Self {
        Self { most, parts_left: most }
    }

    /// Counts the parts of an instance's types.
    fn measure(&mut self, engine: &Engine, instance: &types::ComponentInstance) -> Result<(), TooComplex> {
        for (name, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::Type(ty) => drop(self.ty(&ty)?),
                ComponentItem::ComponentFunc(function) => drop(self.function(None, name, &function)?),
                _ => {}
            }
        }
        Ok(())
    }

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
        self.parts_left = self.parts_left.checked_sub(1).ok_or(TooComplex(self.most))?;
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
        self.parts_left = self.parts_left.checked_sub(names.len()).ok_or(TooComplex(self.most))?;
        Ok(names.map(Into::into).collect())
    }
}
