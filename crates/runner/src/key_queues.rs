//! Who may commit a contended key next: so that a run whose step was overtaken is not overtaken forever.
//!
//! Commits are optimistic, and a step that read what another run changed meanwhile runs again. On a popular key the quick
//! could starve the slow. A step that was overtaken once therefore queues for its keys, first come first served, and runs while it
//! holds them; every other step of this host that touched such a key queues too, and runs again when its turn comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aster_core::keyvalue::Key;
use tokio::sync::OwnedMutexGuard;

use crate::shared::UNPOISONED;

#[derive(Debug, Default)]
pub(crate) struct KeyQueues {
    by_key: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

/// Held until the commit has its place in line; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn {
    queues: Arc<KeyQueues>,
    held: Vec<(Key, OwnedMutexGuard<()>)>,
}

impl KeyQueues {
    /// Waits for all of `keys`. They are taken in their order, so that two waiters never wait for each other.
    ///
    /// # Cancel safety
    /// Dropping the future gives up what was taken and the places in the queues.
    pub(crate) async fn take(self: &Arc<Self>, mut keys: Vec<Key>) -> Turn {
        keys.sort();
        keys.dedup();
        let mut turn = Turn { queues: Arc::clone(self), held: Vec::with_capacity(keys.len()) };
        for key in keys {
            let queue = Arc::clone(self.by_key.lock().expect(UNPOISONED).entry(key.clone()).or_default());
            turn.held.push((key, queue.lock_owned().await));
        }
        turn
    }

    /// Whether someone holds or awaits one of `keys`.
    pub(crate) fn contended<'k>(&self, mut keys: impl Iterator<Item = &'k Key>) -> bool {
        let queues = self.by_key.lock().expect(UNPOISONED);
        // An entry without another reference was left by a waiter that gave up.
        !queues.is_empty()
            && keys.any(|key| queues.get(key).is_some_and(|queue| Arc::strong_count(queue) > 1))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.queues.by_key.lock().expect(UNPOISONED);
        for (key, guard) in self.held.drain(..) {
            drop(guard);
            // One reference is the map's; a waiter has its own.
            if queues.get(&key).is_some_and(|queue| Arc::strong_count(queue) == 1) {
                queues.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aster_core::id::TenantId;

    use super::*;

    fn key(name: &str) -> Key {
        Key { tenant: TenantId::default(), component: "c".into(), bucket: "b".into(), key: name.into() }
    }

    #[tokio::test]
    async fn turns_are_given_in_the_order_of_asking_and_leave_nothing_behind() {
        let queues = Arc::new(KeyQueues::default());
        let first = queues.take(vec![key("b"), key("a")]).await;
        assert!(queues.contended([key("a")].iter()));
        assert!(!queues.contended([key("c")].iter()));

        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..3)
            .map(|n| {
                let (queues, order) = (Arc::clone(&queues), Arc::clone(&order));
                async move {
                    let _turn = queues.take(vec![key("a")]).await;
                    order.lock().unwrap().push(n);
                }
            })
            .collect();
        let all = futures_util::future::join_all(waiters);
        tokio::join!(all, async { drop(first) });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        assert!(queues.by_key.lock().unwrap().is_empty());
    }
}
