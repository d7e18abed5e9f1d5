//! Diagnostics: what is wrong where, and what to write instead.

use std::ops::Range;

use serde::Serialize;

use crate::codes::Code;
use crate::lex::MAX_NAME;

/// Whether a file with such a diagnostic can be deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// No plan is made.
    Error,
    /// A plan is made all the same.
    Warning,
}

/// A piece of the source, in bytes; both ends are at character boundaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// From the start of `self` to the end of `other`.
    pub(crate) fn to(self, other: Span) -> Span {
        Span::new(self.start, other.end.max(self.start))
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// One fault of a source text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The name under which the text was checked.
    pub file: String,
    /// Stable; one of [`crate::codes::TABLE`].
    pub code: &'static str,
    pub severity: Severity,
    /// What is wrong: one line, lower case, no full stop.
    pub message: String,
    /// What to write.
    pub help: Option<String>,
    pub span: Span,
    /// Stands at the underlined piece of the source line.
    pub label: Option<String>,
    /// Of the span's start, from 1.
    pub line: usize,
    /// Of the span's start, in characters, from 1.
    pub column: usize,
    /// Of the span's end, from 1.
    pub end_line: usize,
    /// Of the span's end, in characters, from 1; the first column after the span.
    pub end_column: usize,
}

/// As many errors, and as many warnings, are gathered. More come only of a text that is not meant as a workflow, and
/// would make its check expensive.
const MOST: usize = 1_000;

/// Collects the diagnostics of one source text.
pub(crate) struct Sink<'a> {
    file: &'a str,
    source: &'a str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    found: Vec<Diagnostic>,
    errors: usize,
}

/// A diagnostic that was just reported, to add to; none if it is one too many.
pub(crate) struct Reported<'s>(Option<&'s mut Diagnostic>);

impl Reported<'_> {
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        self.maybe_help(Some(help.into()))
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        if let Some(diagnostic) = &mut self.0 {
            diagnostic.help = help;
        }
        self
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        if let Some(diagnostic) = &mut self.0 {
            diagnostic.label = Some(label.into());
        }
        self
    }
}

impl<'a> Sink<'a> {
    pub(crate) fn new(file: &'a str, source: &'a str) -> Self {
        let lines = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, source, lines, found: Vec::new(), errors: 0 }
    }

    pub(crate) fn report(
        &mut self,
        code: &'static Code,
        span: Span,
        message: impl Into<String>,
    ) -> Reported<'_> {
        let is_error = code.severity == Severity::Error;
        let before = if is_error { self.errors } else { self.found.len() - self.errors };
        if before >= MOST {
            return Reported(None);
        }
        self.errors += usize::from(is_error);
        let span = self.inside(span);
        let (line, column) = self.position(span.start);
        let (end_line, end_column) = self.position(span.end);
        self.found.push(Diagnostic {
            file: self.file.to_owned(),
            code: code.id,
            severity: code.severity,
            message: message.into(),
            help: None,
            span,
            label: None,
            line,
            column,
            end_line,
            end_column,
        });
        Reported(self.found.last_mut())
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset).max(1)
    }

    /// Everything reported, by position; what was reported twice stands once.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found
            .sort_by(|a, b| (a.span.start, a.span.end, a.code).cmp(&(b.span.start, b.span.end, b.code)));
        self.found.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        self.found
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        (line, self.source[self.lines[line - 1]..offset].chars().count() + 1)
    }

    /// INVARIANT: every span that leaves this crate lies within the source, at character boundaries.
    fn inside(&self, span: Span) -> Span {
        let start = self.source.floor_char_boundary(span.start);
        let end = self.source.ceil_char_boundary(span.end.max(start));
        Span::new(start, end)
    }
}

/// So many names are compared for a suggestion; whoever has more is not helped by one.
const CANDIDATES: usize = 1_000;

/// `help: did you mean …`, where something in `candidates` is near enough to `name`.
pub(crate) fn did_you_mean<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    if name.len() > MAX_NAME {
        return None;
    }
    let words = aster_core::name::kebab(name);
    candidates
        .into_iter()
        .take(CANDIDATES)
        .filter(|candidate| *candidate != name && candidate.len() <= MAX_NAME)
        .map(|candidate| {
            (strsim::damerau_levenshtein(&words, &aster_core::name::kebab(candidate)), candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count() / 3))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}
