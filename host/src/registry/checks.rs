//! Checks of source files, away from the threads that serve requests.
//!
//! A check computes for up to a few hundred milliseconds and can't be interrupted. So each check gets a thread for
//! blocking work, and only so many run at once that some processors stay free for everything else.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use tokio::sync::Semaphore;

#[derive(Debug)]
pub(super) struct Checks {
    turns: Arc<Semaphore>,
}

impl Checks {
    /// Allows half as many checks at once as there are processors.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, |n| n.get());
        Self { turns: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }

    /// Runs `work` when its turn comes. Turns are in the order of the calls.
    ///
    /// # Panics
    /// Panics if `work` does.
    ///
    /// # Cancel safety
    /// Dropping the future before its turn drops the work. Work that has begun continues to its end, and keeps its turn
    /// until then.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
        let worked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match worked.await {
            Ok(made) => made,
            Err(error) => resume_unwind(error.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::Poll;

    use super::*;

    /// Runs a test on a runtime with one thread, which a check must not occupy.
    fn on_one_thread(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test);
    }

    /// Polls once, and returns whether there is no answer yet.
    async fn waits<T>(mut asked: Pin<&mut impl Future<Output = T>>) -> bool {
        poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await
    }

    #[test]
    fn a_check_holds_no_thread_that_serves() {
        on_one_thread(async {
            let checks = Checks::new();
            let (served, wait) = mpsc::channel();
            let check = checks.run(move || wait.recv());
            // The check ends only if this thread continues meanwhile.
            let serve = async move { served.send("served") };
            let (checked, sent) = tokio::join!(check, serve);
            assert_eq!((checked, sent), (Ok("served"), Ok(())));
        });
    }

    #[test]
    fn a_check_that_is_dropped_before_its_turn_never_begins() {
        on_one_thread(async {
            let checks = Checks { turns: Arc::new(Semaphore::new(1)) };
            let begun = Arc::new(AtomicUsize::new(0));
            let (end, wait) = mpsc::channel();
            let mut first = Box::pin(checks.run(move || wait.recv()));
            assert!(waits(first.as_mut()).await);
            for _ in 0..1_000 {
                let begun = Arc::clone(&begun);
                let mut left = Box::pin(checks.run(move || begun.fetch_add(1, Ordering::Relaxed)));
                assert!(waits(left.as_mut()).await);
            }
            let last = checks.run(|| "checked");
            end.send(()).expect("the first one waits for it");
            assert_eq!(tokio::join!(first, last), (Ok(()), "checked"));
            assert_eq!(begun.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_ends_the_turn() {
        on_one_thread(async {
            let checks = Checks { turns: Arc::new(Semaphore::new(1)) };
            let asked = std::panic::AssertUnwindSafe(checks.run::<u8>(|| panic!("a bug")));
            assert!(futures_util::FutureExt::catch_unwind(asked).await.is_err());
            assert_eq!(checks.run(|| 1).await, 1);
        });
    }
}
