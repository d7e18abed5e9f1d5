//! Group commit: what waits at the same time is sent as one statement.
//!
//! No delay is added: while one batch is at the database, the next one gathers by itself. One writer for each line carries
//! all commits of a host, one batch at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aster_core::keyvalue::Key;
use tokio::time::{Instant, sleep, sleep_until};

use super::entries::Ticket;
use super::settle::settle;
use super::{
    Batch, DOUBLINGS, Error, Fault, Job, LONGEST_PAUSE, PAUSE, Prepared, Queue, Refusals, Unanswered, Wire,
};

/// When so many commits in a row have met a lock, each by itself, the lock is one that all meet.
const MOST_LOCKED: u32 = 8;

pub(super) struct Writer<W: Wire> {
    pub(super) wire: Arc<W>,
    pub(super) queue: Arc<Queue<W::Payload>>,
    /// How long a batch that the database can't work on delays the others.
    pub(super) outage: Duration,
    /// Told the size of each batch that is committed.
    pub(super) count: Box<dyn Fn(usize) + Send + Sync>,
}

impl<W: Wire> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<W: Wire> Writer<W> {
    pub(super) async fn run(self) {
        loop {
            let planned = self.queue.state().plan(None);
            if let Some(batch) = planned {
                self.commit(batch).await;
                continue;
            }
            let due = {
                let mut state = self.queue.state();
                if state.waiting.is_empty() {
                    state.unanswered_since = None;
                    if state.is_closed {
                        return;
                    }
                }
                state.next_due()
            };
            tokio::select! {
                biased;
                () = self.queue.changed.notified() => {}
                () = until(due) => {}
            }
        }
    }

    /// Sends a batch until each of its transitions is answered or back in line. Those whose fate is unknown are settled by a
    /// task of their own.
    async fn commit(&self, batch: Batch<W::Payload>) {
        let mut pause = PAUSE;
        let mut give_up = Instant::now() + self.outage;
        let mut todo: Vec<Vec<Ticket>> = Vec::new();
        // Whether the batch is being taken apart since somebody holds a lock, and how many in a row have met one.
        let (mut hasty, mut locked) = (false, 0);
        let mut next = Some(batch);
        loop {
            let planned = match next.take() {
                Some(batch) => Some(batch),
                None => match todo.pop() {
                    Some(tickets) => self.queue.state().plan(Some(tickets)),
                    None => return,
                },
            };
            let Some(batch) = planned else { continue };
            let tickets = batch.tickets();
            let alone = batch.jobs.iter().any(Job::is_alone);
            let (fault, error) = match self.send(&batch, hasty || alone).await {
                Ok(refusals) if refusals.is_none() => {
                    locked = 0;
                    (self.count)(batch.jobs.len());
                    let mut state = self.queue.state();
                    state.unanswered_since = None;
                    state.committed(batch);
                    continue;
                }
                Ok(refusals) if !refusals.again => {
                    self.refuse(batch, refusals);
                    todo.push(tickets);
                    continue;
                }
                Ok(_) => (Fault::Again, "what was in the way is gone".to_owned()),
                Err(Unanswered::Failed(fault, error)) => (fault, error),
                Err(Unanswered::NotSent(error)) => {
                    tracing::debug!(error, "commits wait for a connection");
                    self.queue.state().give_back(batch);
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    // What the database says when it is back counts, not for how long it was away.
                    give_up = Instant::now() + self.outage;
                    todo.push(tickets);
                    continue;
                }
            };
            if matches!(fault, Fault::Lost | Fault::Unreadable) {
                tracing::warn!(
                    error,
                    commits = tickets.len(),
                    "the answer to a commit was lost; settling it"
                );
                self.settle(batch);
                continue;
            }
            self.queue.state().give_back(batch);
            match (fault, &tickets[..]) {
                (Fault::Data(reason), [culprit]) => {
                    let mut state = self.queue.state();
                    state.unanswered_since = None;
                    state.refuse(*culprit, Error::Refused { reason });
                }
                (Fault::Data(_), _) => todo.extend(halves(&tickets)),
                (Fault::Locked, [culprit]) => {
                    self.put_aside(*culprit, &error);
                    locked += 1;
                    if locked == MOST_LOCKED {
                        // It isn't for a few rows. What is left goes together again.
                        return;
                    }
                }
                (Fault::Locked, _) => {
                    tracing::debug!(
                        error,
                        commits = tickets.len(),
                        "somebody holds a lock: commits go one by one"
                    );
                    hasty = true;
                    todo.extend(tickets.iter().rev().map(|ticket| vec![*ticket]));
                }
                (_, _) if Instant::now() < give_up && !alone => {
                    if pause == PAUSE {
                        let commits = tickets.len();
                        tracing::warn!(error, commits, "commits fail and are tried again");
                    }
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    todo.push(tickets);
                }
                (_, [culprit]) => self.put_aside(*culprit, &error),
                // Perhaps it can work on the others.
                (_, _) => todo.extend(halves(&tickets)),
            }
        }
    }

