//! Who waits here for the end of a run: each until the run's end, its own disconnect, or its time to live.
//!
//! A waiter is a place in a table and nothing else: what it waits for is in the database. So one that is lost costs its
//! client a second question and no result.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aster_core::id::WorkflowId;
use aster_core::time::Timestamp;
use aster_core::transition::RunRecord;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use crate::Measures;
use crate::shared::{UNPOISONED, stopping};

/// How long the end of a run that another host drives may be overlooked: that one's word doesn't come here.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// All waiters of a host.
#[derive(Debug)]
pub(crate) struct Waiters {
    time_to_live: Duration,
    table: Mutex<Table>,
    measures: Arc<Measures>,
}

#[derive(Debug, Default)]
struct Table {
    /// No run is here without a place.
    places: HashMap<WorkflowId, Vec<Place>>,
    last_number: u64,
}

#[derive(Debug)]
struct Place {
    /// Tells the waiters of one run apart.
    number: u64,
    expires_at: Instant,
    tell: oneshot::Sender<Word>,
}

/// Why a wait ends.
#[derive(Debug)]
enum Word {
    Over(Arc<End>),
    Expired,
}

/// How a run that this host has driven has ended: what its row says since.
#[derive(Debug, PartialEq)]
pub struct End {
    pub at: Timestamp,
    pub run: RunRecord,
}

/// What a wait has come to.
#[derive(Debug, PartialEq)]
pub enum Waited {
    /// The run is over; how, where this host has driven it to its end.
    Over(Option<Arc<End>>),
    NotOver,
}

/// One who waits. Dropping it gives up its place.
#[derive(Debug)]
pub struct Waiter {
    waiters: Arc<Waiters>,
    workflow_id: WorkflowId,
    number: u64,
    told: oneshot::Receiver<Word>,
}

impl Waiters {
    pub(crate) fn new(time_to_live: Duration, measures: Arc<Measures>) -> Self {
        Self { time_to_live, table: Mutex::default(), measures }
    }

    /// A place for one who will wait for the run's end: from now on it is told.
    pub(crate) fn enter(self: &Arc<Self>, workflow_id: WorkflowId) -> Waiter {
        let (tell, told) = oneshot::channel();
        let mut table = self.table();
        table.last_number += 1;
        let number = table.last_number;
        let place = Place { number, expires_at: Instant::now() + self.time_to_live, tell };
        table.places.entry(workflow_id).or_default().push(place);
        Waiter { waiters: Arc::clone(self), workflow_id, number, told }
    }

    /// Ends the waits for a run.
    pub(crate) fn tell_over(&self, workflow_id: WorkflowId, at: Timestamp, run: &RunRecord) {
        let Some(places) = self.table().places.remove(&workflow_id) else { return };
        let end = Arc::new(End { at, run: run.clone() });
        for place in places {
            // Who is gone needn't be told.
            let _ = place.tell.send(Word::Over(Arc::clone(&end)));
        }
    }

    /// Ends the waits that have lasted longer than their time to live; how many.
    fn sweep(&self, now: Instant) -> usize {
        let mut expired = Vec::new();
        self.table().places.retain(|_, places| {
            expired.extend(places.extract_if(.., |place| place.expires_at <= now));
            !places.is_empty()
        });
        self.measures.add_expired_waiters(expired.len());
        let count = expired.len();
        for place in expired {
            let _ = place.tell.send(Word::Expired);
        }
        count
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect(UNPOISONED)
    }
}

