//! The plans of real files.

mod common;

use std::path::Path;

use aster_core::plan::Plan;
use aster_dsl::{check, check_with, render};

#[test]
fn the_workflows_of_the_project_have_no_errors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the workflows are there") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "aster") {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("a workflow is UTF-8");
        let checked = check(&path.to_string_lossy(), &source);
        let report = render(&path.to_string_lossy(), &source, &checked.diagnostics, false);
        assert!(!checked.has_errors(), "{report}");
        assert_eq!(checked.plans.len(), 1);
        seen += 1;
    }
    assert!(seen >= 3, "there are only {seen} workflows");
}

#[test]
fn the_order_fulfillment_has_its_plan() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows/order-fulfillment.aster");
    let source = std::fs::read_to_string(path).expect("the workflow is there");
    insta::assert_json_snapshot!(check("order-fulfillment.aster", &source).plans);
}

#[test]
fn everything_that_the_grammar_has_is_in_the_plan() {
    let source = include_str!("cases/ok_everything.aster");
    insta::assert_json_snapshot!(check("ok_everything.aster", source).plans);
}

#[test]
fn every_accepted_plan_can_be_stored_and_read_back() {
    // The deepest nesting that is accepted.
    for depth in 1..60 {
        let nested = [
            format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
            format!("{}1{}", "{a: ".repeat(depth), "}".repeat(depth)),
            format!("{}1{}", "A.b(".repeat(depth), ")".repeat(depth)),
            format!("1{}", " + 1".repeat(depth)),
            format!("x{}", ".a[0]".repeat(depth)),
            format!("{}x", "not ".repeat(depth)),
        ];
        for value in nested {
            for ifs in [0, 8] {
                let mut source = String::from(
                    "This module is m.\nTo f with x: Json, produce Json with IO. It performs io:\n  workflow:\n    step s:\n      Return 1.\n      compensate:\n",
                );
                for level in 0..ifs {
                    source += &format!("{}If x:\n", " ".repeat(8 + level));
                }
                source += &format!("{}Return {value}.\n", " ".repeat(8 + ifs));
                let Some(plan) = check("t.aster", &source).plans.pop() else {
                    assert!(depth > 20, "{source}");
                    continue;
                };
                let stored = serde_json::to_string(&plan).expect("a plan is JSON");
                let read: Plan = serde_json::from_str(&stored).expect("what was stored can be read");
                assert_eq!(read, plan);
            }
        }
    }
}

#[test]
fn a_missing_component_is_only_a_warning() {
    let source = "This module is m.\nTo f with o: Order, produce Json with IO. It performs io:\n  workflow:\n    step s:\n      Return Nowhere.nothing(o).\n      compensate:\n        Nowhere.undo(o).\n";
    let checked = check_with("t.aster", source, &common::components());
    assert_eq!(checked.plans.len(), 1);
    assert_eq!(checked.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["W110"]);
}
