//! How many runs wait in the database for a free slot, so that one more can be refused when they are too many.
//!
//! The number is asked for only while this host is full, and what is known of it is good for a moment: the limit is kept
//! about, not exactly, when several hosts take runs in.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::Error;

/// How long an answer is good.
const GOOD_FOR: Duration = Duration::from_millis(200);
/// Counting takes the database a tenth of its time at most.
const COST: u32 = 10;
/// For an answer; who submits a run waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Backlog {
    limit: usize,
    /// Locked while the database is asked: who comes meanwhile waits for the same answer.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// As counted, with those that were let in since.
    waiting: usize,
    good_until: Option<Instant>,
}

/// Why a run wasn't taken in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("this host is full, and as many runs wait in the database as may")]
    Overloaded,
    #[error(transparent)]
    Journal(#[from] Error),
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, known: Mutex::default() }
    }

    /// Whether one more run may wait, and then it counts as one that does. `count` asks how many wait, up to the given number.
    ///
    /// While the database doesn't answer, what was known last holds: that it is away is found by who tries to write to it.
    pub(crate) async fn has_room<Answer>(&self, count: impl FnOnce(usize) -> Answer) -> bool
    where
        Answer: Future<Output = Result<usize, Error>>,
    {
        let mut known = self.known.lock().await;
        let asked_at = Instant::now();
        if known.good_until.is_none_or(|until| until <= asked_at) {
            match timeout(PATIENCE, count(self.limit)).await {
                Ok(Ok(waiting)) => known.waiting = waiting,
                Ok(Err(error)) => debug!(%error, "could not count the runs that wait"),
                Err(_) => debug!("counting the runs that wait takes too long"),
            }
            known.good_until = Some(Instant::now() + GOOD_FOR.max(asked_at.elapsed() * COST));
        }
        let has_room = known.waiting < self.limit;
        if has_room {
            known.waiting += 1;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    /// A database in which so many runs wait, and which takes its time.
    #[derive(Default)]
    struct Database {
        waiting: AtomicUsize,
        asked: AtomicUsize,
        takes: Duration,
    }

    impl Database {
        async fn count(&self, limit: usize) -> Result<usize, Error> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            sleep(self.takes).await;
            Ok(self.waiting.load(Ordering::Relaxed).min(limit))
        }

        async fn has_room(&self, backlog: &Backlog) -> bool {
            backlog.has_room(|limit| self.count(limit)).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_let_in_than_the_limit_says_also_between_two_counts() {
        let database = Database { takes: Duration::from_millis(3), ..Database::default() };
        database.waiting.store(7, Ordering::Relaxed);
        let backlog = Backlog::new(10);
        let let_in = join_all((0..20).map(|_| database.has_room(&backlog))).await;
        assert_eq!(let_in.iter().filter(|let_in| **let_in).count(), 3);
        assert_eq!(database.asked.load(Ordering::Relaxed), 1);

        // They are counted by now, and one was begun.
        database.waiting.store(9, Ordering::Relaxed);
        assert!(!database.has_room(&backlog).await, "the count is still good");
        advance(GOOD_FOR).await;
        assert!(database.has_room(&backlog).await);
        assert!(!database.has_room(&backlog).await);
        assert_eq!(database.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_that_takes_long_is_made_less_often() {
        let database = Database { takes: Duration::from_millis(150), ..Database::default() };
        let backlog = Backlog::new(10_000);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            assert!(database.has_room(&backlog).await);
            advance(Duration::from_millis(10)).await;
        }
        assert!(database.asked.load(Ordering::Relaxed) <= 7, "{:?}", database.asked);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_the_last_one_holds_and_nobody_waits_in_a_queue_for_another() {
        let database = Database::default();
        database.waiting.store(1, Ordering::Relaxed);
        let backlog = Backlog::new(1);
        assert!(!database.has_room(&backlog).await);
        advance(GOOD_FOR).await;
        let began = Instant::now();
        let none = || backlog.has_room(|_| std::future::pending());
        assert_eq!(join_all((0..50).map(|_| none())).await, [false; 50]);
        assert_eq!(began.elapsed(), PATIENCE);
        advance(PATIENCE * COST).await;
        database.waiting.store(0, Ordering::Relaxed);
        assert!(database.has_room(&backlog).await);
    }
}
