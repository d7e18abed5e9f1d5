//! Components and their functions, by the names that a call gives.

use aster_core::name::{kebab, same};
use aster_core::wit::{Function, LookupError};

use super::{Called, Components};
use crate::ast::{self, Call};
use crate::check::Model;
use crate::codes;
use crate::diagnostic::{Sink, did_you_mean};

/// The components that the workflow calls. One that is missing is reported at its first call.
pub(super) fn called(model: &Model, components: &Components, sink: &mut Sink) -> Called {
    let mut called = Called { exports: Components::new(), missing: false };
    let mut missing = Vec::new();
    let forward = model.workflow.steps.iter().map(|step| &step.body);
    let back = model.compensations.iter().flatten().map(|compensation| &compensation.body);
    for call in forward.chain(back).flat_map(|body| ast::calls(body)) {
        let name = kebab(&call.capability.text);
        if called.exports.contains_key(&name) || missing.contains(&name) {
            continue;
        }
        if let Some((_, exports)) = components.iter().find(|(other, _)| same(other, &name)) {
            called.exports.insert(name, exports.clone());
            continue;
        }
        let help = did_you_mean(&name, components.keys().map(String::as_str))
            .unwrap_or_else(|| format!("upload it before a run starts: `aster component push {name} FILE`"));
        sink.report(
            &codes::MISSING_COMPONENT,
            call.capability.span,
            format!("no component `{name}` is registered"),
        )
        .help(help);
        missing.push(name);
    }
    called.missing = !missing.is_empty();
    called
}

/// The function that the call names, if there is exactly one and it can be called.
pub(super) fn function<'c>(call: &Call, called: &'c Called, sink: &mut Sink) -> Option<&'c Function> {
    let component = kebab(&call.capability.text);
    let exports = called.exports.get(&component)?;
    let name = &call.function;
    let interface = call.interface.as_ref().map(|interface| interface.text.as_str());
    let function = match exports.find_function(interface, &name.text) {
        Ok(function) => function,
        Err(LookupError::Unknown { .. }) => {
            unknown(call, &component, &exports.functions, sink);
            return None;
        }
        Err(LookupError::Ambiguous { candidates, .. }) => {
            let message =
                format!("component `{component}` exports `{}` {} times", name.text, candidates.len());
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
    if let Some(opaque) = function.opaque() {
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

fn unknown(call: &Call, component: &str, functions: &[Function], sink: &mut Sink) {
    let name = &call.function;
    let elsewhere: Vec<String> =
        functions.iter().filter(|function| same(&function.name, &name.text)).map(place).collect();
    let help = match &call.interface {
        Some(_) if !elsewhere.is_empty() => format!("`{}` is exported {}", name.text, elsewhere.join(", ")),
        _ => did_you_mean(&name.text, functions.iter().map(|function| function.name.as_str()))
            .unwrap_or_else(|| {
                let all: Vec<String> =
                    functions.iter().take(8).map(|function| format!("`{}`", function.name)).collect();
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
