//! What the tasks of a runner share, and how they begin.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{Fence, HostId, WorkflowId};
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, RunRecord};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::alarm::Alarm;
use crate::backlog::Backlog;
use crate::claims;
use crate::clock::Clock;
use crate::drivers::Drivers;
use crate::key_queues::KeyQueues;
use crate::lease::{Entered, Keeper, Lease};
use crate::orders::Messenger;
use crate::ports::{Guests, Journal};
use crate::sweep;
use crate::waiters::{self, Waiters};
use crate::watchdog::Watchdog;
use crate::{Measures, Options};

/// What the tasks that take and drive runs share. A loop that needs less is given less.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) guests: Arc<dyn Guests>,
    pub(crate) options: Options,
    pub(crate) clock: Arc<Clock>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) drivers: Arc<Drivers>,
    /// One for each run that this host may drive at the same time.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) backlog: Backlog,
    pub(crate) key_queues: Arc<KeyQueues>,
    /// Says whether the runs that a claim gave have drivers by now.
    pub(crate) claims: claims::Rounds,
    pub(crate) alarm: Arc<Alarm>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) measures: Arc<Measures>,
    pub(crate) shutdown: watch::Sender<bool>,
}

/// A run that was claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub(crate) host: HostId,
    pub(crate) workflow_id: WorkflowId,
    pub(crate) fence: Fence,
    /// Whether the attempts in flight died with their host.
    pub(crate) host_lost: bool,
}

impl Shared {
    /// Begins all loops: the lease's on the runtime `lease_on`, the others here.
    pub(crate) fn begin(
        options: Options,
        journal: Arc<dyn Journal>,
        guests: Arc<dyn Guests>,
        entered: Entered,
        lease_on: &Handle,
    ) -> Arc<Self> {
        let Entered { host, clock, asked_at } = entered;
        let measures = Arc::<Measures>::default();
        let lease = Arc::new(Lease::new(host));
        let shared = Arc::new(Self {
            journal,
            guests,
            clock: Arc::new(clock),
            drivers: Arc::new(Drivers::new(Arc::clone(&lease))),
            lease,
            slots: Arc::new(Semaphore::new(options.max_active_runs)),
            backlog: Backlog::new(options.max_ready_runs),
            key_queues: Arc::default(),
            claims: claims::Rounds::default(),
            alarm: Arc::default(),
            waiters: Arc::new(Waiters::new(options.waiter_ttl, Arc::clone(&measures))),
            measures,
            options,
            shutdown: watch::Sender::new(false),
        });
        let stopping = || shared.shutdown.subscribe();
        let keeper = Keeper {
            journal: Arc::clone(&shared.journal),
            name: shared.options.name.clone(),
            term: shared.options.lease,
            lease: Arc::clone(&shared.lease),
            drivers: Arc::clone(&shared.drivers),
            clock: Arc::clone(&shared.clock),
            shutdown: stopping(),
            others: Handle::current(),
        };
        lease_on.spawn(keeper.run(host, asked_at));
        tokio::spawn(sweep::keep(Arc::clone(&shared)));
        let messenger = Messenger {
            journal: Arc::clone(&shared.journal),
            lease: Arc::clone(&shared.lease),
            drivers: Arc::clone(&shared.drivers),
            clock: Arc::clone(&shared.clock),
            alarm: Arc::clone(&shared.alarm),
        };
        tokio::spawn(messenger.run(stopping()));
        tokio::spawn(claims::take(Arc::clone(&shared)));
        let watchdog = Watchdog {
            journal: Arc::clone(&shared.journal),
            lease: Arc::clone(&shared.lease),
            drivers: Arc::clone(&shared.drivers),
            measures: Arc::clone(&shared.measures),
        };
        tokio::spawn(watchdog.run(stopping()));
        let sweep = shared.options.waiter_sweep;
        tokio::spawn(waiters::keep(Arc::clone(&shared.waiters), sweep, stopping()));
        shared
    }

    /// Gives up a run that can't go on here, to be claimed after `millis`. If that fails too, the sweep finds it.
    pub(crate) async fn hand_back(&self, host: HostId, workflow_id: WorkflowId, fence: Fence, millis: u64) {
        let at = self.clock.now().plus_millis(millis);
        if let Err(error) = self.journal.hand_back(host, workflow_id, fence, at).await {
            tracing::warn!(run.id = %workflow_id, %error, "could not hand a run back");
        }
    }

    /// Tells the waiters or the claim loop if the run isn't this host's to drive any more. Returns whether it still is.
    pub(crate) fn pass_on(&self, workflow_id: WorkflowId, at: Timestamp, run: &RunRecord) -> bool {
        match run.driver {
            Driver::Owner => return true,
            Driver::Nobody => self.waiters.tell_over(workflow_id, at, run),
            Driver::ClaimableAt(at) => self.alarm.set(at),
        }
        false
    }
}

/// How long a run that can't go on here is left alone: long enough for its trouble to be seen, and to pass.
pub(crate) const HANDED_BACK_FOR_MS: u64 = 30_000;

pub(crate) const UNPOISONED: &str = "nothing panics while it is held";

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until the host shuts down.
pub(crate) async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the host is gone.
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}
