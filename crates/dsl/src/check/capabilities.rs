//! Checks the components that a workflow calls, and that its steps can be undone.

use std::collections::{BTreeMap, HashSet};

use aster_core::name::kebab;

use super::Model;
use crate::ast::{self, Call, Name};
use crate::codes;
use crate::diagnostic::Sink;

pub(super) fn check(model: &Model, sink: &mut Sink) {
    let io = model.function.io.as_ref();
    let declared = io.and_then(|io| io.list.as_deref()).map(|list| declared(list, sink));
    let declared = declared.as_ref();
    let mut calls_something = false;
    for (step, compensation) in model.workflow.steps.iter().zip(&model.compensations) {
        let forward = ast::calls(&step.body);
        let back = compensation.map_or(Vec::new(), |compensation| ast::calls(&compensation.body));
        calls_something |= !forward.is_empty() || !back.is_empty();
        if compensation.is_none()
            && let Some(call) = forward.first()
        {
            let message =
                format!("step `{}` calls `{}` and has no compensation", step.name.text, call.capability.text);
            sink.report(&codes::NO_COMPENSATION, step.name.span, message)
                .help("write `compensate:` with what undoes it, if anything has to be undone");
        }
        let Some(declared) = declared else { continue };
        forward.iter().chain(&back).for_each(|call| undeclared(call, declared, sink));
        // A call of an undeclared component was reported.
        let back: Vec<&Call> = back.into_iter().filter(|call| is_declared(call, declared)).collect();
        foreign(&step.name, &forward, &back, sink);
    }
    // Without a result the head could not be read, and may have `It performs io`.
    if io.is_none() && calls_something && model.function.result.is_some() {
        let name = &model.function.name;
        sink.report(
            &codes::NO_IO,
            name.span,
            format!("`{}` calls components, and its head lacks `It performs io`", name.text),
        )
        .help("end the head with `with IO. It performs io with Orders and Payment:`, naming what it calls");
    }
}

/// The components in the head by the words of their names, each with its spelling.
type Declared<'t> = BTreeMap<String, &'t str>;

fn declared<'t>(list: &'t [Name], sink: &mut Sink) -> Declared<'t> {
    let mut declared = Declared::new();
    for name in list {
        if declared.insert(kebab(&name.text), &name.text).is_some() {
            sink.report(&codes::DECLARED_TWICE, name.span, format!("`{}` is listed twice", name.text))
                .help("name each component once");
        }
    }
    declared
}

fn undeclared(call: &Call, declared: &Declared, sink: &mut Sink) {
    let name = &call.capability;
    if is_declared(call, declared) {
        return;
    }
    let help = sink
        .did_you_mean(&name.text, declared.values().copied())
        .unwrap_or_else(|| format!("add it to the head: `It performs io with … and {}`", name.text));
    sink.report(
        &codes::UNDECLARED_CAPABILITY,
        name.span,
        format!("`{}` is used but not declared", name.text),
    )
    .help(help);
}

fn is_declared(call: &Call, declared: &Declared) -> bool {
    declared.contains_key(&kebab(&call.capability.text))
}

fn foreign(step: &Name, forward: &[&Call], back: &[&Call], sink: &mut Sink) {
    // The components of the step, and those that were reported.
    let mut known: HashSet<String> = forward.iter().map(|call| kebab(&call.capability.text)).collect();
    for call in back {
        let name = &call.capability;
        if !known.insert(kebab(&name.text)) {
            continue;
        }
        let message = format!("this compensation uses `{}`, which step `{}` does not", name.text, step.text);
        sink.report(&codes::FOREIGN_COMPENSATION, name.span, message)
            .help("what undoes a step is mostly a function of the same component; check that this is meant");
    }
}
