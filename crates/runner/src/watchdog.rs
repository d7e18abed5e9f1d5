//! Notices when the host stands still: it drives runs, something is due, and nothing comes of it.
//!
//! The runner and the commit line are made so that this never happens. The watchdog is for the fault that nobody thought of: it
//! makes a standstill visible, and ends it by handing all runs over, as a host does whose lease has ended. A guest that
//! computes for long is no standstill, nor is a run that waits for an instant, nor a database that doesn't answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::error;

use crate::Measures;
use crate::drivers::Drivers;
use crate::lease::Lease;
use crate::ports::Journal;
use crate::shared::stopping;

/// Between two looks. A call that lasts for that long counts as one that computes.
const ROUND: Duration = Duration::from_secs(1);
/// For how long nothing may come of what is due.
const STANDSTILL: Duration = Duration::from_secs(10);
/// A database that owes an answer for longer than this is what everything waits for.
const ANSWER: Duration = Duration::from_secs(5);

/// What a driver does, as far as a standstill is concerned.
#[derive(Debug)]
pub(crate) struct Doing {
    /// It waits for an instant, for an operator, or for its run to be loaded.
    waits: AtomicBool,
    /// Attempts that queue for contended keys.
    queues: AtomicU32,
    /// Calls of guests that are under way, and that have ever begun.
    calls: AtomicU32,
    calls_begun: AtomicU32,
}

impl Default for Doing {
    /// A driver begins by loading its run.
    fn default() -> Self {
        Self {
            waits: AtomicBool::new(true),
            queues: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            calls_begun: AtomicU32::new(0),
        }
    }
}

/// Lowers a count when it is dropped.
pub(crate) struct Counted<'d>(&'d AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Doing {
    pub(crate) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// Until the returned value is dropped, an attempt queues for contended keys.
    pub(crate) fn queue(&self) -> Counted<'_> {
        self.queues.fetch_add(1, Ordering::Relaxed);
        Counted(&self.queues)
    }

    /// Until the returned value is dropped, a guest is being called.
    pub(crate) fn call(&self) -> Counted<'_> {
        self.calls_begun.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Counted(&self.calls)
    }
}

/// What the drivers of a host do at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    drivers: usize,
    waiting: usize,
    /// In a call that began before the look before this one.
    computing: usize,
    queueing: usize,
}

impl Look {
    /// Whether something is due that no guest and no instant holds up.
    fn is_due(self) -> bool {
        let held_up = self.drivers - self.waiting - self.computing - self.queueing;
        held_up > 0 || (self.queueing > 0 && self.computing == 0)
    }
}

/// Looks at the drivers from outside.
#[derive(Debug)]
pub(crate) struct Watchdog {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) measures: Arc<Measures>,
}

impl Watchdog {
    /// Watches until the host shuts down.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let Self { measures, .. } = &self;
        let mut commits = measures.commits();
        let mut calls_begun = Vec::new();
        let mut due_since: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = stopping(&mut shutdown) => return,
                () = tokio::time::sleep(ROUND) => {}
            }
            let committed = measures.commits();
            if committed != commits {
                commits = committed;
                due_since = None;
            }
            if let Some(obstacle) = self.obstacle() {
                // Not the host's own fault: nothing is handed over.
                due_since = None;
                measures.set_stalled(Some(obstacle));
                continue;
            }
            let look = self.look(&mut calls_begun);
            if !look.is_due() {
                due_since = None;
            }
            if due_since.is_none() {
                measures.set_stalled(None);
            }
            if !look.is_due() {
                continue;
            }
            let since = *due_since.get_or_insert_with(Instant::now);
            if since.elapsed() < STANDSTILL {
                continue;
            }
            let seconds = since.elapsed().as_secs();
            due_since = None;
            let Look { drivers, waiting, computing, queueing } = look;
            error!(
                drivers,
                waiting,
                computing,
                queueing,
                "the host has committed nothing for {seconds} s although runs are due and the database answers: \
                 it hands all its runs over"
            );
            measures.add_stall();
            measures.set_stalled(Some(format!(
                "nothing was committed for {seconds} s although {drivers} runs are under way and the database answers"
            )));
            self.lease.give_up();
        }
    }

    /// What keeps the host from working, beside itself.
    fn obstacle(&self) -> Option<String> {
        if self.lease.host().is_none() {
            return Some("the host has lost its lease and can't register anew in the database".to_owned());
        }
        let unanswered = self.journal.unanswered_for().filter(|unanswered| *unanswered > ANSWER)?;
        Some(format!("the database has owed the answer to a commit for {} s", unanswered.as_secs()))
    }

    /// `calls_begun` holds what the last look has seen, by driver.
    fn look(&self, calls_begun: &mut Vec<(u64, u32)>) -> Look {
        let mut look = Look::default();
        let before = std::mem::take(calls_begun);
        self.drivers.for_each(|number, doing| {
            look.drivers += 1;
            let begun = doing.calls_begun.load(Ordering::Relaxed);
            let seen = before.binary_search_by_key(&number, |(number, _)| *number);
            let is_same = seen.is_ok_and(|i| before[i].1 == begun);
            if doing.waits.load(Ordering::Relaxed) {
                look.waiting += 1;
            } else if doing.calls.load(Ordering::Relaxed) > 0 && is_same {
                look.computing += 1;
            } else if doing.calls.load(Ordering::Relaxed) == 0 && doing.queues.load(Ordering::Relaxed) > 0 {
                look.queueing += 1;
            }
            calls_begun.push((number, begun));
        });
        calls_begun.sort_unstable();
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_due_unless_a_guest_or_an_instant_holds_it_up() {
        let check = |drivers, waiting, computing, queueing, expected| {
            let look = Look { drivers, waiting, computing, queueing };
            assert_eq!(look.is_due(), expected, "{look:?}");
        };
        check(0, 0, 0, 0, false);
        check(3, 3, 0, 0, false);
        check(3, 1, 2, 0, false);
        check(3, 1, 1, 1, false);
        // Nobody works for those that queue.
        check(3, 1, 0, 2, true);
        // One neither waits nor computes.
        check(3, 1, 1, 0, true);
    }
}
