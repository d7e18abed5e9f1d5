//! Threads for guests that compute for long, so that these take turns with each other and not with the host.
//!
//! Every guest begins on the thread of its caller, where most are done within microseconds and pay 0.2 µs for this. One that has
//! computed for longer than [`LIGHT`] moves over to a runtime of its own: half as many threads as there are processors, at a
//! lower priority than the host's.
//!
//! A guest that computes gives way at its tick only (5 ms). Among the host's own tasks that makes every commit, timer and
//! socket wait for as many ticks as there are such guests, several times in each run. What a small run then takes, beside four
//! guests that spin, on two processors (`cargo xtask bench neighbours`; all but the last row with a prototype):
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
//! Among themselves they go round, a tick each: tokio puts a task that yields at the end of its thread's queue. The price is
//! that they leave half of the processors alone even where the host has nothing else to do.

use std::future::{Future, poll_fn};
use std::io;
use std::panic;
use std::pin::Pin;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// How long a guest may compute among the host's tasks, by the wall clock and all its polls together. Some hundred times what
/// a small one takes, and less than half a tick.
const LIGHT: Duration = Duration::from_millis(2);
/// The kernel gives a thread at this level a ninth of what it gives one at 0, and all that others leave.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
pub(super) const THREAD_NAME: &str = "heavy-guests";

/// The runtime for what is heavy.
pub(super) struct Heavy {
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Heavy {
    pub(super) fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(THREAD_NAME)
            .on_thread_start(lower_priority)
            // What a guest waits for (WASI's clocks) is looked at after each tick, not after each 61st.
            .event_interval(1)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs a guest to its end: here while it is light, and on the threads for heavy ones from then on. What it holds is
    /// dropped where it ends.
    ///
    /// # Panics
    /// As the guest's future does, wherever it is.
    ///
    /// # Cancel safety
    /// Dropping the future drops the guest: at once, or if it has moved, when it next gives way.
    pub(super) async fn run<T>(&self, guest: impl Future<Output = T> + Send + 'static) -> T
    where
        T: Send + 'static,
    {
        let mut guest = Box::pin(guest);
        if let Some(ended) = while_light(guest.as_mut()).await {
            return ended;
        }
        let runtime = self.runtime.as_ref().expect("it is taken by `drop` only");
        // Aborts what is in it when it is dropped.
        let mut moved = JoinSet::new();
        moved.spawn_on(guest, runtime.handle());
        match moved.join_next().await.expect("the guest is in it") {
            Ok(ended) => ended,
            // It can't have been aborted: the runtime is borrowed here.
            Err(failed) => panic::resume_unwind(failed.into_panic()),
        }
    }
}

/// Without waiting, since the sandbox may be dropped by a task. Only guests that nobody waits for can be left.
impl Drop for Heavy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the guest comes to; none as soon as it is heavy.
async fn while_light<T>(mut guest: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut computed = Duration::ZERO;
    poll_fn(|cx| {
        let began = Instant::now();
        let polled = guest.as_mut().poll(cx);
        computed += began.elapsed();
        match polled {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if computed > LIGHT => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Of the calling thread. That it may be refused is nothing to care about.
fn lower_priority() {
    // Elsewhere it is the priority of the whole process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}
