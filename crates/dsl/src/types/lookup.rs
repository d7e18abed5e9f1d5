//! Finds the component and the function of a call by their names.

use std::collections::{BTreeMap, HashSet};

use aster_core::name::kebab;
use aster_core::wit::Function;

use super::components::{Called, Components, Export};
use crate::ast::{self, Call};
use crate::check::Model;
use crate::codes;
use crate::diagnostic::Sink;

/// The most names that a help lists.
const SHOWN: usize = 8;

/// Returns the components that the workflow calls. A missing one is reported at its first call.
pub(super) fn called<'c>(model: &Model, components: &Components<'c>, sink: &mut Sink) -> Called<'c> {
    let mut called = BTreeMap::new();
    let mut missing = HashSet::new();
    let forward = model.workflow.steps.iter().map(|step| &step.body);
    let back = model.compensations.iter().flatten().map(|compensation| &compensation.body);
    for call in forward.chain(back).flat_map(|body| ast::calls(body)) {
        let name = kebab(&call.capability.text);
        sink.work(1);
        if called.contains_key(&name) || missing.contains(&name) {
            continue;
        }
        if let Some(index) = components.index(&name) {
            called.insert(name, index);
            continue;
        }
        let help = sink
            .did_you_mean(&name, components.all.keys().copied())
            .unwrap_or_else(|| format!("upload it before a run starts: `aster component push {name} FILE`"));
        sink.report(
            &codes::MISSING_COMPONENT,
            call.capability.span,
            format!("no component `{name}` is registered"),
        )
        .help(help);
        missing.insert(name);
    }
    Called::new(called, !missing.is_empty())
}

/// Returns the function of a call, if there is exactly one and it can be called. Otherwise reports why not.
pub(super) fn function<'c>(call: &Call, called: &Called<'c>, sink: &mut Sink) -> Option<&'c Function> {
    let component = kebab(&call.capability.text);
    let index = called.by_name.get(&component)?;
    let name = &call.function;
    let interface = call.interface.as_ref().map(|interface| interface.text.as_str());
    let all = index.functions(&name.text);
    if !sink.look_at_types(all.len()) {
        return None;
    }
    let found: Vec<&Export> =
        all.iter().filter(|export| interface.is_none_or(|wanted| export.function.is_in(wanted))).collect();
    let export = match found[..] {
        [export] => export,
        [] => {
            unknown(call, &component, &index.exports.functions, all, sink);
            return None;
        }
        _ => {
            let candidates: Vec<String> =
                found.iter().take(SHOWN).map(|export| export.function.qualified_name()).collect();
            let message = format!("component `{component}` exports `{}` {} times", name.text, found.len());
            let help = format!(
                "name the interface, `{}.interface.{}(…)`; there are `{}`",
                call.capability.text,
                name.text,
                candidates.join("`, `")
            );
            sink.report(&codes::AMBIGUOUS_FUNCTION, name.span, message).help(help);
            return None;
        }
    };
    let function = export.function;
    if let Some(opaque) = export.opaque() {
        let message = format!(
            "`{}` of component `{component}` can't be called: its signature has {opaque}",
            function.name
        );
        sink.report(&codes::NOT_CALLABLE, name.span, message)
            .help("export a function whose parameters and result are plain values");
        return None;
    }
    Some(function)
}

/// Reports that the function doesn't exist. `functions` are all functions of the component, and `named` those of the call's
/// name.
fn unknown(call: &Call, component: &str, functions: &[Function], named: &[Export], sink: &mut Sink) {
    if sink.is_full() {
        return;
    }
    let name = &call.function;
    let elsewhere: Vec<String> = named.iter().take(SHOWN).map(|export| place(export.function)).collect();
    let help = match &call.interface {
        Some(_) if !elsewhere.is_empty() => format!("`{}` is exported {}", name.text, elsewhere.join(", ")),
        _ => sink
            .did_you_mean(&name.text, functions.iter().map(|function| function.name.as_str()))
            .unwrap_or_else(|| {
                let all: Vec<String> =
                    functions.iter().take(SHOWN).map(|function| format!("`{}`", function.name)).collect();
                match all.is_empty() {
                    true => "it exports no functions".to_owned(),
                    false => format!("it exports {}", all.join(", ")),
                }
            }),
    };
    let interface = call
        .interface
        .as_ref()
        .map_or(String::new(), |interface| format!(" in an interface `{}`", interface.text));
    let message = format!("component `{component}` exports no function `{}`{interface}", name.text);
    sink.report(&codes::UNKNOWN_FUNCTION, name.span, message).help(help);
}

fn place(function: &Function) -> String {
    match &function.interface {
        Some(interface) => format!("in `{interface}`"),
        None => "at the top level".to_owned(),
    }
}
