//! What this host's runner has counted since its start, for its metrics.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Measures {
    expired_waiters: AtomicU64,
}

impl Measures {
    /// Clients that waited for a run's end until their time to live was over.
    pub fn expired_waiters(&self) -> u64 {
        self.expired_waiters.load(Ordering::Relaxed)
    }

    pub(super) fn add_expired_waiters(&self, waiters: usize) {
        self.expired_waiters.fetch_add(u64::try_from(waiters).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
