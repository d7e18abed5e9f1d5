//! The line of commits of one host: what waits to be committed, in which order, and what depends on what.
//!
//! A transition enters the line with a `Ticket`. From then on steps read what it will write (`entries`) and depend on
//! it. The `writer` takes transitions from the front, plans which of them go together (`batch`) and sends each batch as
//! one statement over a `Wire`. In a host the wire leads to Postgres, in the simulation to a model of its tables: so the
//! line itself runs in both. It knows no SQL.
//!
//! The line is right if no transition is committed on a value that isn't there. It also has to go on:
//! - A refusal drops everything that depends on it, transitively and at once (`State::refuse`). Otherwise a step could
//!   read from a doomed transition before its refusal is noticed, be doomed itself, and be read in turn by the next one.
//! - While the answer to a batch is lost, nobody reads what that batch may have written, nor what depends on it: a read
//!   waits until the batch is settled (`settle`).

mod batch;
mod entries;
mod settle;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aster_core::id::{Fence, HostId, WorkflowId};
use aster_core::journal::{Committed, LostAnswer, Position, Settled};
use aster_core::keyvalue::{Effects, Entry, Key, Version};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

pub use self::batch::{Chain, Refusals};
use self::batch::{Fit, Plan};
use self::entries::{Entries, Reading, Standing, Ticket};
use self::writer::Writer;
use crate::{Error, Fault};

/// A larger batch gains little and delays the transitions behind it: from 256 rows on Postgres is bound by rows.
const MAX_BATCH: usize = 256;
/// Payloads and values of one batch. Keeps a statement far below Postgres's limits and its latency low.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// What all transitions in line may hold of payloads and values, in KiB, before further ones wait outside.
const MAX_WAITING_KIB: u32 = 64 << 10;
/// First pause between attempts while the database can't work.
const PAUSE: Duration = Duration::from_millis(50);
/// Maximum pause; also the first one of a commit that fails on its own.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often that one is doubled: the longest pause is 2 s.
const DOUBLINGS: u32 = 1;

/// How batches reach the database.
pub trait Wire: Debug + Send + Sync + 'static {
    /// What a transition adds to its statement, beside what the line itself looks at.
    type Payload: Debug + Send + Sync + 'static;

    /// Sends a batch of `host`, no two transitions of one run, as one statement. Everything is committed, unless there are
    /// refusals: then nothing is. With `hasty` it gives up soon if somebody else holds a lock.
    fn send(
        &self,
        host: HostId,
        batch: &[&Prepared<Self::Payload>],
        chains: &[Chain],
        hasty: bool,
    ) -> impl Future<Output = Result<Refusals, Unanswered>> + Send;

    /// Raises the fence of a run if the host owns it and its fence is still `held`, so that no statement sent under it can
    /// arrive any more, and says where the run stands then. May be repeated.
    fn settle(
        &self,
        host: HostId,
        workflow_id: WorkflowId,
        held: Fence,
    ) -> impl Future<Output = Result<Position, Error>> + Send;
}

/// Why a batch has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// There is no connection: nothing was sent.
    NotSent(String),
    Failed(Fault, String),
}

/// A transition as it stands in line.
#[derive(Debug)]
pub struct Prepared<P> {
    pub host: HostId,
    pub workflow_id: WorkflowId,
    pub fence: Fence,
    /// The run's last sequence before this transition, and with it.
    pub last_sequence: u64,
    pub new_sequence: u64,
    /// Whether the host keeps the run.
    pub stays: bool,
    /// Each key once.
    pub keys: Vec<KeyUse>,
    /// About what it adds to a statement.
    pub size_bytes: usize,
    pub payload: P,
}

/// What a transition does with one key.
#[derive(Debug)]
pub struct KeyUse {
    pub key: Key,
    /// `None` means that the key is overwritten whatever it holds.
    pub read: Option<Version>,
    /// `None` means that the key was only read.
    pub write: Option<Value>,
    /// The version that the key has with this commit, as far as the batch knows that carries it.
    written: Option<Version>,
}

/// A value as it waits to be written: shared by the commit and the steps that read it meanwhile. `None` deletes the key.
pub type Value = Option<Arc<[u8]>>;

