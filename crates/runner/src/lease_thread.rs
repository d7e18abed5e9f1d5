//! The thread on which the lease is kept, with a runtime of its own: it goes on while all other threads of the host are busy.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

const THREAD_NAME: &str = "lease";

/// Ends with the last clone of the runner that has it; what still runs on it is dropped then.
#[derive(Debug)]
pub(crate) struct LeaseThread {
    /// There until this is dropped.
    runtime: Option<Runtime>,
}

impl LeaseThread {
    /// # Errors
    /// The machine gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name(THREAD_NAME).enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is taken by `drop` only").handle()
    }
}

/// Without waiting, since a task may drop it.
impl Drop for LeaseThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
