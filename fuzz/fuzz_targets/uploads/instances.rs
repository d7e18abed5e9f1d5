//! Instantiates a component as the specification has it, without any code: by which it is known how many instances it makes.

use std::collections::HashMap;
use std::rc::Rc;

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef,
    Encoding, Instance, Parser, Payload, Result,
};

/// Beyond it nothing is known: what is allowed needs far less.
const MAX_STEPS: usize = 1_000_000;

/// What is defined in a component, in its order.
#[derive(Debug, Default)]
pub struct Part {
    items: Vec<Item>,
    modules: usize,
}

#[derive(Debug)]
enum Item {
    Component(Rc<Part>),
    Import(String, Kind),
    Alias(u32, String, Kind),
    OuterComponent(u32, u32),
    CoreInstance,
    Instance(u32, Vec<Named>),
    InstanceOfExports(Vec<Named>),
    Export(Named),
}

/// A name for something of an index space.
#[derive(Clone, Debug)]
struct Named(String, Kind, u32);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Component,
    Instance,
    Other,
}

impl From<ComponentExternalKind> for Kind {
    fn from(kind: ComponentExternalKind) -> Self {
        match kind {
            ComponentExternalKind::Component => Self::Component,
            ComponentExternalKind::Instance => Self::Instance,
            _ => Self::Other,
        }
    }
}