    async fn send(&self, batch: &Batch<W::Payload>, hasty: bool) -> Result<Refusals, Unanswered> {
        self.queue.state().unanswered_since.get_or_insert_with(Instant::now);
        let transitions: Vec<&Prepared<_>> = batch.jobs.iter().map(|job| &job.transition).collect();
        let Some(host) = transitions.first().map(|transition| transition.host) else {
            return Ok(Refusals::default());
        };
        self.wire.send(host, &transitions, &batch.chains, hasty).await
    }

    /// Answers the transitions that are refused and all that depend on them, and puts the others back in line.
    fn refuse(&self, batch: Batch<W::Payload>, mut refusals: Refusals) {
        let tickets: Vec<Ticket> = batch.jobs.iter().map(|job| job.ticket).collect();
        let mut refused: Vec<(Ticket, Error)> = Vec::new();
        for (i, error) in refusals.runs.drain(..) {
            refused.extend(tickets.get(i).map(|ticket| (*ticket, error)));
        }
        for job in &batch.jobs {
            let keys = job.transition.keys.iter();
            let stale = keys.filter(|key| key.read.is_some() && refusals.keys.contains(&key.key));
            let keys: Vec<Key> = stale.map(|key| key.key.clone()).collect();
            if !keys.is_empty() {
                refused.push((job.ticket, Error::Conflict { keys }));
            }
        }
        let mut state = self.queue.state();
        state.unanswered_since = None;
        for key in &refusals.keys {
            tracing::debug!(?key, "was read in another version than the database has");
            state.entries.forget(key);
        }
        state.give_back(batch);
        for (ticket, error) in refused {
            state.refuse(ticket, error);
        }
    }

    fn settle(&self, batch: Batch<W::Payload>) {
        {
            let mut state = self.queue.state();
            // From now on the settling says for how long an answer is missing.
            state.unanswered_since = None;
            batch.jobs.iter().for_each(|job| state.entries.settling(job.ticket));
        }
        tokio::spawn(settle(Arc::clone(&self.wire), Arc::clone(&self.queue), batch));
    }

    /// Lets a transition that fails again and again wait, and from then on go by itself.
    fn put_aside(&self, ticket: Ticket, error: &str) {
        let mut state = self.queue.state();
        let Some(job) = state.waiting.get_mut(&ticket) else { return };
        let pause = LONGEST_PAUSE * 2_u32.pow(job.put_aside.min(DOUBLINGS));
        let run = job.transition.workflow_id;
        tracing::warn!(run.id = %run, error, ?pause, "a commit can't be made now and is put aside");
        job.put_aside += 1;
        job.not_before = Some(Instant::now() + pause);
    }
}

/// The first half is the last one, since that is taken next. A chain that is cut goes on with the second half.
fn halves(tickets: &[Ticket]) -> [Vec<Ticket>; 2] {
    let (first, second) = tickets.split_at(tickets.len() / 2);
    [second.to_vec(), first.to_vec()]
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
