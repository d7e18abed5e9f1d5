//! The runner as the rest of the host sees it, from its start to its end.

use std::io;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{HostId, WorkflowId};
use aster_core::time::Timestamp;
use tokio::runtime::Handle;

use crate::lease;
use crate::lease_thread::LeaseThread;
use crate::ports::{Guests, Journal};
use crate::shared::Shared;
use crate::{Error, Measures, Options, Waited, Waiter};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runner {
    pub(crate) shared: Arc<Shared>,
    /// `None` where one thread does everything, as in a simulation.
    #[expect(dead_code, reason = "held, not read")]
    lease_thread: Option<Arc<LeaseThread>>,
}

/// Why a runner does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Journal(#[from] Error),
    #[error("no thread for the lease")]
    NoThread(#[source] io::Error),
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
        Ok(Self { shared, lease_thread: Some(Arc::new(thread)) })
    }

    /// Starts everything on the current runtime, also what keeps the lease.
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
        Ok(Self { shared, lease_thread: None })
    }

    /// Returns the id under which this host owns runs now. `None` means that it has no lease.
    pub fn host(&self) -> Option<HostId> {
        self.shared.lease.host()
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
                runs = self.shared.drivers.len(),
                "stops with runs under way: others will go on with them"
            );
        }
        let host = self.shared.lease.host();
        self.shared.drivers.stop();
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
        if !self.shared.drivers.tell_ordered(workflow_id) {
            self.shared.alarm.set(self.shared.clock.now());
        }
    }

    /// The database's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}
