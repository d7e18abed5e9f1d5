//! The only module that prints: results to standard output, everything else to standard error.

use std::io::{self, Write};

/// Prints a line of the result.
pub(crate) fn line(text: &str) {
    // A reader that closed the pipe has read enough.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a line about the progress.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
