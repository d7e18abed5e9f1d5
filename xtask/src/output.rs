//! The only place that prints: results to standard output, everything else to standard error.

use std::io::{self, Write};

/// A line of the result.
pub(crate) fn line(text: &str) {
    // Whoever closed the pipe has read enough.
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line about how it goes.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