impl Part {
    pub fn read(bytes: &[u8]) -> Result<Self> {
        // Those that are open; a module is none of them.
        let mut open: Vec<Option<Self>> = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            match payload {
                Payload::Version { encoding: Encoding::Component, .. } => open.push(Some(Self::default())),
                Payload::Version { .. } => open.push(None),
                Payload::End(_) => {
                    let closed = open.pop().expect("it was opened");
                    let Some(outer) = open.last_mut().and_then(Option::as_mut) else {
                        return Ok(closed.unwrap_or_default());
                    };
                    match closed {
                        Some(component) => outer.items.push(Item::Component(Rc::new(component))),
                        None => outer.modules += 1,
                    }
                }
                payload => {
                    if let Some(Some(part)) = open.last_mut() {
                        part.section(payload)?;
                    }
                }
            }
        }
        Ok(Self::default())
    }

    fn section(&mut self, payload: Payload) -> Result<()> {
        match payload {
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    let kind = match import.ty {
                        ComponentTypeRef::Component(_) => Kind::Component,
                        ComponentTypeRef::Instance(_) => Kind::Instance,
                        _ => Kind::Other,
                    };
                    self.items.push(Item::Import(import.name.name.to_owned(), kind));
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    match alias? {
                        ComponentAlias::InstanceExport { kind, instance_index, name } => {
                            self.items.push(Item::Alias(instance_index, name.to_owned(), kind.into()));
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            self.items.push(Item::OuterComponent(count, index));
                        }
                        _ => {}
                    }
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    if let Instance::Instantiate { .. } = instance? {
                        self.items.push(Item::CoreInstance);
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    self.items.push(match instance? {
                        ComponentInstance::Instantiate { component_index, args } => Item::Instance(
                            component_index,
                            args.iter()
                                .map(|arg| Named(arg.name.to_owned(), arg.kind.into(), arg.index))
                                .collect(),
                        ),
                        ComponentInstance::FromExports(exports) => Item::InstanceOfExports(
                            exports
                                .iter()
                                .map(|export| {
                                    Named(export.name.name.to_owned(), export.kind.into(), export.index)
                                })
                                .collect(),
                        ),
                    });
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    let name = export.name.name.to_owned();
                    self.items.push(Item::Export(Named(name, export.kind.into(), export.index)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn components(&self) -> impl Iterator<Item = &Self> {
        self.items.iter().filter_map(|item| match item {
            Item::Component(part) => Some(&**part),
            _ => None,
        })
    }

    /// How many levels of components are below this one.
    pub fn depth(&self) -> usize {
        self.components().map(|part| 1 + part.depth()).max().unwrap_or(0)
    }

    /// Modules and components, with this one.
    pub fn parts(&self) -> usize {
        1 + self.modules + self.components().map(Self::parts).sum::<usize>()
    }

    /// What instantiating it makes. `None` if that takes too long to find out; it stops at more than any limit.
    pub fn instantiate(self) -> Option<Made> {
        let mut making = Making { made: Made::default(), steps: 0 };
        let closure = Closure { part: Rc::new(self), outer: None };
        match making.instantiate(&closure, &HashMap::new()) {
            Err(Stop::TooLong) => None,
            Ok(_) | Err(Stop::Enough) => Some(making.made),
        }
    }
}

/// How many instances come of an instantiation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    pub core: usize,
    pub components: usize,
}

enum Stop {
    TooLong,
    Enough,
}

/// What an index or a name stands for.
#[derive(Clone)]
enum Value {
    Component(Rc<Closure>),
    Instance(Rc<Exports>),
    /// It comes from outside, or is of another kind.
    Unknown,
}

type Exports = HashMap<String, Value>;

/// A component with the ones around it.
struct Closure {
    part: Rc<Part>,
    outer: Option<Rc<Scope>>,
}

#[derive(Clone, Default)]
struct Scope {
    components: Vec<Value>,
    instances: Vec<Value>,
    outer: Option<Rc<Scope>>,
}

impl Scope {
    fn push(&mut self, kind: Kind, value: Value) {
        match kind {
            Kind::Component => self.components.push(value),
            Kind::Instance => self.instances.push(value),
            Kind::Other => {}
        }
    }

    fn get(&self, kind: Kind, index: u32) -> Value {
        let found = match kind {
            Kind::Component => self.components.get(index as usize),
            Kind::Instance => self.instances.get(index as usize),
            Kind::Other => None,
        };
        found.cloned().unwrap_or(Value::Unknown)
    }

    fn outer_component(&self, count: u32, index: u32) -> Value {
        let mut scope = self;
        for _ in 0..count {
            let Some(outer) = &scope.outer else { return Value::Unknown };
            scope = outer;
        }
        scope.get(Kind::Component, index)
    }

    fn named(&self, all: &[Named]) -> Exports {
        all.iter().map(|Named(name, kind, index)| (name.clone(), self.get(*kind, *index))).collect()
    }
}

struct Making {
    made: Made,
    steps: usize,
}

impl Making {
    fn instantiate(&mut self, component: &Closure, given: &Exports) -> std::result::Result<Exports, Stop> {
        let mut scope = Scope { outer: component.outer.clone(), ..Scope::default() };
        let mut exports = Exports::new();
        for item in &component.part.items {
            self.step(1)?;
            match item {
                Item::Component(part) => {
                    self.step(scope.components.len() + scope.instances.len())?;
                    let outer = Some(Rc::new(scope.clone()));
                    let closure = Rc::new(Closure { part: Rc::clone(part), outer });
                    scope.components.push(Value::Component(closure));
                }
                Item::Import(name, kind) => {
                    scope.push(*kind, given.get(name).cloned().unwrap_or(Value::Unknown));
                }
                Item::Alias(instance, name, kind) => {
                    let value = match scope.get(Kind::Instance, *instance) {
                        Value::Instance(exports) => exports.get(name).cloned(),
                        _ => None,
                    };
                    scope.push(*kind, value.unwrap_or(Value::Unknown));
                }
                Item::OuterComponent(count, index) => {
                    scope.components.push(scope.outer_component(*count, *index));
                }
                Item::CoreInstance => {
                    self.made.core += 1;
                    self.step(1)?;
                }
                Item::Instance(index, args) => {
                    self.made.components += 1;
                    self.step(args.len())?;
                    let made = match scope.get(Kind::Component, *index) {
                        Value::Component(closure) => {
                            Value::Instance(Rc::new(self.instantiate(&closure, &scope.named(args))?))
                        }
                        _ => Value::Unknown,
                    };
                    scope.instances.push(made);
                }
                Item::InstanceOfExports(all) => {
                    self.step(all.len())?;
                    scope.instances.push(Value::Instance(Rc::new(scope.named(all))));
                }
                Item::Export(Named(name, kind, index)) => {
                    // An export has an index of its own.
                    let value = scope.get(*kind, *index);
                    exports.insert(name.clone(), value.clone());
                    scope.push(*kind, value);
                }
            }
        }
        Ok(exports)
    }

    fn step(&mut self, steps: usize) -> std::result::Result<(), Stop> {
        self.steps += steps;
        match self.made {
            Made { core, components } if core > 64 || components > 1_000 => Err(Stop::Enough),
            _ if self.steps > MAX_STEPS => Err(Stop::TooLong),
            _ => Ok(()),
        }
    }
}
