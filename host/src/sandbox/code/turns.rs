//! Locks by digest: one caller at a time for each digest, and different digests concurrently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aster_core::id::Digest;
use tokio::sync::OwnedMutexGuard;

#[derive(Debug, Default)]
pub(in crate::sandbox) struct Turns {
    queues: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits until no other caller has this digest.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn take(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.retain(|_, queue| queue.strong_count() > 0);
            let known = queues.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let queue = Arc::default();
                queues.insert(digest, Arc::downgrade(&queue));
                queue
            })
        };
        queue.lock_owned().await
    }
}
