//! Checks of source files, off the threads that serve.
//!
//! A check computes for a few hundred milliseconds at worst, and nothing can interrupt it. So it has a thread for blocking work, and
//! only as many run at once as leave processors to everything else.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use tokio::sync::Semaphore;

#[derive(Debug)]
pub(super) struct Checks {
    turns: Arc<Semaphore>,
}

impl Checks {
    /// At most half as many at once as there are processors.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, |n| n.get());
        Self { turns: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }

    /// Runs `work` when its turn comes, in the order of asking.
    ///
    /// # Panics
    /// As `work` does.
    ///
    /// # Cancel safety
    /// Dropping the future before its turn drops the work. One that has begun goes on to its end and keeps its turn until
    /// then.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("nobody closes it");
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

    /// A runtime whose only thread a check on it would hold.
    fn on_one_thread(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test);
    }

    /// Asks once, and says whether there is no answer yet.
    async fn waits<T>(mut asked: Pin<&mut impl Future<Output = T>>) -> bool {
        poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await
    }

    #[test]
    fn a_check_holds_no_thread_that_serves() {
        on_one_thread(async {
            let checks = Checks::new();
            let (served, wait) = mpsc::channel();
            let check = checks.run(move || wait.recv());
            // It ends only if this very thread goes on meanwhile.
            let serve = async move { served.send("served") };
            let (checked, sent) = tokio::join!(check, serve);
            assert_eq!((checked, sent), (Ok("served"), Ok(())));
        });
    }

    #[test]
    fn what_a_client_left_is_not_begun_and_leaves_its_turn() {
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
    fn a_panic_reaches_the_one_who_asked_and_ends_the_turn() {
        on_one_thread(async {
            let checks = Checks { turns: Arc::new(Semaphore::new(1)) };
            let asked = std::panic::AssertUnwindSafe(checks.run::<u8>(|| panic!("a bug")));
            assert!(futures_util::FutureExt::catch_unwind(asked).await.is_err());
            assert_eq!(checks.run(|| 1).await, 1);
        });
    }
}
