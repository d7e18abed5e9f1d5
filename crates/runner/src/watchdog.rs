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

/// Between two looks. A try at an attempt that lasts for that long counts as one that computes.
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
    /// Tries at attempts that are under way.
    tries: AtomicU32,
    /// Tries that have ever begun.
    tries_begun: AtomicU32,
}

impl Default for Doing {
    /// A driver begins by loading its run.
    fn default() -> Self {
        Self {
            waits: AtomicBool::new(true),
            queues: AtomicU32::new(0),
            tries: AtomicU32::new(0),
            tries_begun: AtomicU32::new(0),
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

    /// Until the returned value is dropped, an attempt is being tried: its guests are called, one after the other.
    pub(crate) fn try_attempt(&self) -> Counted<'_> {
        self.tries_begun.fetch_add(1, Ordering::Relaxed);
        self.tries.fetch_add(1, Ordering::Relaxed);
        Counted(&self.tries)
    }

    /// Returns what the driver does and how many tries it has begun. `before` is that number at the last look.
    ///
    /// A try that goes on since then computes, however many calls it makes: its time is limited. An attempt that is tried
    /// again and again computes, too, but nothing may come of it.
    fn look(&self, before: Option<u32>) -> (Activity, u32) {
        let begun = self.tries_begun.load(Ordering::Relaxed);
        let is_trying = self.tries.load(Ordering::Relaxed) > 0;
        let activity = if self.waits.load(Ordering::Relaxed) {
            Activity::Waits
        } else if is_trying && before == Some(begun) {
            Activity::Computes
        } else if !is_trying && self.queues.load(Ordering::Relaxed) > 0 {
            Activity::Queues
        } else {
            Activity::Other
        };
        (activity, begun)
    }
}

/// What a driver does at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    Waits,
    Computes,
    Queues,
    Other,
}

/// What the drivers of a host do at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    drivers: usize,
    waiting: usize,
    /// In a try that began before the last look.
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
        let mut tries_begun = Vec::new();
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
            let look = self.look(&mut tries_begun);
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

    /// `tries_begun` holds what the last look has seen, by driver.
    fn look(&self, tries_begun: &mut Vec<(u64, u32)>) -> Look {
        let mut look = Look::default();
        let before = std::mem::take(tries_begun);
        self.drivers.for_each(|number, doing| {
            look.drivers += 1;
            let seen = before.binary_search_by_key(&number, |(number, _)| *number);
            let (activity, begun) = doing.look(seen.ok().map(|i| before[i].1));
            match activity {
                Activity::Waits => look.waiting += 1,
                Activity::Computes => look.computing += 1,
                Activity::Queues => look.queueing += 1,
                Activity::Other => {}
            }
            tries_begun.push((number, begun));
        });
        tries_begun.sort_unstable();
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_that_goes_on_computes_and_one_that_begins_anew_does_not() {
        let doing = Doing::default();
        assert_eq!(doing.look(None), (Activity::Waits, 0));
        doing.waits(false);
        let queues = doing.queue();
        assert_eq!(doing.look(Some(0)), (Activity::Queues, 0));
        drop(queues);
        let first = doing.try_attempt();
        assert_eq!(doing.look(Some(0)), (Activity::Other, 1));
        assert_eq!(doing.look(Some(1)), (Activity::Computes, 1));
        drop(first);
        assert_eq!(doing.look(Some(1)), (Activity::Other, 1));
        let _again = doing.try_attempt();
        assert_eq!(doing.look(Some(1)), (Activity::Other, 2));
    }

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
