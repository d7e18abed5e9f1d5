//! Lets the host die at a point of the runner, as `kill -9` would: nothing is flushed, and nobody is told.
//!
//! With `ASTER_CRASH_AT=after-commit:3` the host dies when it passes `after-commit` for the third time. This works only
//! in builds with debug assertions.

pub use aster_runner::crash::POINTS;

/// Lets the host die at the point that `ASTER_CRASH_AT` names.
#[cfg(debug_assertions)]
pub(crate) fn arm() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let wanted = std::env::var("ASTER_CRASH_AT").ok()?;
        let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    static PASSED: AtomicU32 = AtomicU32::new(0);

    aster_runner::crash::set_hook(|name| {
        if let Some((wanted, nth)) = &*WANTED
            && wanted == name
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        {
            std::process::abort();
        }
    });
}

#[cfg(not(debug_assertions))]
pub(crate) fn arm() {}
