//! The worst source texts. Each has a shape that once took, or could take, more work than its size allows.
//!
//! The tests, the benchmark and the corpus of the fuzz target use the same texts.

use std::fmt::Write as _;

/// One shape: its name, and a function that makes a text of roughly so many bytes.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) text: fn(usize) -> String,
}

const MODULE: &str = "This module is m.\n";
const HEAD: &str = "This module is m.\nTo f with a: Json and order: Order, produce Json with IO. It performs io:\n  workflow:\n";
const STEP: &str = "    step s:\n";

pub(crate) const SHAPES: &[Shape] = &[
    Shape { name: "newlines", text: |n| "\n".repeat(n) },
    Shape { name: "blanks and carriage returns", text: |n| " \r\n".repeat(n / 3) },
    Shape { name: "one word", text: |n| "x".repeat(n) },
    Shape { name: "one number", text: |n| body("Return ", "1", "", n) },
    Shape { name: "one comment", text: |n| format!("# {}", "x".repeat(n)) },
    Shape { name: "lone stops on one line", text: |n| ". ".repeat(n / 2) },
    Shape { name: "stops in a body on one line", text: |n| body("Return 1", ". ", "", n) },
    Shape { name: "slashes", text: |n| "/ ".repeat(n / 2) },
    Shape { name: "characters unknown", text: |n| body("Return ", ";", "", n) },
    Shape { name: "not ASCII", text: |n| body("Return ", "ä😀 ", "", n) },
    Shape { name: "tabs", text: |n| "\t\n\tx\n".repeat(n / 5) },
    Shape { name: "texts that are not closed", text: |n| body("", "Return \"x\n      ", "", n) },
    Shape { name: "quotes", text: |n| body("Return ", "\"", "", n) },
    Shape { name: "braces that are not closed", text: |n| body("Return \"", "{a", "\".", n) },
    Shape { name: "braces before an escaped quote", text: |n| body("Return \"", "{\\\"", "\".", n) },
    Shape { name: "interpolations", text: |n| body("Return \"", "{a.b}", "\".", n) },
    Shape { name: "one interpolation", text: |n| body("Return \"{a", ".b", "}\".", n) },
    Shape { name: "escapes", text: |n| body("Return \"", "\\q\\u{12345678}", "\".", n) },
    Shape {
        name: "a text as the name of a step",
        text: |n| format!("{HEAD}    step s depends on \"{}\":\n      Return 1.\n", "x".repeat(n)),
    },
    Shape {
        name: "a path of a trigger",
        text: |n| {
            format!("{HEAD}    trigger: POST \"/{}\" keyed by a.\n{STEP}      Return 1.\n", "é".repeat(n / 2))
        },
    },
    Shape { name: "parentheses", text: |n| body("Return ", "(", "", n) },
    Shape {
        name: "parentheses, sentence by sentence",
        text: |n| {
            let nest = "(".repeat(60);
            body("", &format!("Return {nest}. "), "", n)
        },
    },
    Shape { name: "lists in lists", text: |n| body("Return ", "[", "", n) },
    Shape { name: "records in records", text: |n| body("Return ", "{a: ", "", n) },
    Shape { name: "brackets closed", text: |n| body("Return 1", ")]}", "", n) },
    Shape { name: "indices", text: |n| body("Return ", "a[", "", n) },
    Shape { name: "a path", text: |n| body("Return a", ".b", ".", n) },
    Shape { name: "a chain of and", text: |n| body("Return a", " and a", ".", n) },
    Shape { name: "a sum", text: |n| body("Return 1", " + 1", ".", n) },
    Shape { name: "signs", text: |n| body("Return ", "-", "1.", n) },
    Shape { name: "a list", text: |n| body("Return [", "a, ", "1].", n) },
    Shape { name: "a list of calls", text: |n| body("Return [", "A.b(1), ", "1].", n) },
    Shape {
        name: "a record",
        text: |n| {
            let fields = counted(n, |n| format!("k{n}: {n}, "));
            body("Return {", "", &format!("{fields}z: 1}}."), 0)
        },
    },
    Shape {
        name: "names unknown",
        text: |n| body("", "", &counted(n, |n| format!("Return [unknown_{n}].\n      ")), 0),
    },
    Shape {
        name: "names unknown beside many steps",
        text: |n| {
            let steps =
                (0..998).map(|n| format!("    step part_of_it_{n}:\n      Return 1.\n")).collect::<String>();
            let names = counted(n.saturating_sub(steps.len()), |n| format!("part_off_it_{n}, "));
            format!("{HEAD}{steps}{STEP}      Return [{names}1].\n")
        },
    },
    Shape {
        name: "long names unknown beside long names",
        text: |n| {
            let long = "abcdefghij".repeat(12);
            let lets = (0..990).map(|n| format!("      Let {long}{n} be 1.\n")).collect::<String>();
            let names = counted(n.saturating_sub(lets.len()), |n| format!("{long}_{n}, "));
            format!("{HEAD}{STEP}{lets}      Return [{names}1].\n")
        },
    },
    Shape {
        name: "settings unknown",
        text: |n| format!("{HEAD}{}{STEP}      Return 1.\n", "    timouts: 5 secnds.\n".repeat(n / 23)),
    },
    Shape {
        name: "units unknown",
        text: |n| format!("{HEAD}{}", "    timeout: 5 milisecons.\n".repeat(n / 27)),
    },
    Shape { name: "lets", text: |n| body("", "", &counted(n, |n| format!("Let a{n} be {n}.\n      ")), 0) },
    Shape { name: "one let many times", text: |n| body("", "Let b be 1.\n      ", "", n) },
    Shape {
        name: "a step without value, read many times",
        text: |n| {
            let calls = "      A.b().\n".repeat(n / 30);
            format!("{HEAD}    step none:\n{calls}{STEP}      Return [{}1].\n", "none, ".repeat(n / 12))
        },
    },
    Shape {
        name: "Ifs in each other",
        text: |n| {
            let (mut text, mut depth) = (format!("{HEAD}{STEP}"), 0);
            while text.len() < n {
                let _ = writeln!(text, "{}If true:", " ".repeat(6 + depth));
                depth += 1;
            }
            text
        },
    },
    Shape {
        name: "Ifs beside each other",
        text: |n| {
            body(
                "",
                "If a.b == 1:\n        Return 1.\n      Otherwise:\n        Return 2.\n      ",
                "Return 3.",
                n,
            )
        },
    },
    Shape {
        name: "types in types",
        text: |n| format!("{MODULE}To f with a: {}Int, produce Int:\n", "List of ".repeat(n / 8)),
    },
    Shape {
        name: "a type that names many",
        text: |n| format!("{MODULE}To f with a: {}Int, produce Int:\n", "Result of A and ".repeat(n / 16)),
    },
    Shape {
        name: "parameters",
        text: |n| {
            let params = counted(n, |n| format!("p{n}: T{n}, "));
            format!("{MODULE}To f with {params}z: Int, produce Int:\n  workflow:\n{STEP}      Return z.\n")
        },
    },
    Shape {
        name: "parameters that have one name",
        text: |n| {
            let params = "p: Order, ".repeat(n / 10);
            format!("{MODULE}To f with {params}z: Int, produce Int:\n  workflow:\n{STEP}      Return z.\n")
        },
    },
    Shape {
        name: "components",
        text: |n| {
            let list = counted(n, |n| format!("C{n}, "));
            format!(
                "{MODULE}To f produce Int with IO. It performs io [{list}Z]:\n  workflow:\n{STEP}      Return 1.\n"
            )
        },
    },
    Shape {
        name: "components undeclared",
        text: |n| {
            let list = (0..90).map(|n| format!("Component{n}, ")).collect::<String>();
            let calls = counted(n.saturating_sub(list.len()), |n| format!("Componend{n}.f().\n      "));
            format!(
                "{MODULE}To f produce Int with IO. It performs io [{list}Z]:\n  workflow:\n{STEP}      {calls}Return 1.\n"
            )
        },
    },
    Shape {
        name: "components that nobody registered",
        text: |n| body("", "", &counted(n, |n| format!("Orderz{n}.f(1).\n      ")), 0),
    },
    Shape {
        name: "functions that are not exported",
        text: |n| body("", "Orders.validat(order).\n      ", "", n),
    },
    Shape { name: "calls", text: |n| body("", "Orders.validate(order).\n      ", "Return 1.", n) },
    Shape {
        name: "paths into what a component types",
        text: |n| body("Return [", "order.items, ", "1].", n),
    },
    Shape {
        name: "paths into a wide record",
        text: |n| {
            let fields = counted(n / 3, |n| format!("field{n}: 1, "));
            let paths = "wide.field0, ".repeat(n / 25);
            body(&format!("Let wide be {{{fields}z: 1}}.\n      Return [{paths}"), "", "1].", 0)
        },
    },
    Shape {
        name: "paths that a wide record has not",
        text: |n| {
            let fields = counted(100_000.min(n / 3), |n| format!("field{n}: 1, "));
            let paths = "wide.feild0, ".repeat(n / 25);
            body(&format!("Let wide be {{{fields}z: 1}}.\n      Return [{paths}"), "", "1].", 0)
        },
    },
    Shape {
        name: "wide records, compared",
        text: |n| {
            let fields = counted(100_000.min(n / 6), |n| format!("field{n}: 1, "));
            let pairs = "b, c, ".repeat(n / 12);
            let lets = ["b", "c"].map(|name| format!("Let {name} be {{{fields}z: 1}}.\n      ")).concat();
            body(&format!("{lets}Return [{pairs}"), "", "1].", 0)
        },
    },
    Shape {
        name: "a record for a parameter",
        text: |n| {
            let fields = counted(n, |n| format!("k{n}: {n}, "));
            body("Return Orders.validate({", "", &format!("{fields}z: 1}})."), 0)
        },
    },
    Shape {
        name: "values that double",
        text: |n| {
            let lets = counted(n, |n| match n {
                0 => "Let v0 be [1].\n      ".to_owned(),
                _ => format!("Let v{n} be {{a: v{}, b: v{}}}.\n      ", n - 1, n - 1),
            });
            body(&lets, "", "Return 1.", 0)
        },
    },
    Shape {
        name: "functions",
        text: |n| {
            let functions =
                counted(n, |n| format!("To f{n} produce Int:\n workflow:\n  step s:\n   Return 1.\n"));
            format!("{MODULE}{functions}")
        },
    },
    Shape {
        name: "functions with types",
        text: |n| {
            let functions = counted(n, |n| {
                format!(
                    "To f{n} with a: Order, produce Order with IO. It performs io:\n workflow:\n  step s:\n   Return Orders.validate(a).\n"
                )
            });
            format!("{MODULE}{functions}")
        },
    },
    Shape { name: "heads without anything", text: |n| format!("{MODULE}{}", "To f:\n".repeat(n / 6)) },
    Shape { name: "a module name", text: |n| format!("This module is m{}.\n", ".m".repeat(n / 2)) },
    Shape {
        name: "steps",
        text: |n| {
            let steps = counted(n, |n| format!("    step s{n}:\n      Return {n}.\n"));
            format!("{HEAD}{steps}")
        },
    },
    Shape { name: "steps that depend on all before", text: |n| dependencies(n, |step| 0..step) },
    Shape { name: "steps that depend on all after", text: |n| dependencies(n, |step| step + 1..1_000) },
    Shape {
        name: "steps that depend on what is not there",
        text: |n| dependencies(n, |step| 2_000..2_100 + step),
    },
    Shape {
        name: "one dependency many times",
        text: |n| {
            let names = "s, ".repeat(n / 3);
            format!("{HEAD}{STEP}      Return 1.\n    step t depends on [{names}s]:\n      Return 1.\n")
        },
    },
    Shape {
        name: "compensations of no step",
        text: |n| {
            let undo = "    compensate sss:\n      A.b().\n".repeat(n / 34);
            format!("{HEAD}{STEP}      A.b().\n{undo}")
        },
    },
    Shape { name: "awaits", text: |n| body("", "await s.\n      ", "Return 1.", n) },
];

/// A workflow with one step, whose body is `before`, as many of `piece` as fill `bytes`, and `after`.
fn body(before: &str, piece: &str, after: &str, bytes: usize) -> String {
    let pieces = piece.repeat(bytes.checked_div(piece.len()).unwrap_or(0));
    format!("{HEAD}{STEP}      {before}{pieces}{after}\n")
}

/// Joins `piece` of 0, 1, 2 and so on, up to `bytes`.
fn counted(bytes: usize, piece: impl Fn(usize) -> String) -> String {
    let (mut text, mut n) = (String::with_capacity(bytes + 100), 0);
    while text.len() < bytes {
        text += &piece(n);
        n += 1;
    }
    text
}

/// A workflow of up to `bytes` and at most a thousand steps, with the dependencies of each.
fn dependencies(bytes: usize, of: impl Fn(usize) -> std::ops::Range<usize>) -> String {
    let mut text = HEAD.to_owned();
    for step in 0..1_000 {
        let names = of(step).map(|n| format!("s{n}, ")).collect::<String>();
        let step = format!("    step s{step} depends on [{names}]:\n      Return 1.\n");
        if text.len() + step.len() > bytes {
            break;
        }
        text += &step;
    }
    text
}
