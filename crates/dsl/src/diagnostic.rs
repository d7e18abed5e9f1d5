//! Diagnostics: what is wrong, where, and what to write instead.

use std::ops::Range;

use aster_core::name::kebab;
use serde::Serialize;

use crate::codes::{self, Code};
use crate::limits::{DIAGNOSTICS as MOST, NAME as MAX_NAME};

/// Whether a file with such a diagnostic can be deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// No plan is made.
    Error,
    /// A plan is still made.
    Warning,
}

/// A range of the source in bytes. Both ends are at character boundaries.
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

/// One problem of a source text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The name of the file that the caller gave.
    pub file: String,
    /// One of [`crate::codes::TABLE`]. Codes are stable.
    pub code: &'static str,
    pub severity: Severity,
    /// What is wrong, in one line of lower case without a full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    pub span: Span,
    /// A word for the underlined part of the source line.
    pub label: Option<String>,
    /// The line of the span's start, counted from 1.
    pub line: usize,
    /// The column of the span's start in characters, counted from 1.
    pub column: usize,
    /// The line of the span's end, counted from 1.
    pub end_line: usize,
    /// The first column after the span, in characters, counted from 1.
    pub end_column: usize,
}

/// The most bytes of a message, and of a help. A message quotes the source, where a number or a text can have any length.
const LONGEST_MESSAGE: usize = 2_000;

/// The most work for all suggestions of one check, in cells of the tables that compare two names.
const SUGGESTION_WORK: u64 = 4_000_000;

/// The most names that are compared for one suggestion.
pub(crate) const CANDIDATES: usize = 1_000;

/// The most parts of types that one check looks at. A file that is written by hand needs far fewer.
const TYPE_WORK: usize = 2_000_000;

/// The work of a look at one name, in cells.
const LOOK: u64 = 64;

/// Collects the diagnostics of one source text, and counts the work of its check.
pub(crate) struct Sink<'a> {
    file: &'a str,
    source: &'a str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    found: Vec<Diagnostic>,
    errors: usize,
    /// Whether there were more warnings than are listed.
    warnings_cut: bool,
    /// The work of all suggestions so far.
    suggested: u64,
    /// How many parts of types may still be looked at.
    types_left: usize,
    types_cut: bool,
    /// The place that is looked at now, for a problem that has no place of its own.
    looking_at: Span,
    work: u64,
}

