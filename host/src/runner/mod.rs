//! Drives the runs that this host owns: carries out the core's commands, and takes over what nobody drives.
//!
//! [`Runner::start`] registers the host and begins four loops: `lease` renews the host's lease and with it the reading of
//! the database's clock, `claims` takes runs that are due, `sweep` finds those that nobody looks after, `orders` tells
//! drivers what people want of their runs. A run under way is one task (`drive`); one that waits for an instant is in the
//! database only. Here are no SQL and no HTTP, and time is tokio's only: so all of this runs in a simulation, too (`ports`).
//! Clients that wait for a run's end are in `waiters`.

mod attempt;
mod backlog;
mod claims;
mod clock;
mod drive;
mod lease;
mod measures;
mod orders;
pub(crate) mod ports;
mod sweep;
mod turns;
mod waiters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use aster_core::id::{Fence, TenantId, WorkflowId};
use aster_core::saga::{self, Signal};
use aster_core::state::{Accepted, RunState, Status};
use aster_core::time::Timestamp;
use aster_core::transition::Driver;
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::backlog::Backlog;
pub(crate) use self::backlog::Refusal;
use self::clock::Clock;
use self::drive::Drive;
pub use self::measures::{Distribution, Measured, Measures, Outcome};
use self::ports::{Guests, Journal, Sandboxed};
use self::turns::Turns;
use self::waiters::Waiters;
use crate::config::Limits;
use crate::registry::{Registry, Release, Resolved};
use crate::sandbox::Sandbox;
use crate::store::{self, Acceptance, HostId, NewRun, ReleaseId, Start, Store};

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

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runner {
    shared: Arc<Shared>,
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
    driving: Mutex<BTreeMap<WorkflowId, Driving>>,
    /// Runs whose acceptance is on its way: it may be done already, and who sent it will drive the run.
    accepting: Mutex<BTreeSet<WorkflowId>>,
    /// Tells whether what a claim gave has a driver by now.
    claims: claims::Rounds,
    /// Since when the database has answered this host without a break; none: since its start.
    in_touch_since: Mutex<Option<Instant>>,
    waiters: Arc<Waiters>,
    measures: Arc<Measures>,
    /// Pokes the claim loop.
    due: Notify,
    /// The earliest instant at which this host knows that a run is due.
    next_due: Mutex<Option<Timestamp>>,
    shutdown: watch::Sender<bool>,
}

/// A task that drives a run.
#[derive(Debug)]
struct Driving {
    /// Under which it began.
    fence: Fence,
    task: AbortHandle,
    /// Tells it that there are orders for its run.
    ordered: Arc<Notify>,
}

/// What a submission has come to, before there is a run of it.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) tenant: TenantId,
    pub(crate) resolved: Arc<Resolved>,
    pub(crate) input: Arc<Value>,
    pub(crate) input_digest: [u8; 32],
    pub(crate) key: Option<String>,
}

/// A run that was just taken in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) workflow_id: WorkflowId,
    pub(crate) accepted_at: Timestamp,
    /// Of a new run.
    pub(crate) status: Status,
    pub(crate) acceptance: Acceptance,
}

impl Runner {
    /// Registers the host and begins to take runs.
    ///
    /// # Errors
    /// The database is unreachable.
    pub async fn start(
        options: Options,
        store: Store,
        registry: Registry,
        sandbox: Sandbox,
    ) -> Result<Self, store::Error> {
        Self::start_on(options, Arc::new(store), Arc::new(Sandboxed { registry, sandbox })).await
    }

    /// The same on any journal and any guests.
    pub(crate) async fn start_on(
        options: Options,
        journal: Arc<dyn Journal>,
        guests: Arc<dyn Guests>,
    ) -> Result<Self, store::Error> {
        let asked_at = Instant::now();
        let host = journal.register_host(&options.name, options.lease).await?;
        let clock = Clock::new(journal.renew_lease(host, options.lease).await?, Instant::now());
        let measures = Arc::<Measures>::default();
        let shared = Arc::new(Shared {
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
            due: Notify::new(),
            next_due: Mutex::default(),
            shutdown: watch::Sender::new(false),
        });
        tokio::spawn(lease::keep(Arc::clone(&shared), host, asked_at));
        tokio::spawn(sweep::keep(Arc::clone(&shared)));
        tokio::spawn(orders::pass_on(Arc::clone(&shared)));
        tokio::spawn(claims::take(Arc::clone(&shared)));
        let sweep = shared.options.waiter_sweep;
        tokio::spawn(waiters::keep(Arc::clone(&shared.waiters), sweep, shared.shutdown.subscribe()));
        Ok(Self { shared })
    }

