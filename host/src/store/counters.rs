//! How much a host has committed since its start, for its metrics.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Counters {
    acceptances: AtomicU64,
    transitions: AtomicU64,
    batches: AtomicU64,
}

impl Counters {
    /// Runs that were taken in, most of them with their first transition.
    pub fn acceptances(&self) -> u64 {
        self.acceptances.load(Ordering::Relaxed)
    }

    /// Transitions after the first.
    pub fn transitions(&self) -> u64 {
        self.transitions.load(Ordering::Relaxed)
    }

    /// Statements that carried the transitions.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    pub(super) fn add_acceptance(&self) {
        self.acceptances.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_batch(&self, transitions: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.transitions.fetch_add(u64::try_from(transitions).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
