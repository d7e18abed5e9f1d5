//! Checks of an upload, before anything expensive is done with it.
//!
//! One pass over the bytes finds out whether they are a complete component, whether it needs something that this host
//! doesn't offer, and how much work it would be to compile. It doesn't validate them. Wasmtime does that in the
//! compiler's own process, whose limits hold for whatever passes here. So these bounds needn't be tight: they give a
//! clear answer at once, and are far above anything that real toolchains make. Measured with components of some 20
//! lines:
//!
//! | | Python, 18 MB | JavaScript, 12 MB | Go, 2.4 MB | bound |
//! |---|---|---|---|---|
//! | modules and components | 39 | 4 | 5 | 1,000 |
//! | core instances | 38 | 4 | 5 | 64 |
//! | types | 1,413 | 190 | 14 | 100,000 |
//! | imports | 2,404 | 89 | 15 | 100,000 |
//! | exports | 4,460 | 41 | 3 | 100,000 |
//! | functions | 13,478 | 12,702 | 1,599 | 200,000 |
//! | bytes of a function | 426,843 | 171,628 | 25,200 | 4 MiB |
//! | calls in a function | 3,112 | 1,986 | 169 | 50,000 |
//! | locals carried through loops, in a function | 652 | 2,426 | 18 | 100,000 |
//! | … in all | 64,323 | 89,253 | 6,871 | 1,000,000 |
//!
//! **Invariant:** the pass takes time and memory in proportion to the bytes, and never recurses deeper than [`MAX_NESTING`].

mod body;

use wasmparser::{
    BinaryReader, CanonicalFunction, CanonicalOption, ComponentAlias, ComponentDefinedType,
    ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentType,
    ComponentTypeDeclaration, ComponentTypeRef, CoreType, Encoding, Instance, Parser, Payload,
};

use self::body::Body;
use super::UploadError;
use super::engine::MAX_CORE_INSTANCES_PER_COMPONENT;

/// The limit for components within components, and for types within types. Wasmtime validates each level again for
/// every level above it, and the reader of types recurses.
const MAX_NESTING: usize = 32;

/// A limit on something that is counted over the whole component.
#[derive(Clone, Copy)]
struct Bound {
    what: &'static str,
    most: u64,
    advice: &'static str,
}

const SPLIT: &str = "split it into several components";
const PARTS: Bound = Bound { what: "modules and components", most: 1_000, advice: SPLIT };
const TYPES: Bound = Bound { what: "types", most: 100_000, advice: SPLIT };
const IMPORTS: Bound = Bound { what: "imports", most: 100_000, advice: SPLIT };
const EXPORTS: Bound = Bound { what: "exports", most: 100_000, advice: SPLIT };
const FUNCTIONS: Bound = Bound { what: "functions", most: 200_000, advice: SPLIT };
const CARRIED: Bound = Bound {
    what: "locals that are carried through loops",
    most: 1_000_000,
    advice: "build it with less inlining and unrolling, or split it into several components",
};
const CORE_INSTANCES: Bound = Bound {
    what: "instances of core modules",
    most: MAX_CORE_INSTANCES_PER_COMPONENT as u64,
    advice: "link its modules into fewer",
};
const INSTANCES: Bound =
    Bound { what: "instances of components", most: 1_000, advice: "compose it of fewer components" };

/// The number of instances that these make depends on the component that is given. A component that instantiates an
/// imported one 1,000 times makes a million instances if it imports another such component. No toolchain builds this.
const GIVEN: &str = "instances of components that a component imports, or takes out of an instance";

/// Checks whether the component is worth compiling.
///
/// # Errors
/// Returns an error if the bytes are not a complete component, if it exceeds a bound, or if it is made for another kind
/// of host.
pub fn check(bytes: &[u8]) -> Result<(), UploadError> {
    check_header(bytes)?;
    check_whole(bytes)?;
    let mut survey = Survey::default();
    for payload in Parser::new(0).parse_all(bytes) {
        survey.payload(payload?, bytes)?;
    }
    Ok(())
}

/// Checks the first eight bytes, which say what a file is: `\0asm`, a version, and the layer.
fn check_header(bytes: &[u8]) -> Result<(), UploadError> {
    const MAGIC: &[u8] = b"\0asm";
    let start = &bytes[..bytes.len().min(4)];
    if bytes.is_empty() {
        return Err(UploadError::NotWebAssembly("it is empty"));
    }
    if !MAGIC.starts_with(start) {
        let text = bytes.trim_ascii_start();
        return Err(UploadError::NotWebAssembly(if text.starts_with(b"(") {
            "it looks like WebAssembly text, which `wasm-tools parse` makes binary"
        } else if bytes.starts_with(b"\x1f\x8b") {
            "it is gzipped"
        } else {
            "it doesn't begin with `\\0asm`"
        }));
    }
    match bytes.get(4..8) {
        None => Err(UploadError::CutOff { ends: bytes.len(), wanted: 8 }),
        Some([_, _, 0, 0]) => Err(UploadError::CoreModule),
        Some(_) => Ok(()),
    }
}

