//! Locks by digest: one caller at a time for each digest, and different digests concurrently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aster_core::id::Digest;
use tokio::sync::OwnedMutexGuard;

#[derive(Debug, Default)]
pub(in crate::sandbox) struct DigestLocks {
    locks: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl DigestLocks {
    /// Waits until no other caller has this digest.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn take(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(digest, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}
