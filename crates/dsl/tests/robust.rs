//! No text makes the check panic, and every span is inside its text.

mod common;

use aster_dsl::{check_with, render};
use proptest::prelude::*;

const VALID: [&str; 4] = [
    include_str!("cases/ok_everything.aster"),
    include_str!("cases/types_paths.aster"),
    include_str!("cases/types_arguments.aster"),
    include_str!("cases/E031_not_complete.aster"),
];

/// Pieces with a meaning in the language, and some without.
const PIECES: [&str; 48] = [
    ".",
    ",",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    "{{",
    "\n",
    "\n  ",
    "\n      ",
    "\t",
    "#",
    "//",
    "-",
    "+",
    "<",
    "==",
    "and ",
    "or ",
    "not ",
    "If ",
    "Otherwise:",
    "Return ",
    "Let ",
    "be ",
    "step ",
    "await ",
    "compensate:",
    "depends on ",
    "when ",
    "timeout: ",
    "retry:",
    "1",
    "2.5",
    "99999999999999999999",
    "null",
    "ok of ",
    "List of ",
    "To ",
    "ä",
    "😀",
    "\0",
    "\r\n",
];

fn holds(source: &str) {
    let checked = check_with("t.aster", source, &common::components());
    assert_eq!(
        checked.plans.is_empty(),
        checked.has_errors() || checked.diagnostics.is_empty() && checked.plans.is_empty()
    );
    let mut last = 0;
    for diagnostic in &checked.diagnostics {
        let span = diagnostic.span;
        assert!(span.start <= span.end && span.end <= source.len(), "{span:?} of {}", source.len());
        assert!(source.is_char_boundary(span.start) && source.is_char_boundary(span.end), "{span:?}");
        assert!(span.start >= last, "not sorted");
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.end_line >= diagnostic.line);
        last = span.start;
    }
    let shown: Vec<_> = checked.diagnostics.iter().take(5).cloned().collect();
    render("t.aster", source, &shown, true);
    // A fixed amount, and some work for each byte.
    assert!(checked.work <= 10_000_000 + 50 * source.len() as u64, "{} for {}", checked.work, source.len());
}

/// `source` with some of its characters replaced by pieces.
fn mutate(source: &str, edits: &[(prop::sample::Index, usize, usize)]) -> String {
    let mut chars: Vec<String> = source.chars().map(String::from).collect();
    for (place, removed, piece) in edits {
        if chars.is_empty() {
            break;
        }
        let at = place.index(chars.len());
        let end = (at + removed).min(chars.len());
        chars.splice(at..end, PIECES.get(*piece).map(|piece| (*piece).to_owned()));
    }
    chars.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_checked(source in any::<String>()) {
        holds(&source);
    }

    #[test]
    fn any_row_of_pieces_is_checked(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..200)) {
        holds(&format!("This module is m.\nTo f produce Int:\n  workflow:\n    step s:\n      {}", pieces.concat()));
    }

    #[test]
    fn a_valid_file_with_edits_is_checked(
        of in 0..VALID.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, 0_usize..60), 1..12),
    ) {
        holds(&mutate(VALID[of], &edits));
    }
}

#[test]
fn every_beginning_of_a_file_is_checked() {
    for source in VALID {
        for (end, _) in source.char_indices() {
            holds(&source[..end]);
        }
    }
}

#[test]
fn huge_and_deep_texts_are_checked() {
    let head = "This module is m.\nTo f with a: Json, produce Int:\n  workflow:\n    step s:\n      Return ";
    for piece in
        ["(", "[", "{a: ", "-", "not ", "a.", "a[", "A.b(", "1 + ", "a and ", "\"{", "{{", "List of ", "If "]
    {
        holds(&format!("{head}{}", piece.repeat(20_000)));
        holds(&piece.repeat(20_000));
    }
    holds(&format!("This module is m.\nTo f with a: {}", "Result of ".repeat(20_000)));
    let mut steps = String::from("This module is m.\nTo f produce Int:\n  workflow:\n");
    for n in 0..5_000 {
        steps += &format!("    step s{n}:\n      Return {n}.\n");
    }
    holds(&steps);
    // A megabyte of each piece whose work could be quadratic.
    let body = "This module is m.\nTo f produce Int:\n  workflow:\n    step s:\n";
    holds(&format!("{body}      Return {}.\n", "x".repeat(1 << 20)));
    holds(&format!("{body}      Return [{}].\n", "abcdefg, ".repeat(1 << 17)));
    holds(&format!(
        "{body}      Return {{{}}}.\n",
        (0..80_000).map(|n| format!("a{n}: {n}, ")).collect::<String>()
    ));
    holds(&format!("{body}{}", (0..40_000).map(|n| format!("      Let a{n} be {n}.\n")).collect::<String>()));
    holds(&format!("{body}{}", "      Ab.cd(1).\n".repeat(60_000)));
    let many = |n: usize, with: &str| (0..n).map(|n| format!("{with}{n}, ")).collect::<String>();
    holds(&format!(
        "This module is m.\nTo f produce Int with IO. It performs io [{}]:\n  workflow:\n    step s:\n      Return 1.\n",
        many(100_000, "C")
    ));
    let all = (0..1_000)
        .map(|n| format!("    step s{n} depends on [{}]:\n      Return [s1, s2, x1].\n", many(200, "s")))
        .collect::<String>();
    holds(&format!("This module is m.\nTo f produce Int:\n  workflow:\n{all}"));
    let functions = (0..15_000)
        .map(|n| format!("To f{n} produce Int:\n workflow:\n  step s:\n   Return 1.\n"))
        .collect::<String>();
    holds(&format!("This module is m.\n{functions}"));
    holds(&format!("This module is m{}.\n", ".m".repeat(1 << 19)));
    let mut ifs = String::from("This module is m.\nTo f produce Int:\n  workflow:\n    step s:\n");
    for n in 0..2_000 {
        ifs += &format!("{}If true:\n", " ".repeat(6 + n));
    }
    holds(&ifs);
}
