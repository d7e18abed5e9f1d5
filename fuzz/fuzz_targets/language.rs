//! Any text is checked without a panic, in work that its size allows, and what is accepted can be stored, read back and
//! evaluated.

#![no_main]

#[path = "../../crates/dsl/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aster_core::eval::{self, Answers, Env, Progress};
use aster_core::plan::Plan;
use aster_core::wit::Exports;
use aster_dsl::{check_with, render};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static COMPONENTS: LazyLock<BTreeMap<String, Exports>> = LazyLock::new(common::components);

fuzz_target!(|source: &str| {
    let checked = check_with("fuzz.aster", source, &*COMPONENTS);
    // Small texts get the fixed part, too; here a unit is some nanoseconds.
    assert!(checked.work <= 6_000_000 + 100 * source.len() as u64, "{} for {}", checked.work, source.len());
    assert!(checked.plans.is_empty() || !checked.has_errors());
    let mut last = 0;
    for found in &checked.diagnostics {
        assert!(source.get(found.span.start..found.span.end).is_some(), "{:?}", found.span);
        assert!(found.span.start >= last && found.line >= 1 && found.column >= 1);
        last = found.span.start;
    }
    let shown: Vec<_> = checked.diagnostics.iter().take(5).cloned().collect();
    render("fuzz.aster", source, &shown, false);
    checked.plans.iter().for_each(can_be_run);
});

fn can_be_run(plan: &Plan) {
    let stored = serde_json::to_string(plan).expect("it can be written");
    let read: Plan = serde_json::from_str(&stored).expect("it can be read");
    assert_eq!(read, *plan);
    assert!(plan.components().len() <= plan.calls().len());
    let input = Value::Null;
    let env = Env::of_input(plan, &input);
    for step in &plan.steps {
        for body in std::iter::once(&step.body).chain(step.compensation.as_ref().map(|undo| &undo.body)) {
            let mut answers = Answers::default();
            // Each call computes the body anew; a few say enough.
            for n in 0..8 {
                let Progress::Call(_) = eval::run(body, env, &answers) else { break };
                answers.push(Ok(Value::from(n)));
            }
        }
    }
}
