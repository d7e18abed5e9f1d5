//! Group commit: what waits at the same time is sent as one statement.
//!
//! No delay is added: while one batch is at the server, the next one gathers by itself. One writer for each store carries
//! all commits of a host, one batch at a time, in the order of their line.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aster_core::keyvalue::{Entry, Key};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep};

use super::batch::{Chain, Fit, Plan, Refusals, send};
use super::commit::{Committed, Prepared, settle};
use super::connections::{Connections, Line, in_time};
use super::entries::{Entries, Ticket};
use super::error::Fault;
use super::{Counters, Error};

/// Beyond this a batch gains little and delays who comes next: from 256 rows on Postgres is bound by rows.
const MAX_BATCH: usize = 256;
/// Of payloads and values: keeps a statement far below Postgres's limits and its latency low.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// What all commits in line may hold of payloads and values, in KiB, before further ones wait outside.
const MAX_WAITING_KIB: u32 = 64 << 10;
/// Between attempts while Postgres can't work.
const PAUSE: Duration = Duration::from_millis(50);
/// The same at last, and for a transition with which alone it can't.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The sending half: cheap to clone. The task ends when the last one is gone and all is answered.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    /// Tells the task that nobody commits any more, when the last one is dropped.
    _open: Arc<Open>,
}

/// The line of commits, and what they will write.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    entries: Entries,
    last_ticket: i64,
    is_closed: bool,
}

#[derive(Debug)]
struct Job {
    ticket: Ticket,
    transition: Prepared,
    answer: oneshot::Sender<Result<Committed, Error>>,
    /// Postgres couldn't work on it for as long as it may take others with it: from then on it goes by itself.
    alone: bool,
    #[expect(dead_code, reason = "held, not read")]
    room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Open(Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// Answers a commit, and lets those that depend on it know.
    fn answer(&self, job: Job, answer: Result<Committed, Error>) {
        let keys = &job.transition.keys;
        if !keys.is_empty() {
            let mut state = self.state();
            match &answer {
                Ok(_) => state.entries.committed(job.ticket, keys),
                Err(_) => state.entries.refused(job.ticket, keys),
            }
        }
        // Who waited for it may have gone.
        let _ = job.answer.send(answer);
    }
}

impl Writer {
    pub(super) fn start(connections: Connections, counters: Arc<Counters>) -> Self {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Notify::new(),
            room: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)),
        });
        let line = Line::for_lookups(&connections.pool);
        tokio::spawn(WriterTask { connections, counters, queue: Arc::clone(&queue), line }.run());
        Self { _open: Arc::new(Open(Arc::clone(&queue))), queue }
    }

    /// Puts a commit in line and waits for its answer; refused at once if it has read what isn't the newest any more.
    pub(super) async fn commit(
        &self,
        transition: Prepared,
        in_line: impl FnOnce(),
    ) -> Result<Committed, Error> {
        // Without a writer nobody can say what becomes of it, and this host commits nothing more.
        let gone = Error::NotOwner { held: transition.fence, current: transition.fence };
        let kib = u32::try_from(transition.size_bytes / 1_024 + 1).unwrap_or(u32::MAX).min(MAX_WAITING_KIB);
        let room = Arc::clone(&self.queue.room).acquire_many_owned(kib).await;
        let room = room.expect("the semaphore is never closed");
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.queue.state();
            let stale = state.entries.stale(&transition.keys);
            if !stale.is_empty() {
                return Err(Error::Conflict { keys: stale });
            }
            state.last_ticket += 1;
            let ticket = Ticket(state.last_ticket);
            state.entries.enter(ticket, &transition.keys);
            state.waiting.push_back(Job { ticket, transition, answer, alone: false, room });
        }
        self.queue.changed.notify_one();
        in_line();
        answered.await.unwrap_or(Err(gone))
    }

    /// What a key holds, if that is known without asking Postgres.
    pub(super) fn known(&self, key: &Key) -> Option<Entry> {
        self.queue.state().entries.get(key)
    }

    /// What Postgres has answered about a key.
    pub(super) fn learn(&self, key: &Key, entry: &Entry) {
        self.queue.state().entries.learn(key, entry);
    }

    /// A key was written by somebody else.
    pub(super) fn forget(&self, key: &Key) {
        self.queue.state().entries.forget(key);
    }
}

struct WriterTask {
    connections: Connections,
    counters: Arc<Counters>,
    queue: Arc<Queue>,
    /// Not of the pool: commits wait for nobody else's reads.
    line: Line,
}

/// Why a batch has no answer.
enum Unanswered {
    /// There is no connection: nothing was sent.
    NotSent(sqlx::Error),
    Failed(sqlx::Error),
}

