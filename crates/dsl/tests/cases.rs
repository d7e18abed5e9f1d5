//! Checks every file of `tests/cases` against its report. A file whose name begins with `types_` is checked against
//! components.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aster_dsl::{Checked, check, check_with, codes, render};

#[test]
fn each_case_gives_its_report() {
    for (name, source) in cases() {
        let checked = run(&name, &source);
        let report = render(&format!("{name}.aster"), &source, &checked.diagnostics, false);
        insta::with_settings!({ snapshot_path => "cases", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.as_str(), if report.is_empty() { "no diagnostics".to_owned() } else { report });
        });
    }
}

#[test]
fn a_case_has_a_plan_exactly_if_it_has_no_error() {
    for (name, source) in cases() {
        let checked = run(&name, &source);
        assert_eq!(checked.plans.is_empty(), checked.has_errors(), "{name}");
    }
}

/// The codes that only a large text has. `worst.rs` makes such texts.
const OF_LARGE_TEXTS: [&str; 4] = ["E008", "E009", "W112", "W113"];

#[test]
fn every_code_has_a_case() {
    let reported: BTreeSet<&str> = cases()
        .iter()
        .flat_map(|(name, source)| run(name, source).diagnostics)
        .map(|diagnostic| diagnostic.code)
        .collect();
    let missing: Vec<&str> = codes::TABLE
        .iter()
        .map(|code| code.id)
        .filter(|id| !reported.contains(id) && !OF_LARGE_TEXTS.contains(id))
        .collect();
    assert!(missing.is_empty(), "no case reports {missing:?}");
}

#[test]
fn every_code_is_in_the_docs_with_its_title_and_an_example() {
    let docs = docs();
    for code in codes::TABLE {
        let heading = format!("\n## {}: {}\n", code.id, code.title);
        let start = docs.find(&heading).unwrap_or_else(|| panic!("there is no `{}`", heading.trim()));
        let entry = &docs[start + heading.len()..];
        let entry = &entry[..entry.find("\n## ").unwrap_or(entry.len())];
        assert!(entry.contains("```aster\n"), "{} has no example", code.id);
        assert!(entry.contains("**Fix:**"), "{} has no fix", code.id);
        // The entry of a code names its severity.
        assert!(
            entry.starts_with(&format!("\n{:?}. ", code.severity)),
            "{} does not say its severity",
            code.id
        );
    }
}

#[test]
fn every_example_of_the_docs_reports_its_code() {
    for (code, example) in examples() {
        let source = if example.starts_with("This module") || example.starts_with("To ") {
            example
        } else {
            let body: String = example.lines().map(|line| format!("    {line}\n")).collect();
            let head = "This module is shop.\nTo f with order: Order, produce Json with IO. It performs io:\n  workflow:\n";
            format!("{head}{body}")
        };
        let checked = check_with("docs.aster", &source, &common::components());
        let found: Vec<&str> = checked.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
        if OF_LARGE_TEXTS.contains(&code.as_str()) {
            continue;
        }
        assert!(found.contains(&code.as_str()), "the example of {code} reports {found:?}:\n{source}");
    }
}

#[test]
fn codes_are_in_the_table_once() {
    let ids: BTreeSet<&str> = codes::TABLE.iter().map(|code| code.id).collect();
    assert_eq!(ids.len(), codes::TABLE.len());
    assert!(codes::TABLE.iter().all(|code| codes::lookup(code.id) == Some(code)));
}

fn run(name: &str, source: &str) -> Checked {
    let file = format!("{name}.aster");
    if name.starts_with("types_") {
        check_with(&file, source, &common::components())
    } else {
        check(&file, source)
    }
}

fn docs() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/diagnostics/README.md");
    std::fs::read_to_string(&path).expect("the page of the diagnostics is there")
}

/// Each code in the docs, with its example.
fn examples() -> Vec<(String, String)> {
    let docs = docs();
    let entries = docs.split("\n## ").skip(1);
    entries
        .map(|entry| {
            let (code, rest) = entry.split_once(':').expect("a heading begins with the code");
            let example = rest.split("```aster\n").nth(1).and_then(|rest| rest.split("\n```").next());
            (code.to_owned(), example.expect("it has an example").to_owned())
        })
        .collect()
}

fn cases() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the cases are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "aster"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a case is UTF-8"))
        })
        .collect()
}