/// Goes from section to section. A file that is cut off ends within a section.
fn check_whole(bytes: &[u8]) -> Result<(), UploadError> {
    let mut reader = BinaryReader::new(&bytes[8..], 8);
    while !reader.eof() {
        let at = reader.original_position();
        let cut_off = |wanted| UploadError::CutOff { ends: bytes.len(), wanted };
        let id = reader.read_u8()?;
        // The ids from custom sections to the export section. A core module may have one more.
        if id > 12 {
            return Err(UploadError::Invalid(format!("no known section begins at byte {at}")));
        }
        let Ok(length) = reader.read_var_u32() else {
            return match bytes.len() - at {
                // Where the length would end isn't known.
                left if left <= 5 => Err(cut_off(bytes.len() + 1)),
                _ => Err(UploadError::Invalid(format!("the section at byte {at} has no length"))),
            };
        };
        let wanted = reader.original_position() + length as usize;
        if wanted > bytes.len() {
            return Err(cut_off(wanted));
        }
        reader.read_bytes(length as usize)?;
    }
    Ok(())
}

impl From<wasmparser::Error> for UploadError {
    fn from(error: wasmparser::Error) -> Self {
        let at = error.offset();
        // The file itself is complete: that was checked before.
        UploadError::Invalid(match error.message().starts_with("unexpected end") {
            true => format!("the contents end too early at byte {at}"),
            false => format!("{} (at byte {at})", error.message()),
        })
    }
}

/// The counts so far.
#[derive(Default)]
struct Survey {
    /// The module or component that is being read, within those that contain it.
    open: Vec<Frame>,
    parts: u64,
    types: u64,
    imports: u64,
    exports: u64,
    functions: u64,
    carried: u64,
    body: Body,
}

/// A module or component that is being read.
#[derive(Default)]
struct Frame {
    is_component: bool,
    /// For each component of its index space, the instances that instantiating it makes. `None` means that the component
    /// is given: by the instantiation, or by an instance.
    components: Vec<Option<Made>>,
    /// The instances that instantiating this module or component makes.
    made: Made,
}

/// The number of instances that an instantiation makes.
#[derive(Clone, Copy, Default)]
struct Made {
    core: u64,
    components: u64,
}

impl Made {
    fn add(&mut self, other: Self) {
        self.core = self.core.saturating_add(other.core);
        self.components = self.components.saturating_add(other.components);
    }
}

