//! Checks a text that could be parsed. Each kind of problem has a file. The types of components are checked in
//! [`crate::types`].

mod capabilities;
mod compensation;
mod flow;
mod order;
mod scope;
mod settings;
mod trigger;

pub(crate) use flow::surely_returns;
pub(crate) use order::Set;

use std::collections::HashMap;

use crate::ast::{Compensation, File, Function, Name, Workflow};
use crate::codes;
use crate::diagnostic::Sink;
use crate::{Span, limits};

/// A function with its parts resolved. The later checks and the lowering work on it.
pub(crate) struct Model<'t> {
    pub(crate) function: &'t Function,
    pub(crate) workflow: &'t Workflow,
    /// The place of each parameter, by its name.
    pub(crate) params: HashMap<&'t str, usize>,
    /// The place of each step, by its name.
    pub(crate) steps: HashMap<&'t str, usize>,
    /// The direct dependencies of each step, each once, by the place of the step.
    pub(crate) depends_on: Vec<Vec<usize>>,
    /// The steps that are surely complete or skipped when a step starts, by the place of the step.
    pub(crate) before: Vec<Set>,
    /// Whether a step can return a value, by the place of the step.
    pub(crate) returns: Vec<bool>,
    pub(crate) compensations: Vec<Option<&'t Compensation>>,
}

/// Checks each function of the file, and returns those whose parts could be resolved.
pub(crate) fn check<'t>(file: &'t File, sink: &mut Sink) -> Vec<Model<'t>> {
    let names = || file.functions.iter().map(|function| &function.name);
    if too_many(
        names(),
        limits::FUNCTIONS,
        "this file",
        "workflow functions",
        "make several files of it",
        sink,
    ) {
        return Vec::new();
    }
    declared_once(names(), "workflow function", sink);
    trigger::distinct(&file.functions, sink);
    let mut models = Vec::new();
    for function in &file.functions {
        if sink.is_full() {
            break;
        }
        models.extend(self::function(function, sink));
    }
    models
}

fn function<'t>(function: &'t Function, sink: &mut Sink) -> Option<Model<'t>> {
    let workflow = function.workflow.as_ref()?;
    let names = || workflow.steps.iter().map(|step| &step.name);
    if is_too_large(function, workflow, sink) {
        return None;
    }
    let params = places(function.params.iter().map(|param| &param.name));
    declared_once(function.params.iter().map(|param| &param.name), "parameter", sink);
    declared_once(names(), "step", sink);
    for name in names().filter(|name| params.contains_key(name.text.as_str())) {
        sink.report(&codes::DECLARED_TWICE, name.span, format!("`{}` is already a parameter", name.text))
            .help("give the step another name");
    }
    if workflow.steps.is_empty() {
        if !workflow.incomplete {
            sink.report(&codes::NO_STEPS, workflow.span, "this workflow has no steps")
                .help("write at least one `step name:`; the last one's value is the workflow's result");
        }
        return None;
    }
    let steps = places(names());
    let (depends_on, before) = order::dependencies(workflow, &steps, sink)?;
    let returns = workflow.steps.iter().map(|step| flow::returns_value(&step.body)).collect();
    let compensations = compensation::owners(workflow, &steps, sink);
    let model = Model { function, workflow, params, steps, depends_on, before, returns, compensations };
    flow::check(&model, sink);
    scope::check(&model, sink);
    settings::check(&model, sink);
    trigger::check(&model, sink);
    capabilities::check(&model, sink);
    Some(model)
}

/// Whether the function exceeds a limit of the later checks and of a run.
fn is_too_large(function: &Function, workflow: &Workflow, sink: &mut Sink) -> bool {
    let steps = workflow.steps.iter().map(|step| &step.name);
    let params = function.params.iter().map(|param| &param.name);
    let listed = function.io.iter().flat_map(|io| io.list.iter().flatten());
    let several = "make several workflows of it";
    let record = "make a record of some of them";
    let any = "write `It performs io` without a list, which admits any";
    // Every exceeded limit is reported.
    [
        too_many(steps, limits::STEPS, "this workflow", "steps", several, sink),
        too_many(params, limits::PARAMETERS, "this function", "parameters", record, sink),
        too_many(listed, limits::COMPONENTS, "this function", "components", any, sink),
    ]
    .contains(&true)
}

/// Reports the first of `names` that exceeds `most`.
fn too_many<'t>(
    mut names: impl Iterator<Item = &'t Name>,
    most: usize,
    whose: &str,
    what: &str,
    help: &str,
    sink: &mut Sink,
) -> bool {
    let Some(over) = names.nth(most) else { return false };
    report_too_many(over.span, most, whose, what, help, sink);
    true
}

fn report_too_many(span: Span, most: usize, whose: &str, what: &str, help: &str, sink: &mut Sink) {
    sink.report(&codes::TOO_LARGE, span, format!("{whose} has more than {most} {what}")).help(help);
}

fn declared_once<'t>(names: impl Iterator<Item = &'t Name>, what: &str, sink: &mut Sink) {
    let mut seen = HashMap::new();
    for name in names {
        if let Some(first) = seen.get(name.text.as_str()) {
            let line = sink.line(*first);
            sink.report(
                &codes::DECLARED_TWICE,
                name.span,
                format!("{what} `{}` is declared twice", name.text),
            )
            .help(format!("it is declared on line {line} already; give this one another name"));
        } else {
            seen.insert(name.text.as_str(), name.span.start);
        }
    }
}

/// The place of each name. If several have one name it is the place of the first; the others are reported elsewhere.
fn places<'t>(names: impl Iterator<Item = &'t Name>) -> HashMap<&'t str, usize> {
    let mut places = HashMap::new();
    for (place, name) in names.enumerate() {
        places.entry(name.text.as_str()).or_insert(place);
    }
    places
}
