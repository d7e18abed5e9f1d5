//! Steps and their order: what is reported about them, and what isn't.

use aster_dsl::{Checked, check};

/// Checks a workflow with these lines.
fn workflow(lines: &str) -> Checked {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    check("m.aster", &format!("This module is m.\nTo f with a: Json, produce Json:\n  workflow:\n{lines}"))
}

/// The problems of a workflow with these lines, `CODE message`.
fn problems(lines: &str) -> Vec<String> {
    workflow(lines).diagnostics.iter().map(|found| format!("{} {}", found.code, found.message)).collect()
}

/// The help of the only problem of a workflow with these lines.
fn help(lines: &str) -> String {
    match &workflow(lines).diagnostics[..] {
        [only] => only.help.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

fn steps(count: usize, of: impl Fn(usize) -> String) -> String {
    (0..count).map(|n| format!("{}\n", of(n))).collect()
}

#[test]
fn names_are_not_reported_where_a_declaration_was_lost() {
    // Only the loss itself: the name may be that of the step that could not be read.
    let lost = "step 1:\n  Return 1.\n";
    let only = ["E010 expected the step's name, found `1`"];
    assert_eq!(problems(lost)[0], only[0]);
    let check = |rest: &str| assert_eq!(problems(&format!("{lost}{rest}")), only, "{rest}");
    check("step two:\n  Return 1.");
    check("step two depends on one:\n  Return 1.");
    check("step two:\n  Return one.");
    check("step two:\n  Return 1.\ncompensate one:\n  Return 1.");
    check("compensate:\n  Return 1.\nstep two:\n  Return 1.");
    check("step two:\n  Let b be 1.\nstep three:\n  Return two.");
}

#[test]
fn a_value_is_always_null_only_if_no_branch_can_return_one() {
    let check = |body: &str, is_null: bool| {
        let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
        let problems = problems(&format!("step one:\n{body}step two:\n  Return one."));
        let null = "W108 step `one` returns nothing, so this is null";
        assert_eq!(problems.iter().any(|problem| problem == null), is_null, "{body}{problems:?}");
    };
    check("Let b be 1.", true);
    check("Return err of 1.", true);
    check("Return 1.", false);
    check("If true:\n  Return 1.", false);
    check("If true:\n  Let b be 1.\nOtherwise:\n  Return 1.", false);
    check("If true:\n  Return 1.\nOtherwise:\n  Let b be 1.", false);
    check("If true:\n  Let b be 1.\nOtherwise:\n  Let c be 1.", true);
    // A statement that could not be read may be a `Return`.
    check("Retrun 1.", false);
}

#[test]
fn a_dependency_that_is_named_twice_counts_once() {
    let checked = workflow(
        "step one:\n  Return 1.\nstep two:\n  Return 1.\nawait one.\nstep three depends on [one, two, one]:\n  await two, two.\n  Return 1.",
    );
    let depends_on = &checked.plans[0].steps[2].depends_on;
    let depends_on: Vec<&str> = depends_on.iter().map(|step| &**step).collect();
    assert_eq!(depends_on, ["one", "two"]);
}

#[test]
fn a_step_reads_every_step_before_it_and_no_other_however_many_there_are() {
    // In a row: each reads the first, the one before it, and all between.
    let read = |n: usize| match n {
        0 => "step s0:\n  Return 0.".to_owned(),
        _ => format!("step s{n}:\n  Return [s0, s{}, s{}].", n / 2, n - 1),
    };
    assert_eq!(problems(&steps(200, read)), [""; 0]);
    // Beside each other: none may read another.
    let beside = |n: usize| {
        let other = (n + 64) % 130;
        format!(
            "step s{n} depends on []:\n  Return [{}].",
            if n == 0 { "1".to_owned() } else { format!("s{other}") }
        )
    };
    let problems = problems(&steps(130, beside));
    assert_eq!(problems.len(), 129);
    assert_eq!(problems[0], "E031 step `s65` is not surely complete when step `s1` runs");
    assert!(problems.iter().all(|problem| problem.starts_with("E031 ")), "{problems:?}");
}

#[test]
fn a_step_may_depend_on_a_later_one_and_read_it() {
    assert_eq!(
        problems("step one depends on two:\n  Return two.\nstep two depends on []:\n  Return 1."),
        [""; 0]
    );
}

#[test]
fn at_most_ten_cycles_are_reported() {
    let alone = |n: usize| format!("step s{n} depends on s{n}:\n  Return 1.");
    let count = |cycles: usize| problems(&steps(cycles, alone)).len();
    assert_eq!((count(9), count(10), count(11), count(12)), (9, 10, 10, 10));
}

#[test]
fn a_long_cycle_is_reported_by_its_beginning_and_its_end() {
    let cycle = |count: usize| {
        let step = |n: usize| format!("step s{n} depends on s{}:\n  Return 1.", (n + 1) % count);
        problems(&steps(count, step))
    };
    assert_eq!(cycle(2), ["E032 these steps wait for each other: `s0` for `s1` for `s0`"]);
    assert_eq!(
        cycle(8),
        [
            "E032 these steps wait for each other: `s0` for `s1` for `s2` for `s3` for `s4` for `s5` for `s6` for `s7` for `s0`"
        ]
    );
    assert_eq!(
        cycle(9),
        [
            "E032 these steps wait for each other: `s0` for `s1` for `s2` for `s3` for … for `s6` for `s7` for `s8` for `s0`"
        ]
    );
    assert_eq!(
        cycle(12),
        [
            "E032 these steps wait for each other: `s0` for `s1` for `s2` for `s3` for … for `s9` for `s10` for `s11` for `s0`"
        ]
    );
}

#[test]
fn a_cycle_that_is_met_in_its_middle_is_told_from_the_step_that_comes_first() {
    let lines = "step one depends on three:\n  Return 1.\nstep two depends on one:\n  Return 1.\nstep three depends on two:\n  Return 1.";
    assert_eq!(
        problems(lines),
        ["E032 these steps wait for each other: `one` for `three` for `two` for `one`"]
    );
    // The first step leads into the cycle, and isn't in it.
    let lines = "step one depends on three:\n  Return 1.\nstep two depends on three:\n  Return 1.\nstep three depends on two:\n  Return 1.";
    assert_eq!(problems(lines), ["E032 these steps wait for each other: `two` for `three` for `two`"]);
}

#[test]
fn the_help_lists_the_dependencies_of_a_step_if_they_are_few() {
    let reads = |dependencies: usize| {
        let names: Vec<String> = (0..dependencies).map(|n| format!("s{n}")).collect();
        let before = steps(dependencies, |n| format!("step s{n} depends on []:\n  Return 1."));
        let other = "step other depends on []:\n  Return 1.\n";
        help(&format!("{before}{other}step last depends on [{}]:\n  Return other.", names.join(", ")))
    };
    assert_eq!(reads(1), "let step `last` depend on it: `depends on [s0, other]`");
    assert_eq!(
        reads(8),
        "let step `last` depend on it: `depends on [s0, s1, s2, s3, s4, s5, s6, s7, other]`"
    );
    assert_eq!(reads(9), "let step `last` depend on `other` as well");
}

#[test]
fn the_help_for_an_unknown_dependency_lists_eight_other_steps() {
    let depends = |others: usize| {
        let before = steps(others, |n| format!("step some_other_{n} depends on []:\n  Return 1."));
        help(&format!("{before}step last depends on q:\n  Return 1."))
    };
    assert_eq!(depends(0), "this workflow has no other step to wait for");
    assert_eq!(depends(2), "the other steps are `some_other_0`, `some_other_1`");
    let eight: Vec<String> = (0..8).map(|n| format!("`some_other_{n}`")).collect();
    assert_eq!(depends(8), format!("the other steps are {}", eight.join(", ")));
    assert_eq!(depends(9), format!("the other steps are {} …", eight.join(", ")));
}

#[test]
fn waits_that_are_as_long_as_the_timeout_are_no_problem() {
    let retry = |attempts: u32, backoff: &str, timeout: &str| {
        let lines = format!(
            "timeout: {timeout}.\nstep one:\n  Return 1.\n  retry:\n    max attempts: {attempts}.\n    backoff: {backoff}.\n    initial delay: 2 seconds.\n    max delay: 5 seconds."
        );
        problems(&lines)
    };
    let outlast = |waits: &str, timeout: &str| {
        [format!("W105 the waits between the attempts come to {waits}, the timeout is {timeout}")]
    };
    // 2, 4, 5 and 5 seconds.
    assert_eq!(retry(5, "exponential", "16 seconds"), [""; 0]);
    assert_eq!(retry(5, "exponential", "15999 milliseconds"), outlast("16 s", "15.999 s"));
    // 2, 4 and 5 seconds.
    assert_eq!(retry(4, "linear", "11 seconds"), [""; 0]);
    assert_eq!(retry(4, "linear", "10 seconds"), outlast("11 s", "10 s"));
    // Three times 2 seconds.
    assert_eq!(retry(4, "constant", "6 seconds"), [""; 0]);
    assert_eq!(retry(4, "constant", "5 seconds"), outlast("6 s", "5 s"));
    assert_eq!(retry(1, "constant", "2 seconds"), [""; 0]);
}

#[test]
fn only_odd_settings_are_warned_of() {
    let check = |setting: &str, expected: &[&str]| {
        let lines = format!("{setting}\nstep one:\n  Return 1.");
        assert_eq!(problems(&lines), expected, "{setting}");
    };
    check("timeout: 2 seconds.", &[]);
    check("timeout: 1999 milliseconds.", &["W106 this timeout is under 2 seconds"]);
    check("timeout: 1 millisecond.", &["W106 this timeout is under 2 seconds"]);
    check("timeout: 60 minutes.", &[]);
    check("timeout: 3600001 milliseconds.", &["W106 this timeout is over 1 hour"]);
    check("retry:\n  max attempts: 10.\n  max delay: 1 second.", &[]);
    check("retry:\n  max attempts: 11.", &["W105 this makes up to 11 attempts"]);
}

#[test]
fn a_workflow_has_at_most_ten_thousand_dependencies() {
    let first: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    let before = steps(100, |n| format!("step s{n} depends on []:\n  Return 1."));
    let after = steps(100, |n| format!("step t{n} depends on [{}]:\n  Return 1.", first.join(", ")));
    let all = format!("{before}{after}");
    assert_eq!(problems(&all), [""; 0]);
    let more = format!("{all}step last depends on s0:\n  Return 1.");
    assert_eq!(problems(&more), ["E018 this workflow has more than 10000 dependencies"]);
}
