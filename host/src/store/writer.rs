//! Group commit: what waits at the same time is sent as one statement.
//!
//! No delay is added: while one batch is at the server, the next one gathers by itself. One writer for each store carries
//! all commits of a host, one batch at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aster_core::id::WorkflowId;
use aster_core::keyvalue::Key;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::commit::{Committed, Prepared, Refusal, send, settle};
use super::connections::{Connections, Line, in_time};
use super::error::Fault;
use super::{Counters, Error};

/// Beyond this a batch gains little and delays who comes next: from 256 rows on Postgres is bound by rows.
const MAX_BATCH: usize = 256;
/// Of payloads and values: keeps a statement far below Postgres's limits and its latency low.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Transitions that may wait before their committers do.
const QUEUE: usize = 1024;
/// Between attempts while Postgres can't work.
const PAUSE: Duration = Duration::from_millis(50);
/// The same at last, and for a transition with which alone it can't.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The sending half: cheap to clone. The task ends when the last one is gone and all is answered.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    transition: Prepared,
    answer: oneshot::Sender<Result<Committed, Error>>,
    /// Postgres couldn't work on it for as long as it may take others with it: from then on it goes by itself.
    alone: bool,
}

impl Job {
    fn answer(self, answer: Result<Committed, Error>) {
        // Who waited for it may have gone.
        let _ = self.answer.send(answer);
    }
}

impl Writer {
    pub(super) fn start(connections: Connections, counters: Arc<Counters>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let line = Line::new(&connections.pool);
        let again = queue.downgrade();
        tokio::spawn(WriterTask { connections, counters, jobs, again, line }.run());
        Self { queue }
    }

    pub(super) async fn commit(&self, transition: Prepared) -> Result<Committed, Error> {
        // Without a writer nobody can say what becomes of it, and this host commits nothing more.
        let gone = Error::NotOwner { held: transition.fence, current: transition.fence };
        let (answer, answered) = oneshot::channel();
        match self.queue.send(Job { transition, answer, alone: false }).await {
            Ok(()) => answered.await.unwrap_or(Err(gone)),
            Err(_) => Err(gone),
        }
    }
}

struct WriterTask {
    connections: Connections,
    counters: Arc<Counters>,
    jobs: mpsc::Receiver<Job>,
    /// For jobs that are to be tried again later. It doesn't keep the writer alive.
    again: mpsc::WeakSender<Job>,
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
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => waiting.push_back(job),
                    None => return,
                }
            }
            while waiting.len() < 2 * MAX_BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push_back(job);
            }
            let batch = take_batch(&mut waiting);
            self.commit(batch).await;
        }
    }

    /// Commits a batch and answers each of its jobs, except those whose fate is unknown, which are settled by a task of their
    /// own, and those with which Postgres can't work, which come again.
    async fn commit(&mut self, batch: Vec<Job>) {
        let alone = batch.iter().any(|job| job.alone);
        let mut pause = PAUSE;
        let mut give_up = Instant::now() + self.connections.patience.outage;
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            // Nobody waits for these any more, and they may be in the way of others.
            batch.retain(|job| !job.answer.is_closed());
            if batch.is_empty() {
                continue;
            }
            let error = match self.send(&batch).await {
                Ok(refusals) if refusals.is_empty() => {
                    self.counters.add_batch(batch.len());
                    for job in batch {
                        let committed = job.transition.committed();
                        job.answer(Ok(committed));
                    }
                    continue;
                }
                Ok(mut refusals) => {
                    // From the last to the first, so that places stay right.
                    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.transition));
                    for Refusal { transition, error } in refusals {
                        batch.remove(transition).answer(Err(error));
                    }
                    todo.push(batch);
                    continue;
                }
                Err(Unanswered::Failed(error)) => error,
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
            match Fault::of(&error) {
                Fault::Data(reason) if batch.len() == 1 => {
                    batch.remove(0).answer(Err(Error::Refused { reason }));
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
                    self.try_later(job);
                }
                Fault::Lost | Fault::Unreadable => {
                    tracing::warn!(%error, commits = batch.len(), "the answer to a commit was lost; settling it");
                    tokio::spawn(settle_all(self.connections.clone(), batch));
                }
            }
        }
    }

    async fn send(&mut self, batch: &[Job]) -> Result<Vec<Refusal>, Unanswered> {
        let limit = self.connections.patience.answer;
        let mut connection = self.line.take(limit).await.map_err(Unanswered::NotSent)?;
        let transitions: Vec<_> = batch.iter().map(|job| &job.transition).collect();
        let sent = in_time(limit, send(&mut connection, &transitions)).await;
        self.line.keep(connection, &sent);
        sent.map_err(Unanswered::Failed)
    }

    fn try_later(&self, job: Job) {
        let again = self.again.clone();
        tokio::spawn(async move {
            sleep(LONGEST_PAUSE).await;
            // Who waits for the answer has a sender.
            if let Some(queue) = again.upgrade() {
                let _ = queue.send(Job { alone: true, ..job }).await;
            }
        });
    }
}

/// The first half is the last one.
fn halves(mut batch: Vec<Job>) -> [Vec<Job>; 2] {
    let second = batch.split_off(batch.len() / 2);
    [second, batch]
}

/// Takes from the front what can go together: no two transitions of one run, and no key that one writes and another uses.
/// What can't stays, in order, for the next batch. A job that is to go alone does.
fn take_batch(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut batch = Vec::new();
    let mut later = VecDeque::new();
    let mut runs: HashSet<WorkflowId> = HashSet::new();
    // Of each key in the batch, whether it is written.
    let mut used: HashMap<Key, bool> = HashMap::new();
    let mut size_bytes = 0;
    while let Some(job) = waiting.pop_front() {
        let transition = &job.transition;
        if job.alone && batch.is_empty() {
            batch.push(job);
            break;
        }
        let full = batch.len() == MAX_BATCH
            || job.alone
            || (size_bytes > 0 && size_bytes + transition.size_bytes > MAX_BATCH_BYTES);
        let clashes = runs.contains(&transition.workflow_id)
            || transition
                .keys
                .iter()
                .any(|key| used.get(&key.key).is_some_and(|&is_written| is_written || key.is_written()));
        if full || clashes {
            later.push_back(job);
            if full {
                break;
            }
            continue;
        }
        runs.insert(transition.workflow_id);
        for key in &transition.keys {
            *used.entry(key.key.clone()).or_default() |= key.is_written();
        }
        size_bytes += transition.size_bytes;
        batch.push(job);
    }
    later.append(waiting);
    *waiting = later;
    batch
}

/// Answers jobs whose statement got no answer, by where their runs stand; nothing is sent again. It asks until it knows, or
/// until nobody waits for it any more.
async fn settle_all(connections: Connections, batch: Vec<Job>) {
    for mut job in batch {
        let settled = tokio::select! {
            settled = settle_one(&connections, &job.transition) => settled,
            () = job.answer.closed() => continue,
        };
        job.answer(settled);
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
