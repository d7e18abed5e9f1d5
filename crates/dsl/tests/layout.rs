//! Lines, blocks and sentences in all their layouts.

use aster_core::plan::Plan;
use aster_dsl::{Diagnostic, check};

/// The codes and positions of the diagnostics of `source`.
fn codes(source: &str) -> Vec<String> {
    let told = |d: &Diagnostic| format!("{}@{}:{}", d.code, d.line, d.column);
    check("t.aster", source).diagnostics.iter().map(told).collect()
}

fn plan(source: &str) -> Plan {
    let checked = check("t.aster", source);
    assert!(checked.diagnostics.is_empty(), "{:?}", checked.diagnostics);
    checked.plans.into_iter().next().expect("a file without faults has a plan")
}

#[test]
fn a_workflow_has_the_same_plan_in_every_layout() {
    let usual = "\
This module is m.

To f with a: Int, produce Int:
  workflow:
    step one:
      Return [a, 2.5].
    timeout: 5 seconds.
  .
";
    let layouts = [
        (
            "no blank lines, no last line end",
            "This module is m.\nTo f with a: Int, produce Int:\n workflow:\n  step one:\n   Return [a, 2.5].\n  timeout: 5 seconds.",
        ),
        (
            "comments everywhere",
            "# c\nThis module is m.// c\n  # c\nTo f with a: Int, produce Int:#c\n  workflow: // c\n# c\n    step one: # c\n         // c\n      Return [a, // c\n 2.5].#c\n\n    timeout: 5 seconds.// c\n  .   # c\n// c",
        ),
        (
            "long sentences over several lines",
            "This module\n  is m.\nTo f\n  with a: Int,\nproduce\n  Int:\n  workflow:\n    step one:\n      Return\n        [\na,\n  2.5\n]\n        .\n    timeout:\n      seconds: 5.\n",
        ),
        (
            "brackets join lines",
            "This module is m.\nTo f with a: Int, produce Int:\n  workflow:\n    step one:\n      Return [a,\n2.5].\n    timeout: 5 seconds.\n",
        ),
        (
            "the end at the first column",
            "This module is m.\nTo f with a: Int, produce Int:\n  workflow:\n    step one:\n      Return [a, 2.5].\n    timeout: 5 seconds.\n.",
        ),
        (
            "the end between the columns",
            "This module is m.\nTo f with a: Int, produce Int:\n  workflow:\n    step one:\n      Return [a, 2.5].\n    timeout: 5 seconds.\n .\n",
        ),
        (
            "carriage returns",
            "This module is m.\r\nTo f with a: Int, produce Int:\r\n  workflow:\r\n    step one:\r\n      Return [a, 2.5].\r\n    timeout: 5 seconds.\r\n  .\r\n",
        ),
        (
            "a byte order mark",
            "\u{feff}This module is m.\nTo f with a: Int, produce Int:\n  workflow:\n    step one:\n      Return [a, 2.5].\n    timeout: 5 seconds.\n",
        ),
        (
            "capitals",
            "this Module is m.\nto f With a: int, Produce int:\n  Workflow:\n    Step one:\n      return Ok of [a, 2.5].\n    Timeout: 5 Seconds.\n",
        ),
        (
            "two sentences on a line",
            "This module is m. To f with a: Int, produce Int:\n  workflow:\n    step one:\n      Return [a, 2.5].\n    timeout: 5 seconds.\n",
        ),
        (
            "a trailing comma",
            "This module is m.\nTo f given a as Int produce Int:\n  workflow:\n    step one:\n      Return [a, 2.5,].\n    timeout: 5 second.\n",
        ),
    ];
    let mut usual = plan(usual);
    usual.steps[0].line = 0;
    for (layout, source) in layouts {
        let checked = check("t.aster", source);
        assert!(checked.diagnostics.is_empty(), "{layout}: {:?}", checked.diagnostics);
        let mut other = checked.plans.into_iter().next().expect("no error, so a plan");
        other.steps[0].line = 0;
        assert_eq!(other, usual, "{layout}");
    }
}