impl WriterTask {
    async fn run(mut self) {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                self.commit(batch).await;
                continue;
            }
            {
                let state = self.queue.state();
                if state.is_closed && state.waiting.is_empty() {
                    return;
                }
            }
            self.queue.changed.notified().await;
        }
    }

    /// Takes from the front of the line what may go together, as far as sizes say; a job that is to go alone does.
    fn take(&self) -> Vec<Job> {
        let mut state = self.queue.state();
        let mut batch: Vec<Job> = Vec::new();
        let mut size_bytes = 0;
        while let Some(job) = state.waiting.front() {
            let full = batch.len() == MAX_BATCH
                || (!batch.is_empty()
                    && (job.alone || size_bytes + job.transition.size_bytes > MAX_BATCH_BYTES));
            if full {
                break;
            }
            let Some(job) = state.waiting.pop_front() else { break };
            size_bytes += job.transition.size_bytes;
            let alone = job.alone;
            batch.push(job);
            if alone {
                break;
            }
        }
        batch
    }

    /// Commits a batch and answers each of its jobs, except those whose fate is unknown, which are settled by a task of their
    /// own, those that depend on one of these, and those with which Postgres can't work, which come again.
    async fn commit(&mut self, batch: Vec<Job>) {
        let alone = batch.iter().any(|job| job.alone);
        let mut pause = PAUSE;
        let mut give_up = Instant::now() + self.connections.patience.outage;
        let mut todo = vec![batch];
        while let Some(batch) = todo.pop() {
            let Some(Ready { mut batch, chains, later }) = self.plan(batch) else { continue };
            if !later.is_empty() {
                todo.push(later);
            }
            let (fault, error) = match self.send(&batch, &chains).await {
                Ok(refusals) if refusals.is_none() => {
                    self.counters.add_batch(batch.len());
                    for job in batch {
                        let committed = job.transition.committed();
                        self.queue.answer(job, Ok(committed));
                    }
                    continue;
                }
                Ok(refusals) if !refusals.again => {
                    todo.push(self.refuse(batch, refusals));
                    continue;
                }
                Ok(_) => (Fault::Again, "what was in the way is gone".to_owned()),
                Err(Unanswered::Failed(error)) => (Fault::of(&error), error.to_string()),
                Err(Unanswered::NotSent(error)) => {
                    tracing::debug!(%error, "commits wait for a connection");
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    // What Postgres says when it is back counts, not for how long it was away.
                    give_up = Instant::now() + self.connections.patience.outage;
                    todo.push(batch);
                    continue;
                }
            };
            match fault {
                Fault::Data(reason) if batch.len() == 1 => {
                    self.queue.answer(batch.remove(0), Err(Error::Refused { reason }));
                }
                Fault::Data(_) => todo.extend(halves(batch)),
                Fault::Again | Fault::Busy if Instant::now() < give_up && !alone => {
                    tracing::debug!(%error, "commit is tried again");
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    todo.push(batch);
                }
                // Perhaps it can work on the others.
                Fault::Again | Fault::Busy if batch.len() > 1 => todo.extend(halves(batch)),
                Fault::Again | Fault::Busy => {
                    let job = batch.remove(0);
                    tracing::warn!(run.id = %job.transition.workflow_id, %error, "a commit fails again and again");
                    self.later(vec![Job { alone: true, ..job }], LONGEST_PAUSE);
                }
                Fault::Lost | Fault::Unreadable => {
                    tracing::warn!(%error, commits = batch.len(), "the answer to a commit was lost; settling it");
                    tokio::spawn(settle_all(self.connections.clone(), Arc::clone(&self.queue), batch));
                }
            }
        }
    }

    /// What of `jobs` can be sent now: without those for which nobody waits any more, and those that are refused already.
    /// None if nothing is left.
    fn plan(&self, mut jobs: Vec<Job>) -> Option<Ready> {
        jobs.sort_unstable_by_key(|job| job.ticket);
        let mut plan = Plan::default();
        let mut ready =
            Ready { batch: Vec::with_capacity(jobs.len()), chains: Vec::new(), later: Vec::new() };
        let mut stale = Vec::new();
        let mut awaited = Vec::new();
        {
            let mut state = self.queue.state();
            for mut job in jobs {
                if job.answer.is_closed() {
                    // It may be in the way of others.
                    state.entries.refused(job.ticket, &job.transition.keys);
                    continue;
                }
                match plan.take(&mut job.transition, job.ticket, &state.entries) {
                    Fit::Taken => ready.batch.push(job),
                    Fit::Later => awaited.push(job),
                    Fit::Stale(keys) => {
                        // At once: so those behind it that depend on it are refused with it, and nobody begins to depend on them.
                        state.entries.refused(job.ticket, &job.transition.keys);
                        stale.push((job, keys));
                    }
                }
            }
        }
        for (job, keys) in stale {
            tracing::debug!(run.id = %job.transition.workflow_id, ?keys, "depends on what wasn't committed");
            self.queue.answer(job, Err(Error::Conflict { keys }));
        }
        if ready.batch.is_empty() {
            // What they depend on is being settled.
            self.later(awaited, PAUSE);
            return None;
        }
        ready.later = awaited;
        ready.chains = plan.into_chains();
        ready.batch.sort_unstable_by_key(|job| job.transition.workflow_id);
        Some(ready)
    }

    async fn send(&mut self, batch: &[Job], chains: &[Chain]) -> Result<Refusals, Unanswered> {
        let limit = self.connections.patience.answer;
        let mut connection = self.line.take(limit).await.map_err(Unanswered::NotSent)?;
        let transitions: Vec<_> = batch.iter().map(|job| &job.transition).collect();
        let Some(host) = transitions.first().map(|transition| transition.host) else {
            return Ok(Refusals::default());
        };
        let sent = in_time(limit, send(&mut connection, host, &transitions, chains)).await;
        self.line.keep(connection, &sent);
        sent.map_err(Unanswered::Failed)
    }

    /// Answers those that are refused, and returns the others.
    fn refuse(&self, mut batch: Vec<Job>, mut refusals: Refusals) -> Vec<Job> {
        // From the last to the first, so that places stay right.
        refusals.runs.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
        for (i, error) in refusals.runs {
            self.queue.answer(batch.remove(i), Err(error));
        }
        for key in &refusals.keys {
            tracing::debug!(?key, "was read in another version than Postgres has");
            self.queue.state().entries.forget(key);
        }
        let mut left = Vec::with_capacity(batch.len());
        for job in batch {
            let keys = job
                .transition
                .keys
                .iter()
                .filter(|key| key.read.is_some() && refusals.keys.contains(&key.key));
            let keys: Vec<Key> = keys.map(|key| key.key.clone()).collect();
            match keys.is_empty() {
                true => left.push(job),
                false => self.queue.answer(job, Err(Error::Conflict { keys })),
            }
        }
        left
    }

    /// Puts jobs in front of the line again after `pause`.
    fn later(&self, jobs: Vec<Job>, pause: Duration) {
        if jobs.is_empty() {
            return;
        }
        let queue = Arc::clone(&self.queue);
        tokio::spawn(async move {
            sleep(pause).await;
            let mut state = queue.state();
            jobs.into_iter().rev().for_each(|job| state.waiting.push_front(job));
            drop(state);
            queue.changed.notify_one();
        });
    }
}

