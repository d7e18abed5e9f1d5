//! Writes diagnostics as a report for people, with the faulty part of the source underlined.

use std::fmt;
use std::ops::Range;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

use crate::{Diagnostic, Severity};

/// Writes the diagnostics as a report for a terminal, one after the other. The report is empty if there are none.
pub fn render(file: &str, source: &str, diagnostics: &[Diagnostic], color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100);
    let lines = Lines::new(file, source);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let excerpt = lines.around(diagnostic);
        let drawn = excerpt.is_some_and(|excerpt| {
            handler.render_report(&mut out, &View { diagnostic, excerpt: &excerpt }).is_ok()
        });
        if !drawn {
            let Diagnostic { code, line, column, message, help, .. } = diagnostic;
            out.push_str(&format!("{code}\n\n  {message}\n  at {file}:{line}:{column}\n"));
            out.extend(help.iter().map(|help| format!("  help: {help}\n")));
        }
    }
    out
}

/// The most bytes of a line that a person might look at. miette panics at 65,536 columns.
const LONGEST_LINE: usize = 4_096;

/// The most lines that are drawn for one diagnostic.
const MOST_LINES: usize = 200;

/// A source, and the places where its lines begin and end.
struct Lines<'a> {
    file: &'a str,
    source: &'a str,
    ranges: Vec<Range<usize>>,
}

/// The lines of one diagnostic, with one line of context before and after. By itself, miette would look for them from the
/// beginning of the source for each diagnostic.
#[derive(Debug)]
struct Excerpt<'a> {
    file: &'a str,
    text: &'a str,
    /// The offset in the source at which it begins.
    start: usize,
    /// The number of its first line, counted from 0.
    line: usize,
}

impl<'a> Lines<'a> {
    fn new(file: &'a str, source: &'a str) -> Self {
        let mut start = 0;
        let range = |line: &str| {
            let range = start..start + line.len();
            start = range.end;
            range
        };
        Self { file, source, ranges: source.split_inclusive('\n').map(range).collect() }
    }

    /// Returns `None` for an excerpt that is too large for a person to look at.
    fn around(&self, diagnostic: &Diagnostic) -> Option<Excerpt<'a>> {
        // Counted from 0.
        let first = diagnostic.line.saturating_sub(2).min(self.ranges.len());
        let end = (diagnostic.end_line + 1).min(self.ranges.len());
        let shown = self.ranges.get(first..end)?;
        if shown.len() > MOST_LINES || shown.iter().any(|line| line.len() > LONGEST_LINE) {
            return None;
        }
        let (start, end) = match shown {
            [] => (self.source.len(), self.source.len()),
            [first, ..] => (first.start, shown.last().map_or(first.end, |last| last.end)),
        };
        Some(Excerpt { file: self.file, text: &self.source[start..end], start, line: first })
    }
}

impl SourceCode for Excerpt<'_> {
    /// Lets miette read the excerpt, and moves the result to the excerpt's place in the source.
    fn read_span<'b>(
        &'b self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let offset = span.offset().checked_sub(self.start).ok_or(MietteError::OutOfBounds)?;
        let inside = SourceSpan::new(offset.into(), span.len());
        let read = self.text.read_span(&inside, before, after)?;
        let span = SourceSpan::new((read.span().offset() + self.start).into(), read.span().len());
        Ok(Box::new(MietteSpanContents::new_named(
            self.file.to_owned(),
            read.data(),
            span,
            read.line() + self.line,
            read.column(),
            read.line_count(),
        )))
    }
}

struct View<'a> {
    diagnostic: &'a Diagnostic,
    excerpt: &'a Excerpt<'a>,
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for View<'_> {}

impl miette::Diagnostic for View<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.excerpt)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.diagnostic.span.range();
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(self.diagnostic.label.clone(), span))))
    }
}
