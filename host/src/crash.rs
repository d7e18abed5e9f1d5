//! Named points at which a test lets the host die, as `kill -9` would: nothing is flushed, nobody is told.
//!
//! `ASTER_CRASH_AT=after-commit:3` dies when `after-commit` is passed for the third time. Only in builds with debug
//! assertions; elsewhere a point is nothing.

/// Every point, for tests that try each.
pub const POINTS: [&str; 6] =
    ["before-accept", "after-accept", "before-call", "after-call", "before-commit", "after-commit"];

/// Dies here if that was asked for.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let wanted = std::env::var("ASTER_CRASH_AT").ok()?;
        let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    static PASSED: AtomicU32 = AtomicU32::new(0);

    debug_assert!(POINTS.contains(&name), "`{name}` is not in the list of crash points");
    if let Some((wanted, nth)) = &*WANTED
        && wanted == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &'static str) {}
