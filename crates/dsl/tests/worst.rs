//! The work for the worst texts grows with their size and no faster, and a text that is too large is refused with a
//! diagnostic.

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::time::{Duration, Instant};

use aster_dsl::{Checked, check_with, codes, limits, render};
use shapes::SHAPES;

/// The work that suggestions and types may take in addition, however small the text is.
const FIXED: u64 = 10_000_000;

#[test]
fn no_shape_takes_more_work_than_its_size_allows() {
    for shape in SHAPES {
        let work = |bytes| check(&(shape.text)(bytes)).work;
        let (small, large) = (work(50_000), work(100_000));
        assert!(large <= 30 * 100_000 + FIXED, "{}: {large} for 100 KB", shape.name);
        assert!(large <= small * 5 / 2 + FIXED, "{}: {small}, and {large} for twice as much", shape.name);
    }
}

#[test]
fn no_shape_takes_time_by_the_square_of_its_size() {
    for shape in SHAPES {
        let (small, large) = ((shape.text)(16 << 10), (shape.text)(256 << 10));
        let taken = |text: &str| {
            let checked = check(text);
            render(shape.name, text, &checked.diagnostics, false);
        };
        let small = (0..2).map(|_| processor_time(|| taken(&small))).min().unwrap_or_default();
        // The size is sixteen times as large: quadratic time would be 256 times as long. The fixed part is allowed in
        // addition.
        let most = small * 64 + Duration::from_secs(2);
        let large = processor_time(|| taken(&large));
        assert!(large <= most, "{}: {small:?}, and {large:?} for sixteen times as much", shape.name);
    }
}

#[test]
fn a_text_over_a_limit_is_refused_with_a_diagnostic_that_names_the_limit() {
    let head = "This module is m.\n";
    let step = "  workflow:\n    step s:\n      Return 1.\n";
    let many = |n: usize, of: &dyn Fn(usize) -> String| (0..n).map(of).collect::<String>();
    let table = [
        ("E008", "this file has 1048577 bytes, and at most 1048576 are read", "x".repeat(limits::SOURCE + 1)),
        (
            "E018",
            "this file has more than 100 workflow functions",
            format!("{head}{}", many(101, &|n| format!("To f{n} produce Int:\n{step}"))),
        ),
        (
            "E018",
            "this function has more than 100 parameters",
            format!("{head}To f with {}z: Int, produce Int:\n{step}", many(100, &|n| format!("p{n}: Int, "))),
        ),
        (
            "E018",
            "this function has more than 100 components",
            format!(
                "{head}To f produce Int with IO. It performs io [{}Z]:\n{step}",
                many(100, &|n| format!("C{n}, "))
            ),
        ),
        (
            "E018",
            "this workflow has more than 1000 steps",
            format!(
                "{head}To f produce Int:\n  workflow:\n{}",
                many(1_001, &|n| format!("    step s{n}:\n      Return 1.\n"))
            ),
        ),
        (
            "E018",
            "this workflow has more than 10000 dependencies",
            format!(
                "{head}To f produce Int:\n  workflow:\n{}",
                many(200, &|step| {
                    let names = many(step, &|n| format!("s{n}, "));
                    format!("    step s{step} depends on [{names}]:\n      Return 1.\n")
                })
            ),
        ),
        (
            "E018",
            "this workflow has more than 100000 values, operators, calls and statements",
            format!(
                "{head}To f produce Json:\n  workflow:\n    step s:\n      Return [{}1].\n",
                "1, ".repeat(100_000)
            ),
        ),
        (
            "E009",
            "there are more than 1000 errors",
            format!(
                "{head}To f produce Int:\n  workflow:\n    step s:\n      Return [{}].\n",
                many(1_001, &|n| format!("x{n}, "))
            ),
        ),
        (
            "W112",
            "there are more than 1000 warnings",
            format!(
                "{head}To f produce Int with IO. It performs io:\n  workflow:\n    step s:\n      Return [{}].\n",
                many(1_001, &|n| format!("C{n}.f(), "))
            ),
        ),
        (
            "W113",
            "the types in this file are too large to be checked from here on",
            format!(
                "{head}To f produce Json:\n  workflow:\n    step s:\n      Let w be {{{}}}.\n      Return [{}].\n",
                many(9_000, &|n| format!("field{n}: 1, ")),
                "w.field0, ".repeat(9_000)
            ),
        ),
    ];
    for (code, message, source) in table {
        let checked = check(&source);
        let found: Vec<(&str, &str)> =
            checked.diagnostics.iter().map(|found| (found.code, found.message.as_str())).collect();
        assert!(found.contains(&(code, message)), "{message}: {:?}", &found[..found.len().min(3)]);
        let is_error = codes::lookup(code).expect("it is a code").severity == aster_dsl::Severity::Error;
        assert_eq!(checked.plans.is_empty(), is_error, "{message}");
        assert!(found.len() <= 2 * limits::DIAGNOSTICS + 2, "{message}");
    }
}

#[test]
fn a_text_at_a_limit_is_accepted() {
    let names = (0..100).map(|n| format!("s{n}, ")).collect::<String>();
    // 100 steps in a row, and 99 steps that depend on all of them, have 9,999 dependencies.
    let steps = (0..100).map(|n| format!("    step s{n}:\n      Return 1.\n")).collect::<String>();
    let last = (100..199)
        .map(|n| format!("    step s{n} depends on [{names}]:\n      Return 1.\n"))
        .collect::<String>();
    let checked = check(&format!("This module is m.\nTo f produce Int:\n  workflow:\n{steps}{last}"));
    assert_eq!(checked.diagnostics, []);
    let all = checked.plans[0].steps.iter().map(|step| step.depends_on.len()).sum::<usize>();
    assert_eq!(all, limits::DEPENDENCIES - 1);
}

#[test]
fn a_message_quotes_only_the_beginning_of_a_long_text() {
    for shape in SHAPES {
        let checked = check(&(shape.text)(20_000));
        for found in checked.diagnostics {
            let help = found.help.map_or(0, |help| help.len());
            assert!(found.message.len() < 2_100 && help < 2_100, "{}: {}", shape.name, found.code);
        }
    }
}

#[test]
fn the_docs_list_every_limit() {
    let docs = include_str!("../../../docs/LANGUAGE.md");
    for (what, limit) in [
        ("bytes of a file", limits::SOURCE),
        ("workflow functions of a file", limits::FUNCTIONS),
        ("parameters of a function", limits::PARAMETERS),
        ("components after `It performs io`", limits::COMPONENTS),
        ("steps of a workflow", limits::STEPS),
        ("dependencies of a workflow's steps", limits::DEPENDENCIES),
        ("values, operators, calls and statements of a workflow", limits::PARTS),
        ("brackets, signs or types in each other", limits::NESTING as usize),
        ("`If` in each other", limits::IFS as usize),
        ("bytes of a name", limits::NAME),
        ("bytes of a module's name", limits::MODULE),
        ("errors that are listed, and warnings", limits::DIAGNOSTICS),
    ] {
        assert!(docs.contains(&format!("| {what} | {} |", separated(limit))), "{what}: {limit}");
    }
}

fn check(source: &str) -> Checked {
    check_with("t.aster", source, &common::components())
}

fn separated(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

/// The processor time of this thread during `work`, so that a busy machine makes nothing slower.
fn processor_time(work: impl FnOnce()) -> Duration {
    let computed = || {
        let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        counted.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let (began, before) = (Instant::now(), computed());
    work();
    match (before, computed()) {
        (Some(before), Some(after)) => after - before,
        _ => began.elapsed(),
    }
}
