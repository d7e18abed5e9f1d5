//! Checks the path of a trigger and the key of its runs.

use std::collections::HashMap;

use super::Model;
use crate::ast::{Expr, ExprKind, Function};
use crate::codes;
use crate::diagnostic::{Sink, brief};

pub(super) fn check(model: &Model, sink: &mut Sink) {
    let Some(trigger) = &model.workflow.settings.trigger else { return };
    if let Some((fault, help)) = path_fault(&trigger.path.text) {
        sink.report(&codes::TRIGGER, trigger.path.span, fault).help(help);
    }
    let mut calls = Vec::new();
    trigger.key.calls(&mut calls);
    if !calls.is_empty() {
        super::scope::no_calls(&trigger.key, "`keyed by`", sink);
    } else if !is_input_path(&trigger.key, model.function) {
        let example = model.function.params.first().map_or("order", |param| param.name.text.as_str());
        sink.report(&codes::TRIGGER_KEY, trigger.key.span, "this is not a path of the input")
            .help(format!("begin with a parameter and name fields: `keyed by {example}.id` for example"));
    }
}

/// Checks that no two functions of a file answer the same path.
pub(super) fn distinct(functions: &[Function], sink: &mut Sink) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for function in functions {
        let Some(trigger) = function.workflow.as_ref().and_then(|w| w.settings.trigger.as_ref()) else {
            continue;
        };
        let path = trigger.path.text.as_str();
        if let Some(owner) = seen.get(path) {
            sink.report(
                &codes::TRIGGER,
                trigger.path.span,
                format!("`{owner}` answers `{}` already", brief(path)),
            )
            .help("give each function a path of its own");
        } else {
            seen.insert(path, &function.name.text);
        }
    }
}

fn path_fault(path: &str) -> Option<(String, &'static str)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    let shown = brief(path);
    if !path.starts_with('/') {
        return Some((
            format!("the path `{shown}` does not begin with `/`"),
            "write `\"/api/orders\"` for example",
        ));
    }
    if path.len() == 1 || path.ends_with('/') {
        return Some((format!("the path `{shown}` ends with `/`"), "end it with a name"));
    }
    if let Some(c) = path.chars().find(|c| !plain(*c)) {
        return Some((
            format!("the path `{shown}` has a `{}` in it", c.escape_debug()),
            "a path is made of letters, digits, `-`, `.`, `_`, `~` and `/`",
        ));
    }
    if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some((
            format!("the path `{shown}` has a part that is no name"),
            "put one name between two `/`",
        ));
    }
    None
}

fn is_input_path(expr: &Expr, function: &Function) -> bool {
    match &expr.kind {
        ExprKind::Name(name) => function.params.iter().any(|param| param.name.text == *name),
        ExprKind::Field(of, _) => is_input_path(of, function),
        ExprKind::Error => true,
        _ => false,
    }
}
