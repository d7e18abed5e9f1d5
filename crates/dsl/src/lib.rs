//! The Aster language: turns a source text into a checked plan, with diagnostics.
//!
//! [`check()`] takes the text of a file and returns the plans of its workflow functions, together with all problems of
//! the text. [`check_with`] also checks the calls against the exports of the components. [`render()`] writes the
//! diagnostics as a report for people; they can also be serialised to JSON.
//!
//! A text goes through these modules: `lex` splits it into tokens, `parse` builds a syntax tree, which is complete even if
//! the text is faulty, `check` finds what makes no sense, `types` finds what doesn't fit the components, and `lower` makes
//! the plan.
//!
//! This crate does no I/O and knows nothing of the host, so a web page can check a file as it is typed. No input makes it
//! panic, and the core can evaluate and store every plan that it makes.

mod ast;
mod check;
pub mod codes;
mod diagnostic;
mod lex;
pub mod limits;
mod lower;
mod parse;
mod render;
mod setting;
mod types;

use std::borrow::Borrow;
use std::collections::BTreeMap;

use aster_core::plan::Plan;
use aster_core::wit::Exports;

pub use diagnostic::{Diagnostic, Severity, Span};
pub use render::render;
pub use types::{ResolveError, resolve_type};

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The name after `This module is`, if it was readable.
    pub module: Option<String>,
    /// One plan for each workflow function, in the order of the file. Empty if there is any error.
    pub plans: Vec<Plan>,
    /// All diagnostics, ordered by their position.
    pub diagnostics: Vec<Diagnostic>,
    /// The work of the check: the number of characters, tokens, names and parts of types that it looked at. Tests use it to
    /// show that the work grows no faster than the text.
    pub work: u64,
}

impl Checked {
    /// Whether there is an error, so that no plan was made.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Checks a source text by itself. Without components, the types of calls and values are not checked.
///
/// `file` is the name in the diagnostics. No file is read.
pub fn check(file: &str, source: &str) -> Checked {
    run(file, source, None)
}

/// Checks a source text, and its calls against the exports of the components.
///
/// `components` are all registered components, by their names in kebab-case. A component that is missing is a warning
/// (`W110`), since it may still be uploaded. Everything else that doesn't fit is an error.
pub fn check_with<E: Borrow<Exports>>(file: &str, source: &str, components: &BTreeMap<String, E>) -> Checked {
    let components = components.iter().map(|(name, exports)| (name.as_str(), exports.borrow())).collect();
    run(file, source, Some(types::Components::new(components)))
}

/// Parses a source text and returns the number of its functions. Benchmarks use it to measure parsing alone.
pub fn parse_only(file: &str, source: &str) -> usize {
    let mut sink = diagnostic::Sink::new(file, source);
    let tokens = lex::lex(source, &mut sink);
    parse::parse(source, tokens, &mut sink).functions.len()
}

fn run(file: &str, source: &str, components: Option<types::Components>) -> Checked {
    if source.len() > limits::SOURCE {
        return too_large(file, source.len());
    }
    let mut sink = diagnostic::Sink::new(file, source);
    let tokens = lex::lex(source, &mut sink);
    let tree = parse::parse(source, tokens, &mut sink);
    let models = check::check(&tree, &mut sink);
    if let Some(components) = components {
        types::check(&models, &components, &mut sink);
    }
    let plans = if sink.has_errors() { Vec::new() } else { lower::lower(&tree, &models, &sink) };
    let work = sink.worked();
    Checked { module: tree.module.map(|name| name.text), plans, diagnostics: sink.finish(), work }
}

fn too_large(file: &str, bytes: usize) -> Checked {
    let mut sink = diagnostic::Sink::new(file, "");
    let message = format!("this file has {bytes} bytes, and at most {} are read", limits::SOURCE);
    sink.report(&codes::SOURCE_SIZE, Span::default(), message).help("make several files of it");
    Checked { module: None, plans: Vec::new(), diagnostics: sink.finish(), work: 0 }
}