impl Waiter {
    /// Waits until the run is over, as its driver tells or `is_over` finds, or until `limit` or the time to live has passed. It is
    /// `driven` if the run was driven by this host when this place was entered: then there is no need to look at once.
    ///
    /// # Errors
    /// Those of `is_over`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, and nothing of it stays.
    pub async fn wait<E, Answer>(
        mut self,
        limit: Duration,
        driven: bool,
        is_over: impl Fn() -> Answer,
    ) -> Result<Waited, E>
    where
        Answer: Future<Output = Result<bool, E>>,
    {
        // None is later than any clock goes.
        let give_up = Instant::now().checked_add(limit);
        let mut looks = !driven;
        loop {
            if looks && is_over().await? {
                return Ok(Waited::Over(None));
            }
            looks = true;
            let next_look = Instant::now() + LOOK_AGAIN;
            let wake_up = give_up.map_or(next_look, |give_up| give_up.min(next_look));
            tokio::select! {
                biased;
                word = &mut self.told => return Ok(match word {
                    Ok(Word::Over(end)) => Waited::Over(Some(end)),
                    Ok(Word::Expired) | Err(_) => Waited::NotOver,
                }),
                () = sleep_until(wake_up) => {}
            }
            if give_up.is_some_and(|give_up| Instant::now() >= give_up) {
                return Ok(Waited::NotOver);
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.waiters.table();
        // Not there if it was told.
        let Entry::Occupied(mut places) = table.places.entry(self.workflow_id) else { return };
        places.get_mut().retain(|place| place.number != self.number);
        if places.get().is_empty() {
            places.remove();
        }
    }
}

/// Sweeps again and again, until the host shuts down.
pub(crate) async fn keep(waiters: Arc<Waiters>, every: Duration, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = sleep(every) => {}
            () = stopping(&mut shutdown) => return,
        }
        let expired = waiters.sweep(Instant::now());
        if expired > 0 {
            info!(waiters = expired, "ended waits for runs that take longer than a client is held");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;
    use std::sync::atomic::{AtomicBool, Ordering};

    use aster_core::state::Status;
    use tokio::task::JoinHandle;
    use uuid::Uuid;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const RUN: WorkflowId = WorkflowId(Uuid::from_u128(1));
    const OTHER: WorkflowId = WorkflowId(Uuid::from_u128(2));

    fn waiters(time_to_live: Duration) -> Arc<Waiters> {
        Arc::new(Waiters::new(time_to_live, Arc::default()))
    }

    fn ended() -> RunRecord {
        let driver = aster_core::transition::Driver::Nobody;
        RunRecord { status: Status::Completed, cause: None, result: None, error: None, driver }
    }

    fn answer(is_over: bool) -> impl Future<Output = Result<bool, Infallible>> {
        ready(Ok(is_over))
    }

    /// Begins to wait for a run whose end is only told, and returns when it does.
    async fn begin(waiters: &Arc<Waiters>, run: WorkflowId, limit: Duration) -> JoinHandle<bool> {
        let before = waiting(waiters);
        let task = tokio::spawn({
            let waiters = Arc::clone(waiters);
            async move {
                let Ok(waited) = waiters.enter(run).wait(limit, false, || answer(false)).await;
                waited != Waited::NotOver
            }
        });
        while waiting(waiters) == before {
            tokio::task::yield_now().await;
        }
        task
    }

    fn waiting(waiters: &Waiters) -> usize {
        waiters.table().places.values().map(Vec::len).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_for_a_run_are_told_its_end_at_once_and_no_others() {
        let waiters = waiters(24 * HOUR);
        let (one, two) = (begin(&waiters, RUN, HOUR).await, begin(&waiters, RUN, HOUR).await);
        let other = begin(&waiters, OTHER, HOUR).await;
        let began = Instant::now();
        waiters.tell_over(RUN, Timestamp::from_millis(0), &ended());
        assert!(one.await.unwrap() && two.await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(waiting(&waiters), 1);
        assert!(!other.await.unwrap(), "its limit passes");
        assert_eq!(began.elapsed(), HOUR);
        assert!(waiters.table().places.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_over_is_not_waited_for_and_anothers_is_looked_at() {
        let waiters = waiters(24 * HOUR);
        assert_eq!(waiters.enter(RUN).wait(HOUR, false, || answer(true)).await, Ok(Waited::Over(None)));

        let is_over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (waiters, is_over) = (Arc::clone(&waiters), Arc::clone(&is_over));
            let waiter = waiters.enter(RUN);
            async move { waiter.wait(HOUR, true, || answer(is_over.load(Ordering::Relaxed))).await }
        });
        sleep(HOUR / 2).await;
        is_over.store(true, Ordering::Relaxed);
        let began = Instant::now();
        assert_eq!(task.await.unwrap(), Ok(Waited::Over(None)));
        assert!(began.elapsed() <= LOOK_AGAIN, "{:?}", began.elapsed());
        assert!(waiters.table().places.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_nothing_behind() {
        let waiters = waiters(24 * HOUR);
        let (gone, other) = (begin(&waiters, RUN, HOUR).await, begin(&waiters, RUN, HOUR).await);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        assert_eq!(waiting(&waiters), 1);
        other.abort();
        assert!(other.await.unwrap_err().is_cancelled());
        assert!(waiters.table().places.is_empty());
        assert_eq!(waiters.measures.expired_waiters(), 0);

        let failed = waiters.enter(RUN).wait(HOUR, false, || ready(Err::<bool, _>("no database"))).await;
        assert_eq!(failed, Err("no database"));
        assert!(waiters.table().places.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_sweep_ends_and_counts_the_waits_that_are_too_old() {
        let waiters = waiters(2 * HOUR);
        let (stop, stopped) = watch::channel(false);
        let sweeping = tokio::spawn(keep(Arc::clone(&waiters), HOUR, stopped));
        // Longer than any clock goes.
        let old = begin(&waiters, RUN, Duration::MAX).await;
        sleep(HOUR / 2).await;
        let young = begin(&waiters, RUN, Duration::MAX).await;
        sleep(HOUR + HOUR / 4).await;
        assert_eq!((waiting(&waiters), waiters.measures.expired_waiters()), (2, 0));

        let began = Instant::now();
        assert!(!old.await.unwrap(), "it isn't over");
        assert!(began.elapsed() <= HOUR / 4 + LOOK_AGAIN, "{:?}", began.elapsed());
        assert_eq!((waiting(&waiters), waiters.measures.expired_waiters()), (1, 1));
        assert!(!young.await.unwrap(), "it isn't over");
        assert_eq!(waiters.measures.expired_waiters(), 2);
        assert!(waiters.table().places.is_empty());

        stop.send_replace(true);
        sweeping.await.unwrap();
    }
}