impl<P> Prepared<P> {
    /// The answer after its statement was answered without a refusal.
    fn committed(&self) -> Committed {
        let raised = i64::from(!self.stays);
        Committed { fence: Fence(self.fence.0 + raised) }
    }

    /// The answer that follows from where its run stands, after its own was lost.
    fn settled(&self, position: Position) -> Result<Committed, Error> {
        let Self { host, fence: held, last_sequence, new_sequence, stays, .. } = *self;
        match (LostAnswer { host, held, last_sequence, new_sequence, stays }).settle(position) {
            Settled::Committed(committed) => Ok(committed),
            Settled::NotCommitted { fence } => Err(Error::NotCommitted { fence }),
            Settled::NotOwner { current } => Err(Error::NotOwner { held, current }),
        }
    }

    fn has_events(&self) -> bool {
        self.new_sequence > self.last_sequence
    }
}

/// One entry for each key that is read, written or both.
pub fn key_uses(effects: Effects) -> Vec<KeyUse> {
    let mut keys = BTreeMap::new();
    for read in effects.reads {
        keys.insert(read.key, (Some(read.version), None));
    }
    for write in effects.writes {
        keys.entry(write.key).or_insert((None, None)).1 = Some(write.value.map(Into::into));
    }
    keys.into_iter().map(|(key, (read, write))| KeyUse { key, read, write, written: None }).collect()
}

/// Cheap to clone. The writer's task ends when the last clone is gone and everything in line is answered.
#[derive(Debug)]
pub struct CommitLine<W: Wire> {
    queue: Arc<Queue<W::Payload>>,
    /// Tells the writer that nobody commits any more, when the last one is dropped.
    _open: Arc<Open<W::Payload>>,
}

impl<W: Wire> Clone for CommitLine<W> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), _open: Arc::clone(&self._open) }
    }
}

#[derive(Debug)]
struct Queue<P> {
    state: Mutex<State<P>>,
    /// Wakes the writer.
    changed: Notify,
    /// Wakes the reads that wait until a batch is settled.
    settled: Notify,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct State<P> {
    /// Everything that is in line and not at the database.
    waiting: BTreeMap<Ticket, Job<P>>,
    entries: Entries,
    last_ticket: i64,
    aside_first: bool,
    /// Since when the writer has had no definite answer to what it sends. `None` means that it awaits none.
    unanswered_since: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug)]
struct Job<P> {
    ticket: Ticket,
    transition: Prepared<P>,
    answer: oneshot::Sender<Result<Committed, Error>>,
    /// How often the database couldn't work on it by itself. From then on it goes alone.
    put_aside: u32,
    not_before: Option<Instant>,
    #[expect(dead_code, reason = "held, not read")]
    room: OwnedSemaphorePermit,
}

impl<P> Job<P> {
    fn is_alone(&self) -> bool {
        self.put_aside > 0
    }
}

/// What can be sent now, in the order of its runs.
#[derive(Debug)]
struct Batch<P> {
    jobs: Vec<Job<P>>,
    chains: Vec<Chain>,
}

impl<P> Batch<P> {
    fn tickets(&self) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self.jobs.iter().map(|job| job.ticket).collect();
        tickets.sort_unstable();
        tickets
    }

    fn in_line_order(mut self) -> Vec<Job<P>> {
        self.jobs.sort_unstable_by_key(|job| job.ticket);
        self.jobs
    }
}

#[derive(Debug)]
struct Open<P>(Arc<Queue<P>>);

impl<P> Drop for Open<P> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_one();
    }
}

/// How a line behaves.
#[derive(Debug)]
pub struct Options {
    /// How long a batch that the database can't work on delays the others.
    pub outage: Duration,
    /// A planted bug: what depends on a refused transition stays in line, is read, and is noticed one by one.
    #[cfg(any(test, feature = "simulation"))]
    pub refusals_leave_followers: bool,
}

impl Options {
    pub fn new(outage: Duration) -> Self {
        Self {
            outage,
            #[cfg(any(test, feature = "simulation"))]
            refusals_leave_followers: false,
        }
    }
}

