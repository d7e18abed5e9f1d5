//! The Aster language: source text to a checked plan, with diagnostics.
//!
//! [`check()`] takes the text of a file and returns the plans of its workflow functions and everything that is wrong with
//! it, in one go. [`check_with`] knows, besides, what the components export, and checks the calls against that.
//! [`render()`] makes a report for people of the diagnostics; as JSON they serialise themselves.
//!
//! The way of a text: `lex` makes tokens of it, `parse` a syntax tree that is whole even where the text is not, `check`
//! looks for what makes no sense, `types` for what doesn't fit the components, and `lower` makes the plan.
//!
//! There is no I/O here and nothing of the host, so that a web page can check a file as it is typed. No input makes it
//! panic, and what it accepts the core can evaluate and store.

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

/// What came of a source text.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What stands after `This module is`, if that was readable.
    pub module: Option<String>,
    /// One for each workflow function, in the order of the file; empty if there is any error.
    pub plans: Vec<Plan>,
    /// By position.
    pub diagnostics: Vec<Diagnostic>,
    /// What the check took, in things looked at: characters, tokens, names, parts of types. For those who watch that it grows
    /// no faster than the text.
    pub work: u64,
}

impl Checked {
    /// Whether something is wrong enough that no plan was made.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Checks a source text by itself. What only a component's types could tell is not looked at.
///
/// `file` is the name that the diagnostics carry; nothing is read from it.
pub fn check(file: &str, source: &str) -> Checked {
    run(file, source, None)
}

/// Checks a source text, and its calls against what the components export.
///
/// `components` are all that are registered, by their names in kebab-case. A component that is missing among them is a
/// warning (`W110`), since it can still come; everything else that doesn't fit is an error.
pub fn check_with<E: Borrow<Exports>>(file: &str, source: &str, components: &BTreeMap<String, E>) -> Checked {
    let components = components.iter().map(|(name, exports)| (name.as_str(), exports.borrow())).collect();
    run(file, source, Some(types::Components::new(components)))
}

/// Reads a source text as far as its tree, and drops that; how many functions it has. For measurements of what the rest takes.
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
