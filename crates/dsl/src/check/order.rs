//! Finds the dependencies of each step, and checks that they have no cycle.

use std::collections::HashMap;

use crate::ast::{Name, StatementKind, Workflow};
use crate::codes;
use crate::diagnostic::{Sink, brief};
use crate::limits::DEPENDENCIES;

/// A set of steps, with one bit for each place.
#[derive(Clone)]
pub(crate) struct Set(Vec<u64>);

impl Set {
    fn new(steps: usize) -> Self {
        Self(vec![0; steps.div_ceil(64)])
    }

    pub(crate) fn contains(&self, step: usize) -> bool {
        self.0[step / 64] & (1 << (step % 64)) != 0
    }

    /// The number of steps in the set.
    pub(crate) fn len(&self) -> u32 {
        self.0.iter().map(|bits| bits.count_ones()).sum()
    }

    fn insert(&mut self, step: usize) {
        self.0[step / 64] |= 1 << (step % 64);
    }

    fn extend(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }
}

/// Returns the direct dependencies of each step, and the set of all steps before it. Returns `None` if there are too many.
pub(super) fn dependencies(
    workflow: &Workflow,
    steps: &HashMap<&str, usize>,
    sink: &mut Sink,
) -> Option<(Vec<Vec<usize>>, Vec<Set>)> {
    let mut depends_on = Vec::with_capacity(workflow.steps.len());
    let mut known: Vec<&str> = steps.keys().copied().collect();
    known.sort_unstable();
    // The last step that named each step, so that a step counts once for each.
    let mut named_by = vec![None; workflow.steps.len()];
    let mut total = 0;
    for (place, step) in workflow.steps.iter().enumerate() {
        let leading = step.body.first().and_then(|first| match &first.kind {
            StatementKind::Await(names) => Some(names),
            _ => None,
        });
        let explicit = step.depends_on.is_some() || !step.awaits.is_empty() || leading.is_some();
        if !explicit {
            // A step without dependencies depends on the step before it.
            depends_on.push(place.checked_sub(1).into_iter().collect());
            continue;
        }
        let mut own = Vec::new();
        for name in step.depends_on.iter().flatten().chain(&step.awaits).chain(leading.into_iter().flatten())
        {
            sink.work(1);
            match steps.get(name.text.as_str()) {
                Some(&dependency) if named_by[dependency] != Some(place) => {
                    named_by[dependency] = Some(place);
                    own.push(dependency);
                }
                Some(_) => {}
                None if workflow.incomplete => {}
                None => unknown(name, &step.name.text, &known, sink),
            }
        }
        total += own.len();
        if total > DEPENDENCIES {
            let help = "a step need not name what its dependencies wait for anyway";
            super::report_too_many(step.name.span, DEPENDENCIES, "this workflow", "dependencies", help, sink);
            return None;
        }
        depends_on.push(own);
    }
    let before = transitive(workflow, &depends_on, sink);
    Some((depends_on, before))
}

/// Reports that `name` is no step. `known` are the names of all steps, sorted.
fn unknown(name: &Name, own: &str, known: &[&str], sink: &mut Sink) {
    if sink.is_full() {
        return;
    }
    let candidates = || known.iter().copied().filter(|step| *step != own);
    let help = sink.did_you_mean(&name.text, candidates()).unwrap_or_else(|| match candidates().next() {
        None => "this workflow has no other step to wait for".to_owned(),
        Some(_) => format!("the other steps are {}", listed(candidates())),
    });
    sink.report(
        &codes::UNKNOWN_DEPENDENCY,
        name.span,
        format!("`{}` is not a step of this workflow", brief(&name.text)),
    )
    .help(help)
    .label("named here");
}

fn listed<'n>(mut names: impl Iterator<Item = &'n str>) -> String {
    let shown: Vec<String> = names.by_ref().take(8).map(|name| format!("`{name}`")).collect();
    let more = if names.next().is_some() { " …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// The most cycles that are reported. Steps that depend on each other in many ways have very many.
const MOST_CYCLES: usize = 10;

/// Returns all steps before each step. Reports the cycles that it meets.
fn transitive(workflow: &Workflow, depends_on: &[Vec<usize>], sink: &mut Sink) -> Vec<Set> {
    let count = depends_on.len();
    let mut before = vec![Set::new(count); count];
    let mut state = vec![State::Unseen; count];
    let mut cycles = 0;
    for start in 0..count {
        if state[start] != State::Unseen {
            continue;
        }
        // Goes depth first, without recursion. Each entry is a step and the number of its dependencies that were followed.
        let mut path = vec![(start, 0)];
        state[start] = State::Open;
        while let Some(top) = path.last_mut() {
            let (step, followed) = *top;
            let Some(&next) = depends_on[step].get(followed) else {
                let mut all = Set::new(count);
                sink.work(depends_on[step].len() * all.0.len());
                for &dependency in &depends_on[step] {
                    all.insert(dependency);
                    all.extend(&before[dependency]);
                }
                before[step] = all;
                state[step] = State::Done;
                path.pop();
                continue;
            };
            top.1 += 1;
            match state[next] {
                State::Unseen => {
                    state[next] = State::Open;
                    path.push((next, 0));
                }
                State::Open => {
                    if cycles < MOST_CYCLES {
                        let from = path.iter().position(|(step, _)| *step == next).unwrap_or(0);
                        let cycle: Vec<usize> = path[from..].iter().map(|(step, _)| *step).collect();
                        report_cycle(workflow, &cycle, sink);
                    }
                    cycles += 1;
                }
                State::Done => {}
            }
        }
    }
    before
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Unseen,
    Open,
    Done,
}

fn report_cycle(workflow: &Workflow, cycle: &[usize], sink: &mut Sink) {
    let Some(first) = cycle.iter().copied().min() else { return };
    let name = |step: usize| workflow.steps[step].name.text.as_str();
    let (message, help) = if cycle.len() == 1 {
        (format!("step `{}` waits for itself", name(first)), "leave its own name out")
    } else {
        // The message begins with the step that is declared first.
        let turn = cycle.iter().position(|step| *step == first).unwrap_or(0);
        let round = cycle[turn..].iter().chain(&cycle[..turn]).chain([&first]);
        let mut round: Vec<String> = round.map(|step| format!("`{}`", name(*step))).collect();
        if round.len() > 9 {
            round.splice(4..round.len() - 4, ["…".to_owned()]);
        }
        (
            format!("these steps wait for each other: {}", round.join(" for ")),
            "leave one of these dependencies out; a step without `depends on` waits for the step before it",
        )
    };
    sink.report(&codes::CYCLE, workflow.steps[first].name.span, message)
        .help(help)
        .label("it can never start");
}
