//! Drives the runs that this host owns: carries out the core's commands, and takes over what nobody drives.
//!
//! [`Runner::start`] registers the host and begins five loops: `lease` renews the host's lease, on a thread of its own, and with
//! it the reading of the database's clock, `claims` takes runs that are due, `sweep` finds those that nobody looks after, `orders`
//! tells drivers what people want of their runs, `watchdog` notices when nothing goes on. A run under way is one task (`drive`); one
//! that waits for an instant is in the database only. Clients that wait for a run's end are in `waiters`.
//!
//! Here are no SQL, no HTTP and no WebAssembly, and time is tokio's only: so all of this runs in a simulation, too.
//! - [`ports`]: what the runner asks of the database and of the guests. A host implements it.
//! - [`line`]: the line of commits, for those who implement a journal.
//! - [`call`]: one call of a guest, as the runner asks for it and hears of it.
//! - [`session`]: what an attempt reads and writes through key-value data.
//! - [`crash`]: points at which tests let a host die.

mod admit;
mod attempt;
mod backlog;
pub mod call;
mod claims;
mod clock;
pub mod crash;
mod drive;
mod drivers;
mod ends;
mod error;
mod flights;
mod lease;
mod lease_thread;
pub mod line;
mod measures;
mod orders;
pub mod ports;
#[cfg(any(test, feature = "simulation"))]
pub mod random;
pub mod session;
mod sweep;
mod turns;
mod waiters;
mod watchdog;

use std::collections::BTreeSet;
use std::io;
use std::panic;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use aster_core::id::{Fence, HostId, WorkflowId};
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, RunRecord};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

pub use self::admit::{Admitted, Candidate};
use self::backlog::Backlog;
pub use self::backlog::Refusal;
use self::clock::Clock;
use self::drivers::Drivers;
pub use self::ends::cut;
pub use self::error::{Cause, Error, Fault};
use self::lease::Entered;
use self::lease_thread::LeaseThread;
pub use self::measures::{Distribution, Measured, Measures, Outcome};
use self::ports::{Guests, Journal};
use self::turns::Turns;
use self::waiters::Waiters;
pub use self::waiters::{End, Waited, Waiter};

#[derive(Clone, Debug)]
pub struct Options {
    /// Under which the host is listed, for people.
    pub name: String,
    /// How long other hosts leave this one's runs alone after its last sign of life. Renewed four times as often.
    pub lease: Duration,
    /// How much longer than its lease a silent host is waited for, because it stops its guests by its own clock.
    pub takeover_margin: Duration,
    /// Runs under way at the same time; more stay READY in the database.
    pub max_active_runs: usize,
    /// While so many runs wait in the database and this host is full, it takes no new ones.
    pub max_ready_runs: usize,
    /// How long a client that waits for a run's end is held at most.
    pub waiter_ttl: Duration,
    /// How often those that are held for longer are sent away.
    pub waiter_sweep: Duration,
    pub limits: Limits,
}

/// What a run and its steps may use, where their plan says nothing else.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From a run's acceptance.
    pub workflow_timeout: Duration,
    /// Of an attempt, from its first call.
    pub step_timeout: Duration,
    /// Of an attempt.
    pub step_fuel: u64,
    /// Of a component's instance.
    pub step_memory_bytes: u64,
    /// Largest value of a step, as JSON. No plan says otherwise.
    pub value_bytes: u64,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    /// `None` where one thread does everything, as in a simulation.
    #[expect(dead_code, reason = "held, not read")]
    lease: Option<Arc<LeaseThread>>,
}

/// Why a runner does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Journal(#[from] Error),
    #[error("no thread for the lease")]
    NoThread(#[source] io::Error),
}