impl<W: Wire> CommitLine<W> {
    /// Begins the writer's task. `count` is told the size of each batch that is committed.
    pub fn start(wire: Arc<W>, options: &Options, count: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let entries = Entries::default();
        #[cfg(any(test, feature = "simulation"))]
        let entries = entries.leaving_followers(options.refusals_leave_followers);
        let state = State {
            waiting: BTreeMap::new(),
            entries,
            last_ticket: 0,
            aside_first: false,
            unanswered_since: None,
            is_closed: false,
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
            changed: Notify::new(),
            settled: Notify::new(),
            room: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)),
        });
        let writer =
            Writer { wire, queue: Arc::clone(&queue), outage: options.outage, count: Box::new(count) };
        tokio::spawn(writer.run());
        Self { _open: Arc::new(Open(Arc::clone(&queue))), queue }
    }

    /// Puts a transition in line and waits for its answer; refuses it at once if it has read what isn't the newest value any
    /// more. Calls `in_line` as soon as its place is fixed.
    ///
    /// # Cancel safety
    /// Once it was polled the transition may be committed, also if the future is dropped.
    pub async fn commit(
        &self,
        transition: Prepared<W::Payload>,
        in_line: impl FnOnce(),
    ) -> Result<Committed, Error> {
        // Without a writer nobody can say what becomes of it, and this host commits nothing more.
        let gone = Error::NotOwner { held: transition.fence, current: transition.fence };
        let kib = u32::try_from(transition.size_bytes / 1_024 + 1).unwrap_or(u32::MAX).min(MAX_WAITING_KIB);
        let room = Arc::clone(&self.queue.room).acquire_many_owned(kib).await;
        let room = room.expect("the semaphore is never closed");
        let answered = self.queue.state().enter(transition, room)?;
        self.queue.changed.notify_one();
        in_line();
        answered.await.unwrap_or(Err(gone))
    }

    /// What a key holds: what this host knows of it, else what `load` reads. While a commit that wrote the key is being
    /// settled, or one on which that depends, the call waits for the outcome.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn read<E>(&self, key: &Key, load: impl Future<Output = Result<Entry, E>>) -> Result<Entry, E> {
        loop {
            // Before the look, so that an outcome in between isn't missed.
            let settled = self.queue.settled.notified();
            let reading = self.queue.state().entries.read(key);
            match reading {
                Reading::Known(entry) => return Ok(entry),
                Reading::Unknown => break,
                Reading::Suspended => settled.await,
            }
        }
        let entry = load.await?;
        self.learn(key, &entry);
        Ok(entry)
    }

    /// Remembers what the database has answered about a key.
    pub fn learn(&self, key: &Key, entry: &Entry) {
        self.queue.state().entries.learn(key, entry);
    }

    /// Forgets a key that somebody else has written.
    pub fn forget(&self, key: &Key) {
        self.queue.state().entries.forget(key);
    }

    /// For how long the database has owed this line an answer. `None` means that it owes none.
    pub fn unanswered_for(&self) -> Option<Duration> {
        let state = self.queue.state();
        let since = [state.unanswered_since, state.entries.settling_since()];
        since.into_iter().flatten().min().map(|since| since.elapsed())
    }

    /// How many commits wait because the database can't make them now, though it makes others: somebody holds a lock that they
    /// need, most likely.
    pub fn put_aside(&self) -> usize {
        self.queue.state().waiting.values().filter(|job| job.is_alone()).count()
    }
}

