//! Ctrl-C, and the other signals that ask for an end.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) struct Interrupt {
    signal: Arc<(Mutex<bool>, Condvar)>,
}

impl Interrupt {
    /// From now on a signal doesn't end this process, but is noted here. All calls return the same interrupt.
    pub(crate) fn install() -> Result<Self> {
        static INSTALLED: OnceLock<Arc<(Mutex<bool>, Condvar)>> = OnceLock::new();
        if let Some(signal) = INSTALLED.get() {
            return Ok(Self { signal: Arc::clone(signal) });
        }
        let signal = Arc::clone(INSTALLED.get_or_init(Arc::default));
        let handlers = Arc::clone(&signal);
        ctrlc::set_handler(move || {
            *handlers.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            handlers.1.notify_all();
        })
        .context("can't handle Ctrl-C")?;
        Ok(Self { signal })
    }

    pub(crate) fn has_come(&self) -> bool {
        *self.signal.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a signal for at most this long, and returns whether one has come.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        let guard = self.signal.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (come, _) = self
            .signal
            .1
            .wait_timeout_while(guard, longest, |come| !*come)
            .unwrap_or_else(PoisonError::into_inner);
        *come
    }
}
