//! Finds the step that each compensation belongs to.

use std::collections::HashMap;

use crate::ast::{Compensation, Workflow};
use crate::codes;
use crate::diagnostic::Sink;

/// Returns the compensation of each step, by the place of the step. A compensation inside a step belongs to that step,
/// and may have any name. One after a step belongs to the step that it names, or else to the step right before it.
pub(super) fn owners<'t>(
    workflow: &'t Workflow,
    steps: &HashMap<&str, usize>,
    sink: &mut Sink,
) -> Vec<Option<&'t Compensation>> {
    let mut owners = vec![None; workflow.steps.len()];
    for (place, step) in workflow.steps.iter().enumerate() {
        for compensation in &step.compensations {
            if let Some(name) = &compensation.name
                && steps.get(name.text.as_str()).is_some_and(|other| *other != place)
            {
                let message =
                    format!("this stands in step `{}`, but names step `{}`", step.name.text, name.text);
                sink.report(&codes::COMPENSATION_OWNER, name.span, message)
                    .help(format!("move it into step `{}`, or leave the name out", name.text));
            }
            assign(workflow, &mut owners, place, compensation, sink);
        }
    }
    for late in &workflow.compensations {
        let compensation = &late.compensation;
        let place = match &compensation.name {
            Some(name) => match steps.get(name.text.as_str()) {
                Some(&place) => place,
                None if workflow.incomplete => continue,
                None => {
                    let help = sink
                        .did_you_mean(&name.text, workflow.steps.iter().map(|step| step.name.text.as_str()))
                        .unwrap_or_else(|| {
                            "name the step that it undoes, or indent it into that step".to_owned()
                        });
                    let message = format!("`{}` is not a step of this workflow", name.text);
                    sink.report(&codes::COMPENSATION_OWNER, name.span, message).help(help);
                    continue;
                }
            },
            None => match late.after.checked_sub(1) {
                Some(place) => place,
                None if workflow.incomplete => continue,
                None => {
                    sink.report(
                        &codes::COMPENSATION_OWNER,
                        compensation.span,
                        "this compensation follows no step",
                    )
                    .help("write it in the step that it undoes, or after it");
                    continue;
                }
            },
        };
        assign(workflow, &mut owners, place, compensation, sink);
    }
    owners
}

fn assign<'t>(
    workflow: &Workflow,
    owners: &mut [Option<&'t Compensation>],
    place: usize,
    compensation: &'t Compensation,
    sink: &mut Sink,
) {
    if owners[place].is_some() {
        let message = format!("step `{}` has a compensation already", workflow.steps[place].name.text);
        sink.report(&codes::SECOND_COMPENSATION, compensation.span, message)
            .help("write all that undoes the step in one `compensate:`");
    } else {
        owners[place] = Some(compensation);
    }
}
