//! Threads for guests that compute for long, so that they take turns with each other and not with the host.
//!
//! A guest begins on its caller's thread, where most guests end within microseconds and pay 0.2 µs for this. A guest
//! that has computed for longer than [`LIGHT`] moves to a runtime of its own, with half as many threads as there are
//! processors, at a lower priority than the host's. A guest of a component that is known to hold threads ([`Weight`])
//! begins there.
//!
//! A guest that computes yields only at its tick (5 ms). Among the host's own tasks, every commit, timer and socket
//! would wait for as many ticks as there are such guests, several times in each run. The table shows how long a small
//! run then takes beside four guests that spin, on two processors (`cargo xtask bench neighbours`; all rows but the
//! last with a prototype):
//!
//! | guests that spin | p99 ms | times alone |
//! |---|---|---|
//! | among the host's tasks | 805 | 156 |
//! | … which looks at its sockets after each (`event_interval(1)`) | 82 | 15 |
//! | … and ticks of 1 ms | 25.8 | 4.7 |
//! | … or 8 threads instead of 2 | 21.7 | 3.7 |
//! | on two threads of their own | 15.8 | 3.0 |
//! | on one | 10.2 | 1.9 |
//! | on one, at a lower priority | 9.3 | 1.8 |
//! | as it is here | 7.9 | 1.4 |
//!
//! Heavy guests take turns of one tick, because tokio puts a task that yields at the end of its thread's queue. The
//! price is that they leave half of the processors unused, even if the host has nothing else to do.

use std::future::{Future, poll_fn};
use std::io;
use std::panic;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::weight::{LIGHT, Watch, Weight, processor_time};

/// The kernel gives a thread at this level a ninth of the time of one at 0, and all the time that the others leave.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
pub(super) const THREAD_NAME: &str = "heavy-guests";

/// The runtime for heavy guests.
pub(super) struct Heavy {
    /// `Some` until the value is dropped.
    runtime: Option<Runtime>,
}

impl Heavy {
    pub(super) fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(THREAD_NAME)
            .on_thread_start(lower_priority)
            // The reactor is polled after each tick instead of after 61 tasks, so that guests that wait (for WASI's
            // clocks) are woken in time.
            .event_interval(1)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs a guest to its end. It runs here while it is light, and then on the threads for heavy guests; there from
    /// its beginning if its component is heavy. What the guest holds is dropped where it ends.
    ///
    /// # Panics
    /// Panics if the guest's future does, wherever it runs.
    ///
    /// # Cancel safety
    /// Dropping the future drops the guest: at once, or, if it has moved, when it next yields.
    pub(super) async fn run<T>(
        &self,
        weight: &Arc<Weight>,
        guest: impl Future<Output = T> + Send + 'static,
    ) -> T
    where
        T: Send + 'static,
    {
        let mut guest = Box::pin(guest);
        if weight.is_heavy() {
            return self.run_apart(weighed(guest, Arc::clone(weight))).await;
        }
        match while_light(guest.as_mut(), weight).await {
            Some(ended) => ended,
            None => self.run_apart(guest).await,
        }
    }

    /// Runs a future to its end on the threads for heavy guests. Panics and cancellation are as for [`Heavy::run`].
    pub(super) async fn run_apart<T>(&self, guest: impl Future<Output = T> + Send + 'static) -> T
    where
        T: Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("only `drop` takes it");
        // Dropping the set aborts the guest in it.
        let mut moved = JoinSet::new();
        moved.spawn_on(guest, runtime.handle());
        match moved.join_next().await.expect("the guest is in it") {
            Ok(ended) => ended,
            // The task can't have been aborted, because the runtime is borrowed here.
            Err(failed) => panic::resume_unwind(failed.into_panic()),
        }
    }
}

/// Doesn't wait, because a task may drop the sandbox. Only guests that nobody waits for can be left then.
impl Drop for Heavy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Polls the guest while it is light. Returns its result, or `None` as soon as it is heavy.
async fn while_light<T>(mut guest: Pin<&mut impl Future<Output = T>>, weight: &Weight) -> Option<T> {
    let mut computed = Duration::ZERO;
    poll_fn(|cx| {
        let watch = Watch::start(weight);
        let polled = guest.as_mut().poll(cx);
        computed += watch.stop(weight);
        match polled {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if computed > LIGHT => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs a guest on the threads for heavy guests. At its end, the guest's time decides whether it belonged there.
async fn weighed<T>(guest: impl Future<Output = T>, weight: Arc<Weight>) -> T {
    let mut guest = pin!(guest);
    let mut longest = Duration::ZERO;
    let ended = poll_fn(|cx| {
        let began = processor_time();
        let polled = guest.as_mut().poll(cx);
        longest = longest.max(processor_time().saturating_sub(began));
        polled
    })
    .await;
    weight.has_held(longest);
    ended
}

/// Lowers the calling thread's priority, best effort.
fn lower_priority() {
    // On other systems, this would change the priority of the whole process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}