impl<P> Queue<P> {
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

impl<P> State<P> {
    /// # Errors
    /// [`Error::Conflict`] if the transition has read what isn't the newest value any more.
    fn enter(
        &mut self,
        transition: Prepared<P>,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Committed, Error>>, Error> {
        let stale = self.entries.stale(&transition.keys);
        if !stale.is_empty() {
            return Err(Error::Conflict { keys: stale });
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.entries.enter(ticket, &transition.keys);
        let (answer, answered) = oneshot::channel();
        let job = Job { ticket, transition, answer, put_aside: 0, not_before: None, room };
        self.waiting.insert(ticket, job);
        Ok(answered)
    }

    /// Takes out of the line what can be sent now: from the front, or of `among` only. `None` means that nothing can.
    fn plan(&mut self, among: Option<Vec<Ticket>>) -> Option<Batch<P>> {
        let now = Instant::now();
        let is_retry = among.is_some();
        let candidates = among.unwrap_or_else(|| self.in_turn());
        let mut plan = Plan::default();
        let mut jobs: Vec<Job<P>> = Vec::new();
        let mut size_bytes = 0;
        for ticket in candidates {
            // It was refused with another one meanwhile.
            let Some(job) = self.waiting.get_mut(&ticket) else { continue };
            if !is_retry && job.not_before.is_some_and(|at| at > now) {
                continue;
            }
            job.not_before = None;
            if job.answer.is_closed() {
                // Its driver is gone. It may be in the way of others.
                self.refuse(ticket, Error::Conflict { keys: Vec::new() });
                continue;
            }
            let is_full = jobs.len() == MAX_BATCH
                || (!jobs.is_empty()
                    && (job.is_alone() || size_bytes + job.transition.size_bytes > MAX_BATCH_BYTES));
            if is_full {
                break;
            }
            match plan.take(&mut job.transition, ticket, &self.entries) {
                Fit::Taken => {}
                Fit::Later => {
                    if self.entries.leaves_followers() {
                        job.not_before = Some(now + PAUSE);
                    }
                    continue;
                }
                Fit::Stale(keys) => {
                    self.refuse(ticket, Error::Conflict { keys });
                    continue;
                }
            }
            let Some(job) = self.waiting.remove(&ticket) else { continue };
            size_bytes += job.transition.size_bytes;
            let is_alone = job.is_alone();
            jobs.push(job);
            if is_alone {
                break;
            }
        }
        // In the order in which every batch locks its runs.
        jobs.sort_unstable_by_key(|job| job.transition.workflow_id);
        (!jobs.is_empty()).then(|| Batch { jobs, chains: plan.into_chains() })
    }

    /// All that wait, in line order. Those that were put aside go first and last by turns: each may take its time in vain, and
    /// however many they are, the others go on.
    fn in_turn(&mut self) -> Vec<Ticket> {
        let (aside, mut others): (Vec<_>, Vec<_>) = self
            .waiting
            .values()
            .map(|job| (job.ticket, job.is_alone()))
            .partition(|(_, is_alone)| *is_alone);
        self.aside_first = !self.aside_first;
        match self.aside_first {
            true => others.splice(0..0, aside).for_each(drop),
            false => others.extend(aside),
        }
        others.into_iter().map(|(ticket, _)| ticket).collect()
    }

    /// When the next transition is due that waits for an instant.
    fn next_due(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|job| job.not_before).min()
    }

    /// Puts back a batch that was not committed, each transition in its old place.
    fn give_back(&mut self, batch: Batch<P>) {
        self.waiting.extend(batch.jobs.into_iter().map(|job| (job.ticket, job)));
    }

    /// Answers a batch that was committed.
    fn committed(&mut self, batch: Batch<P>) {
        for job in batch.in_line_order() {
            let committed = job.transition.committed();
            self.committed_as(job, committed);
        }
    }

    fn committed_as(&mut self, job: Job<P>, committed: Committed) {
        self.entries.committed(job.ticket, &job.transition.keys);
        // The driver that waited for it may have gone.
        let _ = job.answer.send(Ok(committed));
    }

    /// Answers a transition in line that will never be committed, and everything that depends on it.
    fn refuse(&mut self, ticket: Ticket, error: Error) {
        let Some(job) = self.waiting.remove(&ticket) else { return };
        self.refuse_job(job, error);
    }

    /// The same for a transition that was taken out of the line.
    fn refuse_job(&mut self, job: Job<P>, error: Error) {
        let followers = self.entries.followers_of(job.ticket);
        self.entries.leave(job.ticket, &job.transition.keys);
        let _ = job.answer.send(Err(error));
        let mut dropped = Vec::with_capacity(followers.len());
        for ticket in followers {
            // A batch at the database holds no follower of a transition that isn't in it.
            let Some(follower) = self.waiting.remove(&ticket) else { continue };
            self.entries.leave(ticket, &follower.transition.keys);
            dropped.push(follower);
        }
        for follower in dropped {
            let keys = follower.transition.keys.iter().filter(|key| {
                let standing = key.read.map(|read| self.entries.standing_of(&key.key, read));
                standing == Some(Standing::Gone)
            });
            let keys: Vec<Key> = keys.map(|key| key.key.clone()).collect();
            tracing::debug!(run.id = %follower.transition.workflow_id, ?keys, "depends on a commit that was refused");
            let _ = follower.answer.send(Err(Error::Conflict { keys }));
        }
    }
}