/// What of a batch can be sent now, sorted by runs.
struct Ready {
    batch: Vec<Job>,
    chains: Vec<Chain>,
    /// What goes with the next one.
    later: Vec<Job>,
}

/// The first half is the last one. A chain that is cut goes on with the second half.
fn halves(mut batch: Vec<Job>) -> [Vec<Job>; 2] {
    batch.sort_unstable_by_key(|job| job.ticket);
    let second = batch.split_off(batch.len() / 2);
    [second, batch]
}

/// Answers jobs whose statement got no answer, by where their runs stand; nothing is sent again. It asks until it knows, or
/// until nobody waits for it any more.
async fn settle_all(connections: Connections, queue: Arc<Queue>, mut batch: Vec<Job>) {
    batch.sort_unstable_by_key(|job| job.ticket);
    for mut job in batch {
        let settled = tokio::select! {
            settled = settle_one(&connections, &job.transition) => settled,
            () = job.answer.closed() => {
                queue.state().entries.refused(job.ticket, &job.transition.keys);
                continue;
            }
        };
        queue.answer(job, settled);
    }
}

async fn settle_one(connections: &Connections, transition: &Prepared) -> Result<Committed, Error> {
    let Prepared { host, workflow_id, fence, .. } = *transition;
    let mut pause = PAUSE;
    loop {
        let settled = match connections.take().await {
            Ok(mut taken) => taken.ask(|connection| settle(connection, host, workflow_id, fence)).await,
            Err(error) => Err(error),
        };
        match settled {
            Ok(settled) => return transition.settled(settled),
            Err(gone @ (Error::NotOwner { .. } | Error::NotFound { .. })) => return Err(gone),
            Err(error) => {
                tracing::debug!(run.id = %workflow_id, %error, "could not settle a commit: tries again");
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}