impl Survey {
    fn payload(&mut self, payload: Payload<'_>, bytes: &[u8]) -> Result<(), UploadError> {
        match payload {
            Payload::Version { encoding, .. } => {
                let is_component = encoding == Encoding::Component;
                if is_component && self.open.len() > MAX_NESTING {
                    return Err(too_deep("components"));
                }
                count(&mut self.parts, 1, PARTS)?;
                self.open.push(Frame { is_component, ..Frame::default() });
            }
            Payload::End(_) => self.close()?,
            Payload::TypeSection(section) => {
                for group in section {
                    count(&mut self.types, group?.types().len(), TYPES)?;
                }
            }
            Payload::CoreTypeSection(section) => {
                for ty in section {
                    self.core_type(&ty?)?;
                }
            }
            Payload::ComponentTypeSection(section) => {
                let range = section.range();
                let mut reader = BinaryReader::new(&bytes[range.clone()], range.start);
                for _ in 0..reader.read_var_u32()? {
                    self.component_type(&mut reader, 1)?;
                }
            }
            Payload::ImportSection(section) => count(&mut self.imports, section.count(), IMPORTS)?,
            Payload::ExportSection(section) => count(&mut self.exports, section.count(), EXPORTS)?,
            Payload::ComponentImportSection(section) => {
                count(&mut self.imports, section.count(), IMPORTS)?;
                for import in section {
                    if let ComponentTypeRef::Component(_) = import?.ty {
                        self.add_component(None)?;
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                count(&mut self.exports, section.count(), EXPORTS)?;
                for export in section {
                    // An export has an index of its own.
                    let export = export?;
                    if export.kind == ComponentExternalKind::Component {
                        self.add_component(self.component(export.index))?;
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(&alias?)?;
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    if let Instance::Instantiate { .. } = instance? {
                        self.make(Made { core: 1, components: 0 });
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        let Some(mut made) = self.component(component_index) else {
                            return Err(UploadError::Unsupported(GIVEN.to_owned()));
                        };
                        made.add(Made { core: 0, components: 1 });
                        self.make(made);
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    canonical(&function?)?;
                }
            }
            Payload::FunctionSection(section) => count(&mut self.functions, section.count(), FUNCTIONS)?,
            Payload::CodeSectionEntry(body) => {
                self.body.read(&body)?;
                count(&mut self.carried, self.body.carried, CARRIED)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), UploadError> {
        let Some(Frame { is_component: true, made, .. }) = self.open.pop() else { return Ok(()) };
        if self.open.is_empty() {
            within(made.core, CORE_INSTANCES)?;
            return within(made.components, INSTANCES);
        }
        self.add_component(Some(made))
    }

    fn make(&mut self, made: Made) {
        if let Some(frame) = self.open.last_mut() {
            frame.made.add(made);
        }
    }

    /// Returns the component with this index. Wasmtime refuses an index that leads nowhere.
    fn component(&self, index: u32) -> Option<Made> {
        let known = self.open.last().and_then(|frame| frame.components.get(index as usize));
        known.copied().unwrap_or(Some(Made::default()))
    }

    fn add_component(&mut self, made: Option<Made>) -> Result<(), UploadError> {
        let Some(frame) = self.open.last_mut() else { return Ok(()) };
        frame.components.push(made);
        within(frame.components.len() as u64, PARTS)
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), UploadError> {
        match *alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                self.add_component(None)
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let outer = self.open.iter().rev().nth(count as usize);
                let known = outer.and_then(|frame| frame.components.get(index as usize));
                self.add_component(known.copied().unwrap_or(Some(Made::default())))
            }
            _ => Ok(()),
        }
    }

    fn core_type(&mut self, ty: &CoreType<'_>) -> Result<(), UploadError> {
        match ty {
            CoreType::Rec(group) => count(&mut self.types, group.types().len(), TYPES),
            CoreType::Module(declarations) => count(&mut self.types, 1 + declarations.len(), TYPES),
        }
    }

    /// Reads a type with everything declared in it. Types of components and instances are taken apart here, because
    /// wasmparser's own reader recurses into them without a bound.
    fn component_type(&mut self, reader: &mut BinaryReader<'_>, depth: usize) -> Result<(), UploadError> {
        const COMPONENT: u8 = 0x41;
        const INSTANCE: u8 = 0x42;
        const DECLARED_TYPE: u8 = 0x01;
        count(&mut self.types, 1, TYPES)?;
        if !matches!(peek(reader)?, COMPONENT | INSTANCE) {
            return defined(&reader.read()?);
        }
        if depth >= MAX_NESTING {
            return Err(too_deep("types"));
        }
        reader.read_u8()?;
        for _ in 0..reader.read_var_u32()? {
            if peek(reader)? == DECLARED_TYPE {
                reader.read_u8()?;
                self.component_type(reader, depth + 1)?;
                continue;
            }
            match reader.read()? {
                ComponentTypeDeclaration::CoreType(ty) => self.core_type(&ty)?,
                ComponentTypeDeclaration::Import(_) => count(&mut self.imports, 1, IMPORTS)?,
                ComponentTypeDeclaration::Export { .. } => count(&mut self.exports, 1, EXPORTS)?,
                ComponentTypeDeclaration::Alias(_) | ComponentTypeDeclaration::Type(_) => {}
            }
        }
        Ok(())
    }
}

fn count(counted: &mut u64, more: impl TryInto<u64>, bound: Bound) -> Result<(), UploadError> {
    *counted = counted.saturating_add(more.try_into().unwrap_or(u64::MAX));
    within(*counted, bound)
}

fn within(counted: u64, bound: Bound) -> Result<(), UploadError> {
    if counted <= bound.most {
        return Ok(());
    }
    let Bound { what, most, advice } = bound;
    Err(UploadError::TooComplex(format!("it has more than {} {what}: {advice}", grouped(most))))
}

fn too_deep(what: &str) -> UploadError {
    UploadError::TooComplex(format!(
        "its {what} are nested more than {MAX_NESTING} levels deep: flatten them"
    ))
}

fn defined(ty: &ComponentType<'_>) -> Result<(), UploadError> {
    match ty {
        ComponentType::Func(function) if function.async_ => Err(UploadError::NeedsAsync("`async` functions")),
        ComponentType::Defined(ComponentDefinedType::Future(_)) => Err(UploadError::NeedsAsync("futures")),
        ComponentType::Defined(ComponentDefinedType::Stream(_)) => Err(UploadError::NeedsAsync("streams")),
        _ => Ok(()),
    }
}

fn canonical(function: &CanonicalFunction) -> Result<(), UploadError> {
    let options = match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => options,
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => return Ok(()),
        _ => return Err(UploadError::NeedsAsync("tasks")),
    };
    let is_async =
        |option: &CanonicalOption| matches!(option, CanonicalOption::Async | CanonicalOption::Callback(_));
    if options.iter().any(is_async) {
        return Err(UploadError::NeedsAsync("asynchronous calls"));
    }
    Ok(())
}

fn peek(reader: &BinaryReader<'_>) -> Result<u8, UploadError> {
    Ok(reader.clone().read_u8()?)
}

/// Formats a number as `1,000,000`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
