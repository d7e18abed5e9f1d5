//! Diagnostics as a report for people, with the source line underlined.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use crate::{Diagnostic, Severity};

/// The diagnostics as a report for a terminal, one after the other; empty if there are none.
pub fn render(file: &str, source: &str, diagnostics: &[Diagnostic], color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100);
    let lengths: Vec<usize> = source.lines().map(str::len).collect();
    let source = NamedSource::new(file, source.to_owned());
    let mut out = String::new();
    for diagnostic in diagnostics {
        let view = View { diagnostic, source: &source };
        if !can_be_drawn(diagnostic, &lengths) || handler.render_report(&mut out, &view).is_err() {
            let Diagnostic { code, line, column, message, help, .. } = diagnostic;
            out.push_str(&format!("{code}\n\n  {message}\n  at {file}:{line}:{column}\n"));
            out.extend(help.iter().map(|help| format!("  help: {help}\n")));
        }
    }
    out
}

/// The longest line, in bytes, that a person might look at. miette panics at 65,536 columns.
const LONGEST_LINE: usize = 4_096;

fn can_be_drawn(diagnostic: &Diagnostic, lengths: &[usize]) -> bool {
    // With a line of context before and after, counted from 0.
    let first = diagnostic.line.saturating_sub(2);
    let end = (diagnostic.end_line + 1).min(lengths.len());
    lengths.get(first..end).is_none_or(|shown| shown.iter().all(|length| *length <= LONGEST_LINE))
}

struct View<'a> {
    diagnostic: &'a Diagnostic,
    source: &'a NamedSource<String>,
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
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.diagnostic.span.range();
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(self.diagnostic.label.clone(), span))))
    }
}
