//! Named points at which a test lets the host die: a host sets a hook that does it.
//!
//! Only in builds with debug assertions; elsewhere a point is nothing.

#[cfg(debug_assertions)]
use std::sync::OnceLock;

/// Every point, for tests that try each.
pub const POINTS: [&str; 6] =
    ["before-accept", "after-accept", "before-call", "after-call", "before-commit", "after-commit"];

#[cfg(debug_assertions)]
static HOOK: OnceLock<fn(&'static str)> = OnceLock::new();

/// Has `hook` called with the name of each point that is passed from now on. The first hook stays.
#[cfg(debug_assertions)]
pub fn set_hook(hook: fn(&'static str)) {
    HOOK.get_or_init(|| hook);
}

/// Calls the hook, if there is one.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "`{name}` is not in the list of crash points");
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &'static str) {}
