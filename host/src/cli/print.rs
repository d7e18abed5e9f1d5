//! The only module that writes to stdout and stderr.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write as _};

use serde::Serialize;

/// Prints data: one line or several.
///
/// # Errors
/// Returns an error if stdout can't be written to, for example because its reader has closed it.
pub(super) fn data(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints data for programs, as JSON.
///
/// # Errors
/// The same as for [`data`].
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    data(serde_json::to_string_pretty(value)?)
}

/// Prints data in columns, each as wide as its widest cell. Cells may contain text from outside: control characters are
/// escaped, so that none reaches the terminal, and long cells are cut.
///
/// # Errors
/// The same as for [`data`].
pub(super) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| tame(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        data(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Makes a text from outside safe for one cell of a table.
fn tame(text: &str) -> String {
    const WIDEST: usize = 120;
    let mut tamed = String::new();
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n == WIDEST => {
                tamed.push('…');
                break;
            }
            c if c.is_control() => tamed.extend(c.escape_default()),
            c => tamed.push(c),
        }
    }
    tamed
}

/// Prints something for people, beside the data.
pub(super) fn note(text: impl Display) {
    // There is nowhere to report that this failed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a suggestion for the next command.
pub(super) fn tip(text: impl Display) {
    note(format_args!("tip: {text}"));
}

/// Prints why the command failed, with the chain of causes.
pub(super) fn error(error: &anyhow::Error) {
    note(format_args!("{} {error}", label()));
    for cause in error.chain().skip(1) {
        note(format_args!("  caused by: {cause}"));
    }
}

/// Returns `error:`, in red if colour is wanted.
pub(super) fn label() -> &'static str {
    if color_of_notes() { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" }
}

/// Returns whether data is coloured.
pub(super) fn color() -> bool {
    color_wanted(io::stdout().is_terminal())
}

/// Returns whether notes are coloured.
pub(super) fn color_of_notes() -> bool {
    color_wanted(io::stderr().is_terminal())
}

/// Colour is used only on a terminal, and never under `NO_COLOR` (<https://no-color.org>: present and not empty).
fn color_wanted(is_terminal: bool) -> bool {
    is_terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
