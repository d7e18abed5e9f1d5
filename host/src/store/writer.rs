//! Group commit: what waits at the same time is sent as one statement.
//!
//! No delay is added: while one batch is at the server, the next one gathers by itself. One writer for each store carries
//! all commits of a host, one batch at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aster_core::id::WorkflowId;
use aster_core::keyvalue::Key;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::commit::{Committed, Prepared, Refusal, send, settle};
use super::error::Fault;
use super::{Counters, Error, Patience, abandon, in_time, no_answer};

/// Beyond this a batch gains little and delays who comes next: from 256 rows on Postgres is bound by rows.
const MAX_BATCH: usize = 256;
/// Of payloads and values: keeps a statement far below Postgres's limits and its latency low.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Transitions that may wait before their committers do.
const QUEUE: usize = 1024;
/// Between attempts while Postgres can't work.
const PAUSE: Duration = Duration::from_millis(50);
/// After so long without a commit the connection goes back to the pool.
const IDLE: Duration = Duration::from_secs(1);

/// The sending half: cheap to clone. The task ends when the last one is gone and all is answered.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    transition: Prepared,
    answer: oneshot::Sender<Result<Committed, Error>>,
}

impl Job {
    fn answer(self, answer: Result<Committed, Error>) {
        // Who waited for it may have gone.
        let _ = self.answer.send(answer);
    }
}

impl Writer {
    pub(super) fn start(pool: PgPool, patience: Patience, counters: Arc<Counters>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(WriterTask { pool, patience, counters, jobs, connection: None }.run());
        Self { queue }
    }

    pub(super) async fn commit(&self, transition: Prepared) -> Result<Committed, Error> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::Unavailable { source: Arc::new(sqlx::Error::WorkerCrashed) };
        self.queue.send(Job { transition, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

struct WriterTask {
    pool: PgPool,
    patience: Patience,
    counters: Arc<Counters>,
    jobs: mpsc::Receiver<Job>,
    /// Kept from batch to batch: the pool pings each connection that comes back to it.
    connection: Option<PoolConnection<Postgres>>,
}

impl WriterTask {
    async fn run(mut self) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match timeout(IDLE, self.jobs.recv()).await {
                    Ok(Some(job)) => waiting.push_back(job),
                    Ok(None) => return,
                    Err(_) => {
                        self.connection = None;
                        match self.jobs.recv().await {
                            Some(job) => waiting.push_back(job),
                            None => return,
                        }
                    }
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

    /// Commits a batch and answers each of its jobs, except those whose fate is unknown: they are settled by a task of
    /// their own.
    async fn commit(&mut self, batch: Vec<Job>) {
        let give_up = Instant::now() + self.patience.outage;
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            match self.send(&batch).await {
                Ok(refusals) if refusals.is_empty() => {
                    self.counters.add_batch(batch.len());
                    for job in batch {
                        let committed = job.transition.committed();
                        job.answer(Ok(committed));
                    }
                }
                Ok(mut refusals) => {
                    // From the last to the first, so that places stay right.
                    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.transition));
                    for Refusal { transition, error } in refusals {
                        batch.remove(transition).answer(Err(error));
                    }
                    if !batch.is_empty() {
                        todo.push(batch);
                    }
                }
                Err(error) => match Fault::of(&error) {
                    Fault::Data(reason) if batch.len() == 1 => {
                        batch.remove(0).answer(Err(Error::Refused { reason }));
                    }
                    Fault::Data(_) => {
                        let second = batch.split_off(batch.len() / 2);
                        todo.push(second);
                        todo.push(batch);
                    }
                    Fault::Again | Fault::Busy if Instant::now() < give_up => {
                        tracing::debug!(error = %error, "commit is tried again");
                        sleep(PAUSE).await;
                        todo.push(batch);
                    }
                    Fault::Again | Fault::Busy => {
                        let source = Arc::new(error);
                        for job in batch {
                            job.answer(Err(Error::Unavailable { source: source.clone() }));
                        }
                    }
                    Fault::Lost | Fault::Unreadable => {
                        tracing::warn!(
                            error = %error, commits = batch.len(), "the answer to a commit was lost; settling it"
                        );
                        tokio::spawn(settle_all(self.pool.clone(), self.patience, batch));
                    }
                },
            }
        }
    }

    /// Errors of the pool are [`Fault::Busy`]: nothing was sent then.
    async fn send(&mut self, batch: &[Job]) -> Result<Vec<Refusal>, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            // Also a connection that couldn't be opened, which by itself looks like one that broke.
            None => self.pool.acquire().await.map_err(|_| sqlx::Error::PoolTimedOut)?,
        };
        let transitions: Vec<_> = batch.iter().map(|job| &job.transition).collect();
        let sent = in_time(self.patience, send(&mut connection, &transitions)).await;
        match &sent {
            Err(error) if matches!(Fault::of(error), Fault::Lost | Fault::Unreadable) => {
                abandon(connection).await
            }
            _ => self.connection = Some(connection),
        }
        sent
    }
}

/// Takes from the front what can go together: no two transitions of one run, and no key that one writes and another uses.
/// What can't stays, in order, for the next batch.
fn take_batch(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut batch = Vec::new();
    let mut later = VecDeque::new();
    let mut runs: HashSet<WorkflowId> = HashSet::new();
    // Of each key in the batch, whether it is written.
    let mut used: HashMap<Key, bool> = HashMap::new();
    let mut size_bytes = 0;
    while let Some(job) = waiting.pop_front() {
        let transition = &job.transition;
        let full = batch.len() == MAX_BATCH
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

/// Answers jobs whose statement got no answer, by where their runs stand; nothing is sent again.
async fn settle_all(pool: PgPool, patience: Patience, batch: Vec<Job>) {
    let give_up = Instant::now() + patience.outage;
    for job in batch {
        let answer = loop {
            let Prepared { host, workflow_id, fence, .. } = job.transition;
            match settle_once(&pool, patience, host, workflow_id, fence).await {
                Ok(settled) => break job.transition.settled(settled),
                Err(Error::Unavailable { .. }) if Instant::now() < give_up => sleep(PAUSE).await,
                Err(error) => break Err(error),
            }
        };
        job.answer(answer);
    }
}

async fn settle_once(
    pool: &PgPool,
    patience: Patience,
    host: super::HostId,
    workflow_id: WorkflowId,
    held: aster_core::id::Fence,
) -> Result<super::Settled, Error> {
    let mut connection = pool.acquire().await?;
    let settled = timeout(patience.answer, settle(&mut connection, host, workflow_id, held)).await;
    let settled = settled.unwrap_or_else(|_| Err(no_answer().into()));
    if matches!(settled, Err(Error::Unavailable { .. })) {
        abandon(connection).await;
    }
    settled
}
