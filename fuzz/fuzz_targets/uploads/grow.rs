//! Components from a seed, mostly valid: as a toolchain makes them, of all parts that the format has, and of components that are
//! instantiated within each other.

use arbitrary::{Arbitrary, Error, Result, Unstructured};
use wasm_encoder::{
    Alias, ComponentBuilder, ComponentExportKind, ComponentOuterAliasKind, ComponentType, ComponentTypeRef,
    ModuleArg,
};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, decoding};

use crate::quietly;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

pub(crate) fn component(random: &mut Random) -> Vec<u8> {
    let bytes: Vec<u8> = (0..128 << random.below(5)).flat_map(|_| random.next().to_le_bytes()).collect();
    let mut given = Unstructured::new(&bytes);
    let grown = quietly(|| match random.below(4) {
        0 => of_a_toolchain(&mut given),
        1 => wasm_smith::Component::arbitrary(&mut given).map(|component| component.to_bytes()),
        2 => with_a_module(&mut given),
        _ => nested(&mut given, 0).map(ComponentBuilder::finish),
    });
    grown.and_then(Result::ok).unwrap_or_else(|| ComponentBuilder::default().finish())
}

/// A world of WIT with a module that does nothing.
fn of_a_toolchain(given: &mut Unstructured) -> Result<Vec<u8>> {
    let config = wit_smith::Config { max_packages: 2, max_type_size: 30, ..wit_smith::Config::default() };
    let package = wit_smith::smith(&config, given)?;
    let decoded = decoding::decode(&package).map_err(|_| Error::IncorrectFormat)?;
    let resolve = decoded.resolve();
    let worlds: Vec<_> = resolve.worlds.iter().map(|(id, _)| id).collect();
    let world = *given.choose(&worlds)?;
    let encode = || {
        let mut module = dummy_module(resolve, world, ManglingAndAbi::Standard32);
        embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
        ComponentEncoder::default().module(&module)?.encode()
    };
    encode().map_err(|_| Error::IncorrectFormat)
}

/// A module of any kind that needs no imports.
fn with_a_module(given: &mut Unstructured) -> Result<Vec<u8>> {
    let config = wasm_smith::Config { max_imports: 0, ..wasm_smith::Config::arbitrary(given)? };
    let module = wasm_smith::Module::new(config, given)?.to_bytes();
    let mut component = ComponentBuilder::default();
    let module = component.core_module_raw(None, &module);
    for _ in 0..given.int_in_range(0..=2)? {
        component.core_instantiate::<[(&str, ModuleArg); 0]>(None, module, []);
    }
    Ok(component.finish())
}

/// Components that are defined, imported, taken from around them and from instances, and instantiated.
fn nested(given: &mut Unstructured, depth: usize) -> Result<ComponentBuilder> {
    let mut component = ComponentBuilder::default();
    let empty = component.type_component(None, &ComponentType::new());
    if depth > 0 && given.ratio(1, 8)? {
        component.import("given", ComponentTypeRef::Component(empty));
    }
    for n in 0..given.int_in_range(1..=8)? {
        let count = component.component_count();
        match given.int_in_range(0..=9)? {
            0..=2 if depth < 4 => {
                let inner = nested(given, depth + 1)?;
                component.component(None, inner);
            }
            3 if depth > 0 => {
                let (count, index) = (given.int_in_range(1..=depth as u32)?, given.int_in_range(0..=3)?);
                component
                    .alias(None, Alias::Outer { kind: ComponentOuterAliasKind::Component, count, index });
            }
            4 if count > 0 => {
                let name = format!("e{n}");
                component.export(
                    &name,
                    ComponentExportKind::Component,
                    given.int_in_range(0..=count - 1)?,
                    None,
                );
            }
            5 if component.instance_count() > 0 => {
                let instance = given.int_in_range(0..=component.instance_count() - 1)?;
                let name = format!("e{}", given.int_in_range(0..=7)?);
                component.alias_export(instance, &name, ComponentExportKind::Component);
            }
            6 => {
                let module = component.core_module(None, &wasm_encoder::Module::new());
                for _ in 0..given.int_in_range(0..=20)? {
                    component.core_instantiate::<[(&str, ModuleArg); 0]>(None, module, []);
                }
            }
            _ if count > 0 => {
                // What a component doesn't import may be given all the same.
                let arg = ("given", ComponentExportKind::Component, given.int_in_range(0..=count - 1)?);
                let instantiated = given.int_in_range(0..=count - 1)?;
                for _ in 0..given.int_in_range(1..=4)? {
                    component.instantiate(None, instantiated, [arg]);
                }
            }
            _ => {}
        }
    }
    Ok(component)
}
