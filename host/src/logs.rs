//! The host's log: lines on stderr, for people or for programs.
//!
//! A dedicated thread writes them, so that a stderr which nobody reads blocks only that thread. Lines that the thread
//! can't take are dropped and counted.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing::{error, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt as lines};

/// The most lines that wait for stderr. At about 300 bytes a line, a busy host writes so many in three seconds.
const MAX_WAITING: usize = 16_384;

/// The longest value of a field in the text format, in characters.
const MAX_VALUE: usize = 8_000;

/// How long the thread that writes sleeps after it has written everything.
const GATHER: Duration = Duration::from_millis(10);

/// How many bytes of lines are written at once.
const GATHERED_BYTES: usize = 64 << 10;

/// How often the log reports lost lines.
const LOSSES_TOLD: Duration = Duration::from_secs(10);

/// The lines and the format of the log.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Log")]
pub(crate) struct Options {
    /// Which lines the log has: a level (off, error, warn, info, debug, trace), or a list of LEVEL and TARGET=LEVEL,
    /// such as `info,aster_host::store=debug`.
    #[arg(long = "log", env = "ASTER_LOG", value_name = "LEVEL|FILTER", default_value = "info", value_parser = filter)]
    pub(crate) filter: Filter,

    /// Format of the log's lines.
    #[arg(long = "log-format", env = "ASTER_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// Decides which lines are written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter(Targets);

/// Parses a level for all targets, `TARGET=LEVEL`, or a list of both.
///
/// `tracing`'s own parser would take a misspelt level for a target, and then nothing would be logged.
fn filter(text: &str) -> Result<Filter, String> {
    let mut targets = Targets::new();
    // An empty variable counts as unset.
    let text = if text.trim().is_empty() { "info" } else { text };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        targets = match part.split_once('=') {
            None => targets.with_default(level(part, part)?),
            Some((target, name)) => {
                let is_path =
                    |target: &str| target.chars().all(|c| c.is_ascii_alphanumeric() || "_-:".contains(c));
                if target.is_empty() || !is_path(target) {
                    return Err(format!(
                        "`{part}`: `{target}` is not a target: expected the path of a module, as in `aster_host::store=debug`"
                    ));
                }
                targets.with_target(target, level(part, name)?)
            }
        };
    }
    Ok(Filter(targets))
}

fn level(part: &str, name: &str) -> Result<LevelFilter, String> {
    // `LevelFilter` would also accept numbers, which nobody can read.
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic());
    let level = is_name.then(|| LevelFilter::from_str(name).ok()).flatten();
    level.ok_or_else(|| {
        format!(
            "`{part}`: `{name}` is not a level: expected off, error, warn, info, debug or trace, or TARGET=LEVEL, as in \
             `info,aster_host::store=debug`"
        )
    })
}

/// The registry and the filter, below the layer that writes lines.
type Filtered = Layered<Targets, Registry>;

/// Counts the lines that stderr didn't take.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Returns how many lines of this process's log were lost because nobody read stderr in time.
pub(crate) fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX))
}

/// Starts the log of this process. Dropping the guard writes the lines that still wait.
pub(crate) fn begin(options: &Options, color: bool) -> WorkerGuard {
    let (stderr, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING)
        .thread_name("log")
        .finish(Gathering { lines: Vec::new() });
    let _ = LOST.set(stderr.error_counter());
    let layer = match options.format {
        Format::Text => {
            let fields = debug_fn(|out, field, value| match field.name() {
                "message" => write!(OneLine::new(out), "{value:?}"),
                name => {
                    write!(out, "{name}=")?;
                    write!(OneLine::new(out), "{value:?}")
                }
            });
            lines::layer::<Filtered>()
                .with_ansi(color)
                .fmt_fields(fields.delimited(" "))
                .with_writer(stderr)
                .boxed()
        }
        Format::Json => lines::layer::<Filtered>()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(stderr)
            .boxed(),
    };
    tracing_subscriber::registry().with(options.filter.0.clone()).with(layer).init();
    // The default hook writes to stderr itself, and would block until somebody reads it.
    std::panic::set_hook(Box::new(tell_panic));
    guard
}

/// Writes lines to stderr, as many at once as have come meanwhile.
///
/// Its thread sleeps after each write. Otherwise each line of a busy host would wake it, and cost the host a system call
/// and a switch of threads.
struct Gathering {
    lines: Vec<u8>,
}

impl Gathering {
    fn write_out(&mut self) -> io::Result<()> {
        let written = io::stderr().write_all(&self.lines);
        self.lines.clear();
        written
    }
}

impl Write for Gathering {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(line);
        if self.lines.len() >= GATHERED_BYTES {
            self.write_out()?;
        }
        Ok(line.len())
    }

    /// Called when no line waits any more.
    fn flush(&mut self) -> io::Result<()> {
        let written = self.write_out();
        thread::sleep(GATHER);
        written
    }
}

fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("the panic's payload is not text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    let backtrace = captured.then(|| backtrace.to_string());
    error!(panic.location = place, panic.backtrace = backtrace, "a thread of the host panicked: {what}");
}

/// Reports lost lines from time to time.
pub(crate) async fn tell_losses() {
    let mut told = 0;
    loop {
        tokio::time::sleep(LOSSES_TOLD).await;
        let lost = lost_lines();
        if lost > told {
            warn!(
                lines = lost - told,
                "the log has lost {} lines, because nobody read stderr in time",
                lost - told
            );
            told = lost;
        }
    }
}

/// Passes a number of lines a second and counts the others, so that clients can't fill the log with their requests.
#[derive(Debug)]
pub(crate) struct Throttle {
    per_second: u32,
    second: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    began: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Throttle {
    pub(crate) const fn new(per_second: u32) -> Self {
        Self { per_second, second: Mutex::new(Second { began: None, told: 0, untold: 0 }) }
    }

    /// Decides whether a line is written. If it is, returns how many were held back since the last one.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            second.began = Some(now);
            second.told = 0;
        }
        if second.told == self.per_second {
            second.untold += 1;
            return None;
        }
        second.told += 1;
        Some(std::mem::take(&mut second.untold))
    }
}

/// Writes a value on one line, whatever characters it has, and cuts it to a length. Characters that break lines, move
/// the cursor or reverse the text are escaped.
struct OneLine<'o, 'w> {
    out: &'o mut Writer<'w>,
    left: usize,
}

impl<'o, 'w> OneLine<'o, 'w> {
    fn new(out: &'o mut Writer<'w>) -> Self {
        Self { out, left: MAX_VALUE }
    }
}

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() <= self.left && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.left -= text.len();
            return self.out.write_str(text);
        }
        for c in text.chars() {
            if self.left == 0 {
                return Ok(());
            }
            self.left -= 1;
            match c {
                _ if self.left == 0 => self.out.write_char('…')?,
                c if is_unsafe(c) => write!(self.out, "{}", c.escape_default())?,
                c => self.out.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_levels_and_targets_and_a_misspelt_level_is_refused() {
        let enabled = |text: &str, target: &str, level: tracing::Level| {
            filter(text).expect(text).0.would_enable(target, &level)
        };
        use tracing::Level;
        assert!(enabled("info", "aster_host::store", Level::INFO));
        assert!(!enabled("info", "aster_host::store", Level::DEBUG));
        assert!(enabled("warn, aster_host::store=debug", "aster_host::store::writer", Level::DEBUG));
        assert!(!enabled("warn,aster_host::store=debug", "aster_host::http", Level::INFO));
        assert!(enabled("", "aster_host", Level::INFO));
        assert!(!enabled("off", "aster_host", Level::ERROR));
        for (wrong, named) in [
            ("inof", "`inof`: `inof` is not a level: expected off, error, warn, info, debug or trace"),
            ("3", "`3` is not a level"),
            ("aster_host", "`aster_host` is not a level"),
            ("aster_host=", "`aster_host=`: `` is not a level"),
            ("info,aster_host::store=loud", "`aster_host::store=loud`: `loud` is not a level"),
            ("=debug", "`` is not a target"),
            ("aster_host[run]=debug", "`aster_host[run]` is not a target"),
        ] {
            let error = filter(wrong).expect_err(wrong);
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_value_neither_breaks_its_line_nor_fills_it() {
        let check = |value: &str, expected: &str| {
            let mut line = String::new();
            write!(OneLine::new(&mut Writer::new(&mut line)), "{value}")
                .expect("writing to a `String` can't fail");
            assert_eq!(line, expected);
        };
        check("plain `text` = 1", "plain `text` = 1");
        check("Grüße, 東京", "Grüße, 東京");
        check("a\nINFO forged\r\n", "a\\nINFO forged\\r\\n");
        check("\u{1b}[31mred\u{9b}2J\u{7f}\0", "\\u{1b}[31mred\\u{9b}2J\\u{7f}\\u{0}");
        check("a\u{2028}b\u{202e}c", "a\\u{2028}b\\u{202e}c");
        let long = "x".repeat(MAX_VALUE + 10);
        check(&long, &format!("{}…", &long[..MAX_VALUE - 1]));
    }

    #[test]
    fn a_throttle_counts_what_it_holds_back() {
        let throttle = Throttle::new(2);
        let now = Instant::now();
        assert_eq!([(); 4].map(|()| throttle.pass(now)), [Some(0), Some(0), None, None]);
        let later = now + Duration::from_secs(1);
        assert_eq!([(); 3].map(|()| throttle.pass(later)), [Some(2), Some(0), None]);
    }
}