/// A diagnostic that was just reported, so that the caller can add to it. Empty if it is one too many.
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
        let work = source.len() as u64;
        Self {
            file,
            source,
            lines,
            found: Vec::new(),
            errors: 0,
            warnings_cut: false,
            suggested: 0,
            types_left: TYPE_WORK,
            types_cut: false,
            looking_at: Span::default(),
            work,
        }
    }

    /// Adds a diagnostic. The lines and columns of all are computed at the end, in one pass.
    pub(crate) fn report(
        &mut self,
        code: &'static Code,
        span: Span,
        message: impl Into<String>,
    ) -> Reported<'_> {
        self.work(1);
        if self.is_full() {
            return Reported(None);
        }
        let is_error = code.severity == Severity::Error;
        let before = if is_error { self.errors } else { self.found.len() - self.errors };
        self.errors += usize::from(is_error);
        if before < MOST {
            return Reported(Some(self.push(code, span, message.into())));
        }
        if is_error {
            let message = format!("there are more than {MOST} errors");
            let last = self.push(&codes::MANY_ERRORS, span, message);
            last.help = Some("mend the others first: the rest of the file is not checked".to_owned());
        } else if !self.warnings_cut {
            self.warnings_cut = true;
            let message = format!("there are more than {MOST} warnings");
            let last = self.push(&codes::MANY_WARNINGS, span, message);
            last.help = Some("the others are not listed".to_owned());
        }
        Reported(None)
    }

    fn push(&mut self, code: &'static Code, span: Span, message: String) -> &mut Diagnostic {
        let span = self.inside(span);
        self.found.push(Diagnostic {
            file: self.file.to_owned(),
            code: code.id,
            severity: code.severity,
            message: cut(message),
            help: None,
            span,
            label: None,
            line: 0,
            column: 0,
            end_line: 0,
            end_column: 0,
        });
        self.found.last_mut().expect("it was just added")
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether there are so many errors that the check ends.
    pub(crate) fn is_full(&self) -> bool {
        self.errors > MOST
    }

    /// Counts work: the number of things that were looked at.
    pub(crate) fn work(&mut self, things: usize) {
        self.work += things as u64;
    }

    /// Sets the place where types are looked at from now on.
    pub(crate) fn looking_at(&mut self, span: Span) {
        self.looking_at = span;
    }

    /// Counts parts of types before the caller looks at them. Returns false if there are too many, and the caller skips
    /// them.
    pub(crate) fn look_at_types(&mut self, parts: usize) -> bool {
        self.work(parts);
        match self.types_left.checked_sub(parts) {
            Some(left) => self.types_left = left,
            None if self.types_cut => {}
            None => {
                self.types_cut = true;
                self.types_left = 0;
                let message = "the types in this file are too large to be checked from here on";
                self.report(&codes::TYPES_UNCHECKED, self.looking_at, message)
                    .help("make records with fewer fields, and fewer values of them");
            }
        }
        !self.types_cut
    }

    /// The work so far.
    pub(crate) fn worked(&self) -> u64 {
        self.work
    }

    /// The line of a byte offset, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset).max(1)
    }

    /// Returns `did you mean …` if a name in `candidates` is similar enough to `name`. The work for all suggestions of
    /// a file is limited; beyond that, there are no suggestions.
    pub(crate) fn did_you_mean<'c>(
        &mut self,
        name: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<String> {
        if name.len() > MAX_NAME || self.is_full() {
            return None;
        }
        let words = kebab(name);
        let mut nearest: Option<(usize, &str)> = None;
        for candidate in candidates.into_iter().take(CANDIDATES) {
            if self.suggested >= SUGGESTION_WORK {
                return None;
            }
            self.suggested += LOOK;
            if candidate == name || candidate.len() > MAX_NAME {
                continue;
            }
            let other = kebab(candidate);
            let most = 1.max(candidate.chars().count() / 3);
            if words.chars().count().abs_diff(other.chars().count()) > most {
                continue;
            }
            self.suggested += (words.len() * other.len()) as u64;
            let distance = strsim::damerau_levenshtein(&words, &other);
            if distance <= most && nearest.is_none_or(|(least, _)| distance < least) {
                nearest = Some((distance, candidate));
            }
        }
        nearest.map(|(_, candidate)| format!("did you mean `{candidate}`?"))
    }

    /// Returns all diagnostics by their position. One that was reported twice occurs once.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        let mut offsets: Vec<usize> =
            self.found.iter().flat_map(|found| [found.span.start, found.span.end]).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let positions = self.positions(&offsets);
        let position = |offset| offsets.binary_search(&offset).map_or((1, 1), |place| positions[place]);
        for found in &mut self.found {
            (found.line, found.column) = position(found.span.start);
            (found.end_line, found.end_column) = position(found.span.end);
            found.help = found.help.take().map(cut);
        }
        self.found
            .sort_by(|a, b| (a.span.start, a.span.end, a.code).cmp(&(b.span.start, b.span.end, b.code)));
        self.found.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        self.found
    }

    /// The lines and columns of sorted offsets. The characters of a line are counted once, however many diagnostics it has.
    fn positions(&self, offsets: &[usize]) -> Vec<(usize, usize)> {
        let mut positions: Vec<(usize, usize)> = Vec::with_capacity(offsets.len());
        let mut counted = 0;
        for &offset in offsets {
            let line = self.line(offset);
            let (from, column) = match positions.last() {
                Some(&(same, column)) if same == line => (counted, column),
                _ => (self.lines[line - 1], 1),
            };
            positions.push((line, column + self.source[from..offset].chars().count()));
            counted = offset;
        }
        positions
    }

    /// INVARIANT: every span that leaves this crate lies within the source, at character boundaries.
    fn inside(&self, span: Span) -> Span {
        let start = self.source.floor_char_boundary(span.start);
        let end = self.source.ceil_char_boundary(span.end.max(start));
        Span::new(start, end)
    }
}

/// Cuts a message that is too long to be sent.
fn cut(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
    message
}

/// The part of a text that a message quotes: all of it, or the beginning of a long one.
pub(crate) fn brief(text: &str) -> std::borrow::Cow<'_, str> {
    const CHARACTERS: usize = 80;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