#[test]
fn a_line_of_a_dot_ends_the_workflow_only_up_to_its_own_indentation() {
    let with_end = |indent: &str| {
        codes(&format!(
            "This module is m.\nTo f produce Int:\n    workflow:\n        step one:\n            Return 1.\n{indent}.\n"
        ))
    };
    for indent in ["", "  ", "    "] {
        assert_eq!(with_end(indent), [""; 0], "{} blanks", indent.len());
    }
    assert_eq!(with_end("      "), ["E012@6:7"]);
    assert_eq!(with_end("        "), ["E020@6:9"]);
    assert_eq!(with_end("            "), ["E010@6:13"]);
}

#[test]
fn only_one_dot_ends_a_workflow() {
    let source =
        "This module is m.\nTo f produce Int:\n  workflow:\n    step one:\n      Return 1.\n  .\n.\n";
    assert_eq!(codes(source), ["E010@7:1"]);
}

#[test]
fn a_dot_ends_a_sentence_where_white_space_a_comment_or_the_end_follows() {
    let of = |value: &str| {
        codes(&format!(
            "This module is m.\nTo f with a: Json, produce Int:\n  workflow:\n    step one:\n      Return {value}"
        ))
    };
    for value in
        ["a.", "a.b.", "a.b.// c", "a.b.#c", "1.", "1.5.", "1 .", "a.b .", "\"a.\".", "[1.5, 2]\n       ."]
    {
        assert_eq!(of(value), [""; 0], "{value}");
    }
    assert_eq!(of("1.a."), ["E056"; 0], "what an integer has is asked with the types");
    assert_eq!(of(".5."), ["E005@5:14"]);
    assert_eq!(of("a. b."), ["E010@5:17"], "the second word is no statement");
    assert_eq!(of("a"), ["E011@5:14"]);
}

#[test]
fn columns_count_characters_and_spans_bytes() {
    let source =
        "This module is m.\nTo f produce Int:\n  workflow:\n    step one:\n      Return [\"äöü😀\", oops].\n";
    let found = check("t.aster", source).diagnostics;
    assert_eq!(found.len(), 1);
    let Diagnostic { line, column, end_line, end_column, span, .. } = &found[0];
    assert_eq!((*line, *column, *end_line, *end_column), (5, 23, 5, 27));
    assert_eq!(&source[span.start..span.end], "oops");
}

#[test]
fn a_diagnostic_is_camel_case_json() {
    let found = check(
        "t.aster",
        "This module is m.\nTo f produce Int:\n  workflow:\n    step one:\n      Return a.\n",
    )
    .diagnostics;
    insta::assert_json_snapshot!(found);
}

#[test]
fn keywords_can_be_names_where_no_keyword_can_stand() {
    let source = "\
This module is workflow.step.
To to with with: Json and produce: Json, produce Json with IO. It performs io with Step and Return:
  workflow:
    step step when with.when == 1:
      Let when be produce.be.
      Return.let(when).
      Return ok of when.
      compensate compensate:
        Step.undo(step).
    step await depends on step:
      Return ok of ok.
";
    // Nothing declares the name `ok`.
    assert_eq!(codes(source), ["E028@9:9", "E030@11:20"]);
}

#[test]
fn and_an_or_an_not_bind_as_usual() {
    let body = |value: &str| {
        let source = format!(
            "This module is m.\nTo f with a: Json, produce Int:\n  workflow:\n    step one:\n      Return {value}.\n"
        );
        plan(&source).steps[0].body.clone()
    };
    for (terse, explicit) in [
        ("a or a and a", "a or (a and a)"),
        ("not a == a and a", "(not (a == a)) and a"),
        ("a + a * a < a - a - a", "(a + (a * a)) < ((a - a) - a)"),
        ("-a.b[0] * a", "(-(a.b[0])) * a"),
        ("- -1", "-(-1)"),
        ("a / a / a", "(a / a) / a"),
        ("not not a", "not (not a)"),
        ("a - -1", "a - (-1)"),
        ("a -1", "a - 1"),
    ] {
        assert_eq!(body(terse), body(explicit), "{terse}");
    }
}