    /// Takes a run in, durably, and starts it with the same commit if there is a free slot.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] for a new run without a free slot, if too many wait for one already. Nothing is recorded then.
    ///
    /// # Cancel safety
    /// A client that goes away cancels nothing: what was accepted is driven.
    pub(crate) async fn admit(&self, candidate: Candidate) -> Result<Admitted, Refusal> {
        let runner = self.clone();
        let admission = tokio::spawn(async move { runner.accept_and_start(candidate).await });
        admission.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    async fn accept_and_start(&self, candidate: Candidate) -> Result<Admitted, Refusal> {
        let shared = &self.shared;
        let Candidate { tenant, resolved, input, input_digest, key } = candidate;
        let release = &resolved.release;
        let now = shared.clock.now();
        let default_timeout = shared.options.limits.workflow_timeout;
        let timeout_ms = release.plan.timeout_ms.unwrap_or_else(|| millis(default_timeout));
        let state = RunState::new(Accepted {
            workflow_id: shared.journal.new_workflow_id(now),
            definition: resolved.name.clone(),
            definition_digest: resolved.digest,
            release: release.id,
            input: Arc::clone(&input),
            deadline: now.plus_millis(timeout_ms),
        });
        let slot = self.slot();
        if slot.is_none() && !self.may_wait(now).await {
            let acceptance = match &key {
                // What is known already is no new work.
                Some(key) => shared.journal.known(&tenant, &resolved.name, key, &input_digest).await?,
                None => None,
            };
            let acceptance = acceptance.ok_or(Refusal::Overloaded)?;
            let workflow_id = state.accepted.workflow_id;
            return Ok(Admitted { workflow_id, accepted_at: now, status: Status::Ready, acceptance });
        }
        let first = slot.as_ref().map(|(host, _)| first_transition(*host, release, &state, now));
        let run = NewRun {
            workflow_id: state.accepted.workflow_id,
            tenant: tenant.clone(),
            definition: resolved.name.clone(),
            release: ReleaseId(release.id),
            generation: resolved.generation,
            key,
            input: input.to_string(),
            input_digest,
            accepted_at: now,
            deadline: state.accepted.deadline,
            start: first.as_ref().map(|(_, start)| start.clone()),
        };
        let status = first.as_ref().map_or(Status::Ready, |(state, _)| state.status);
        let _accepting = shared.accepting(run.workflow_id);
        crate::crash::point("before-accept");
        let acceptance = shared.journal.accept(&run).await?;
        let is_new = matches!(acceptance, Acceptance::New { .. });
        if is_new {
            crate::crash::point("after-accept");
        }
        let workflow_id = state.accepted.workflow_id;
        match (first, slot) {
            _ if !is_new => {}
            (Some((state, start)), Some((host, permit))) => {
                let ordered = Arc::<Notify>::default();
                let drive = Drive {
                    shared: Arc::clone(shared),
                    host,
                    fence: NewRun::FIRST_FENCE,
                    tenant: tenant.clone(),
                    release: Arc::clone(release),
                    state: Arc::new(state),
                    ordered: Arc::clone(&ordered),
                    permit,
                };
                // A run without a step that is wanted is over already.
                if shared.pass_on(workflow_id, start.run.driver) {
                    shared.spawn(host, workflow_id, drive.fence, ordered, drive.run(None));
                }
            }
            _ => shared.wake_claims_at(now),
        }
        Ok(Admitted { workflow_id, accepted_at: now, status, acceptance })
    }

    /// Whether one more run may wait for a slot of any host.
    async fn may_wait(&self, now: Timestamp) -> bool {
        let Shared { backlog, journal, .. } = &*self.shared;
        backlog.has_room(|limit| journal.count_due(now, limit)).await
    }

    /// Waits until the run is over, or `limit` or a waiter's time to live has passed; true if it is over.
    ///
    /// # Errors
    /// The database is unreachable, or there is no such run.
    pub(crate) async fn wait_until_over(
        &self,
        workflow_id: WorkflowId,
        limit: Duration,
    ) -> Result<bool, store::Error> {
        let is_over = async || {
            let status = self.shared.journal.status(workflow_id).await?;
            let status = status.ok_or(store::Error::NotFound { what: format!("run {workflow_id}") })?;
            Ok(status.is_over())
        };
        self.shared.waiters.wait(workflow_id, limit, is_over).await
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
    pub(crate) fn tell_ordered(&self, workflow_id: WorkflowId) {
        if !self.shared.tell_ordered(workflow_id) {
            self.shared.wake_claims_at(self.shared.clock.now());
        }
    }

    /// The database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// A place for one more run, and the id under which to own it; none if the host is full, stopping or without a lease.
    fn slot(&self) -> Option<(HostId, OwnedSemaphorePermit)> {
        if *self.shared.shutdown.borrow() {
            return None;
        }
        let host = self.shared.host()?;
        let permit = Arc::clone(&self.shared.slots).try_acquire_owned().ok()?;
        Some((host, permit))
    }
}

/// What begins a run: its state after the first transition, and that.
fn first_transition(host: HostId, release: &Release, state: &RunState, now: Timestamp) -> (RunState, Start) {
    let reaction = saga::react(&release.plan, state, Signal::Tick, now)
        .expect("only endings and cancels can be refused");
    let run = saga::record(&release.plan, &reaction.state, now);
    (reaction.state, Start { host, events: reaction.events, run })
}

impl Shared {
    fn host(&self) -> Option<HostId> {
        *self.host.read().expect(UNPOISONED)
    }

    fn driving(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkflowId, Driving>> {
        self.driving.lock().expect(UNPOISONED)
    }

    /// Until this is dropped, nobody else of this host begins to drive the run.
    fn accepting(self: &Arc<Self>, workflow_id: WorkflowId) -> Accepting {
        self.accepting.lock().expect(UNPOISONED).insert(workflow_id);
        Accepting { shared: Arc::clone(self), workflow_id }
    }

    /// Lets `driving` go on as the task that drives the run, until a lost lease or a shutdown stops it.
    fn spawn(
        self: &Arc<Self>,
        host: HostId,
        id: WorkflowId,
        fence: Fence,
        ordered: Arc<Notify>,
        driving: impl Future<Output = ()> + Send + 'static,
    ) {
        let shared = Arc::clone(self);
        // Locked until the handle is in: the task may end at once.
        let mut tasks = self.driving();
        if self.host() != Some(host) {
            // The lease ended meanwhile: the run is another host's to drive.
            return;
        }
        let known = tasks.get(&id).filter(|known| !known.task.is_finished());
        if known.is_some_and(|known| known.fence > fence) {
            // The answer that leads here came late: the run was adopted meanwhile.
            return;
        }
        let task = tokio::spawn(async move {
            driving.await;
            let mut tasks = shared.driving();
            // A run that was handed back may have been claimed again meanwhile: then the entry is another task's.
            if tasks.get(&id).is_some_and(|known| known.task.id() == tokio::task::id()) {
                tasks.remove(&id);
            }
        });
        let driving = Driving { fence, task: task.abort_handle(), ordered };
        if let Some(replaced) = tasks.insert(id, driving) {
            replaced.task.abort();
        }
    }

    /// Gives up a run that can't go on here, to be claimed after `millis`. If that fails too, the sweep finds it.
    async fn hand_back(&self, host: HostId, workflow_id: WorkflowId, fence: Fence, millis: u64) {
        let at = self.clock.now().plus_millis(millis);
        if let Err(error) = self.journal.hand_back(host, workflow_id, fence, at).await {
            tracing::warn!(run.id = %workflow_id, %error, "could not hand a run back");
        }
    }

    /// Interrupts every guest and forgets every run; from here on nothing is begun. Nothing is told to the database.
    fn stop_driving(&self) {
        let mut driving = self.driving();
        *self.host.write().expect(UNPOISONED) = None;
        std::mem::take(&mut *driving).into_values().for_each(|driving| driving.task.abort());
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

    /// Whether this host drives the run; then its driver looks at the orders.
    fn tell_ordered(&self, workflow_id: WorkflowId) -> bool {
        let driving = self.driving();
        let driver = driving.get(&workflow_id);
        if let Some(driver) = driver {
            driver.ordered.notify_one();
        }
        driver.is_some()
    }

    /// Tells who should know that a run isn't this host's to drive any more; true if it still is.
    fn pass_on(&self, workflow_id: WorkflowId, driver: Driver) -> bool {
        match driver {
            Driver::Owner => return true,
            Driver::Nobody => self.waiters.tell_over(workflow_id),
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

/// An acceptance on its way.
struct Accepting {
    shared: Arc<Shared>,
    workflow_id: WorkflowId,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.shared.accepting.lock().expect(UNPOISONED).remove(&self.workflow_id);
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
