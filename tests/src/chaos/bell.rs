//! A signal that is given once, and wakes sleepers.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    pub fn ring(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn has_rung(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the bell for at most `longest`, and returns whether it has rung.
    pub fn wait(&self, longest: Duration) -> bool {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (rung, _) = self
            .0
            .1
            .wait_timeout_while(guard, longest, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        *rung
    }

    /// Rings the bell when the returned value is dropped, also by a panic.
    pub(crate) fn ring_at_end(&self) -> impl Drop {
        struct Guard(Bell);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.ring();
            }
        }
        Guard(self.clone())
    }
}
