//! Named points at which a test lets the host die, as `kill -9` would: nothing is flushed, and nobody is told.
//!
//! With `ASTER_CRASH_AT=after-commit:3` the host dies when it passes `after-commit` for the third time. This works only
//! in builds with debug assertions; in others, a point does nothing.

/// All points, for tests that try each of them.
pub const POINTS: [&str; 6] =
    ["before-accept", "after-accept", "before-call", "after-call", "before-commit", "after-commit"];

/// Dies here if `ASTER_CRASH_AT` says so.
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