/// What all runs of a host share.
#[derive(Debug)]
struct Shared {
    journal: Arc<dyn Journal>,
    guests: Arc<dyn Guests>,
    options: Options,
    clock: Clock,
    /// Under which id this host owns runs now; none while it has no lease.
    host: RwLock<Option<HostId>>,
    slots: Arc<Semaphore>,
    backlog: Backlog,
    turns: Arc<Turns>,
    /// The tasks that drive runs, so that a lost lease stops them.
    driving: Mutex<Drivers>,
    /// Runs whose acceptance is on its way: it may be done already, and who sent it will drive the run.
    accepting: Mutex<BTreeSet<WorkflowId>>,
    /// Tells whether what a claim gave has a driver by now.
    claims: claims::Rounds,
    /// Since when the database has answered this host without a break; none: since its start.
    in_touch_since: Mutex<Option<Instant>>,
    waiters: Arc<Waiters>,
    measures: Arc<Measures>,
    /// Tells the lease's loop to hand all runs over.
    gives_up: Notify,
    /// Pokes the claim loop.
    due: Notify,
    /// The earliest instant at which this host knows that a run is due.
    next_due: Mutex<Option<Timestamp>>,
    shutdown: watch::Sender<bool>,
}

impl Runner {
    /// Registers the host and begins to take runs.
    ///
    /// # Errors
    /// The database is unreachable, or the machine gives no thread for the lease.
    pub async fn start(
        options: Options,
        journal: Arc<dyn Journal>,
        guests: Arc<dyn Guests>,
    ) -> Result<Self, StartError> {
        let thread = LeaseThread::start().map_err(StartError::NoThread)?;
        // Over there already, since that is where its connection to the database then belongs.
        let entering = {
            let (journal, options) = (Arc::clone(&journal), options.clone());
            thread.handle().spawn(async move { lease::enter(&*journal, &options).await })
        };
        let entered = entering.await.unwrap_or_else(|failed| panic::resume_unwind(failed.into_panic()))?;
        let shared = Shared::begin(options, journal, guests, entered, thread.handle());
        Ok(Self { shared, lease: Some(Arc::new(thread)) })
    }

    /// The same with all of it on the current runtime, the lease too.
    ///
    /// # Errors
    /// The database is unreachable.
    pub async fn start_here(
        options: Options,
        journal: Arc<dyn Journal>,
        guests: Arc<dyn Guests>,
    ) -> Result<Self, Error> {
        let entered = lease::enter(&*journal, &options).await?;
        let shared = Shared::begin(options, journal, guests, entered, &Handle::current());
        Ok(Self { shared, lease: None })
    }

    /// Under which id this host owns runs now. `None` means that it has no lease.
    pub fn host(&self) -> Option<HostId> {
        self.shared.host()
    }

    /// Waits until the run is over, or `limit` or a waiter's time to live has passed. `watch` is its place if it was taken before the
    /// run began.
    ///
    /// # Errors
    /// The database is unreachable, or there is no such run.
    pub async fn wait_until_over(
        &self,
        workflow_id: WorkflowId,
        watch: Option<Waiter>,
        limit: Duration,
    ) -> Result<Waited, Error> {
        let is_over = async || {
            let status = self.shared.journal.status(workflow_id).await?;
            let status = status.ok_or(Error::NotFound { what: format!("run {workflow_id}") })?;
            Ok(status.is_over())
        };
        let driven = watch.is_some();
        let waiter = watch.unwrap_or_else(|| self.shared.waiters.enter(workflow_id));
        waiter.wait(limit, driven, is_over).await
    }

    /// What it has counted since its start.
    pub fn measures(&self) -> Arc<Measures> {
        Arc::clone(&self.shared.measures)
    }

    /// Takes no more runs, lets those under way go on for `grace`, then stops them and hands them to other hosts.
    pub async fn shut_down(&self, grace: Duration) {
        self.shared.shutdown.send_replace(true);
        let all = u32::try_from(self.shared.options.max_active_runs).unwrap_or(u32::MAX);
        let drained = tokio::time::timeout(grace, self.shared.slots.acquire_many(all)).await;
        if drained.is_err() {
            tracing::warn!(
                runs = self.shared.driving().len(),
                "stops with runs under way: others will go on with them"
            );
        }
        let host = self.shared.host();
        self.shared.stop_driving();
        let Some(host) = host else { return };
        let handed_over = self.shared.journal.retire_host(host, self.shared.clock.now());
        match tokio::time::timeout(grace, handed_over).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not hand the runs over: others take them when the lease ends");
            }
            Err(_) => tracing::warn!("the database doesn't answer: others take the runs when the lease ends"),
        }
    }

    /// Lets the run's driver know that there are orders for it: at once if that is this host, else by the database.
    pub fn tell_ordered(&self, workflow_id: WorkflowId) {
        if !self.shared.tell_ordered(workflow_id) {
            self.shared.wake_claims_at(self.shared.clock.now());
        }
    }

    /// The database's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}

