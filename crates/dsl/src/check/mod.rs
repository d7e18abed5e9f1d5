//! What can be wrong with a text that reads well, one file for each kind of question. Components' types aren't asked
//! here, but in [`crate::types`].

mod capabilities;
mod compensation;
mod flow;
mod order;
mod scope;
mod settings;
mod trigger;

pub(crate) use flow::{returns_value, surely_returns};
pub(crate) use order::Set;

use std::collections::HashMap;

use crate::ast::{Compensation, File, Function, Name, Workflow};
use crate::codes;
use crate::diagnostic::Sink;

/// More steps than a person writes, few enough for what is quadratic in them.
const MAX_STEPS: usize = 1_000;

/// A function whose parts have been found: what the later checks and the lowering work on.
pub(crate) struct Model<'t> {
    pub(crate) function: &'t Function,
    pub(crate) workflow: &'t Workflow,
    /// Parameter names to their places.
    pub(crate) params: HashMap<&'t str, usize>,
    /// Step names to their places.
    pub(crate) steps: HashMap<&'t str, usize>,
    /// What each step depends on by itself, by place, each once.
    pub(crate) depends_on: Vec<Vec<usize>>,
    /// What is surely complete, or skipped, when a step starts.
    pub(crate) before: Vec<Set>,
    pub(crate) compensations: Vec<Option<&'t Compensation>>,
}

/// Checks each function of the file, and returns what could be made out of it.
pub(crate) fn check<'t>(file: &'t File, sink: &mut Sink) -> Vec<Model<'t>> {
    declared_once(file.functions.iter().map(|function| &function.name), "workflow function", sink);
    trigger::distinct(&file.functions, sink);
    file.functions.iter().filter_map(|function| self::function(function, sink)).collect()
}

fn function<'t>(function: &'t Function, sink: &mut Sink) -> Option<Model<'t>> {
    let workflow = function.workflow.as_ref()?;
    let names = || workflow.steps.iter().map(|step| &step.name);
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
    if workflow.steps.len() > MAX_STEPS {
        let span = workflow.steps[MAX_STEPS].name.span;
        sink.report(&codes::TOO_LARGE, span, format!("this workflow has more than {MAX_STEPS} steps"))
            .help("make several workflows of it");
        return None;
    }
    let steps = places(names());
    let (depends_on, before) = order::dependencies(workflow, &steps, sink);
    let compensations = compensation::owners(workflow, &steps, sink);
    let model = Model { function, workflow, params, steps, depends_on, before, compensations };
    flow::check(&model, sink);
    scope::check(&model, sink);
    settings::check(&model, sink);
    trigger::check(&model, sink);
    capabilities::check(&model, sink);
    Some(model)
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

/// The first of several with one name is meant; the others are reported.
fn places<'t>(names: impl Iterator<Item = &'t Name>) -> HashMap<&'t str, usize> {
    let mut places = HashMap::new();
    for (place, name) in names.enumerate() {
        places.entry(name.text.as_str()).or_insert(place);
    }
    places
}