impl Shared {
    /// Begins all loops: the lease's on the runtime `lease_on`, the others here.
    fn begin(
        options: Options,
        journal: Arc<dyn Journal>,
        guests: Arc<dyn Guests>,
        entered: Entered,
        lease_on: &Handle,
    ) -> Arc<Self> {
        let Entered { host, clock, asked_at } = entered;
        let measures = Arc::<Measures>::default();
        let shared = Arc::new(Self {
            journal,
            guests,
            clock,
            host: RwLock::new(Some(host)),
            slots: Arc::new(Semaphore::new(options.max_active_runs)),
            backlog: Backlog::new(options.max_ready_runs),
            waiters: Arc::new(Waiters::new(options.waiter_ttl, Arc::clone(&measures))),
            measures,
            options,
            turns: Arc::default(),
            driving: Mutex::default(),
            accepting: Mutex::default(),
            claims: claims::Rounds::default(),
            in_touch_since: Mutex::default(),
            gives_up: Notify::new(),
            due: Notify::new(),
            next_due: Mutex::default(),
            shutdown: watch::Sender::new(false),
        });
        lease_on.spawn(lease::keep(Arc::clone(&shared), host, asked_at, Handle::current()));
        tokio::spawn(sweep::keep(Arc::clone(&shared)));
        tokio::spawn(orders::pass_on(Arc::clone(&shared)));
        tokio::spawn(claims::take(Arc::clone(&shared)));
        tokio::spawn(watchdog::keep(Arc::clone(&shared)));
        let sweep = shared.options.waiter_sweep;
        tokio::spawn(waiters::keep(Arc::clone(&shared.waiters), sweep, shared.shutdown.subscribe()));
        shared
    }

    fn host(&self) -> Option<HostId> {
        *self.host.read().expect(UNPOISONED)
    }

    /// Gives up a run that can't go on here, to be claimed after `millis`. If that fails too, the sweep finds it.
    async fn hand_back(&self, host: HostId, workflow_id: WorkflowId, fence: Fence, millis: u64) {
        let at = self.clock.now().plus_millis(millis);
        if let Err(error) = self.journal.hand_back(host, workflow_id, fence, at).await {
            tracing::warn!(run.id = %workflow_id, %error, "could not hand a run back");
        }
    }

    /// The database didn't answer for a while before `now`.
    fn out_of_touch_until(&self, now: Instant) {
        *self.in_touch_since.lock().expect(UNPOISONED) = Some(now);
    }

    /// Whether a host whose lease has ended is gone. Not right after an outage: then the others couldn't renew theirs, either,
    /// and are given the time to say so.
    fn knows_who_is_silent(&self) -> bool {
        let since = *self.in_touch_since.lock().expect(UNPOISONED);
        since.is_none_or(|since| since.elapsed() >= self.options.lease + self.options.takeover_margin)
    }

    /// Tells who should know that a run isn't this host's to drive any more; true if it still is.
    fn pass_on(&self, workflow_id: WorkflowId, at: Timestamp, run: &RunRecord) -> bool {
        match run.driver {
            Driver::Owner => return true,
            Driver::Nobody => self.waiters.tell_over(workflow_id, at, run),
            Driver::ClaimableAt(at) => self.wake_claims_at(at),
        }
        false
    }

    /// Lets the claim loop look at `at`.
    fn wake_claims_at(&self, at: Timestamp) {
        let mut next_due = self.next_due.lock().expect(UNPOISONED);
        if next_due.is_none_or(|due| at < due) {
            *next_due = Some(at);
            self.due.notify_one();
        }
    }
}

/// How long a run that can't go on here is left alone: long enough for its trouble to be seen, and to pass.
const HANDED_BACK_FOR_MS: u64 = 30_000;

const UNPOISONED: &str = "nothing panics while it is held";

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A run that was claimed.
#[derive(Clone, Copy, Debug)]
struct Claimed {
    host: HostId,
    workflow_id: WorkflowId,
    fence: Fence,
    /// Whether the attempts in flight died with their host.
    host_lost: bool,
}
