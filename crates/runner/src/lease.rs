//! The host's lease, its sign of life. [`sweep`](crate::sweep) looks after hosts that are dead.
//!
//! The lease is kept on a thread of its own ([`LeaseThread`](crate::lease_thread::LeaseThread)): guests, requests and commits can
//! hold every other thread, and the host keeps its runs all the same.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use aster_core::id::HostId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::drivers::Drivers;
use crate::ports::Journal;
use crate::shared::UNPOISONED;
use crate::{Error, Options};

/// After a renewal that failed.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// What the host knows of its lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Under which id this host owns runs now. `None` means that it has no lease.
    host: RwLock<Option<HostId>>,
    /// Since when the database has answered this host without a break. `None` means since the host's start.
    in_touch_since: Mutex<Option<Instant>>,
    /// Tells the keeper to hand all runs over.
    gives_up: Notify,
}

impl Lease {
    pub(crate) fn new(host: HostId) -> Self {
        Self { host: RwLock::new(Some(host)), in_touch_since: Mutex::default(), gives_up: Notify::new() }
    }

    pub(crate) fn host(&self) -> Option<HostId> {
        *self.host.read().expect(UNPOISONED)
    }

    fn begin(&self, host: HostId) {
        *self.host.write().expect(UNPOISONED) = Some(host);
    }

    /// From here on the host owns no run.
    pub(crate) fn end(&self) {
        *self.host.write().expect(UNPOISONED) = None;
    }

    /// The database didn't answer for a while before `now`.
    fn out_of_touch_until(&self, now: Instant) {
        *self.in_touch_since.lock().expect(UNPOISONED) = Some(now);
    }

    /// Whether the database has answered this host for at least so long, or since its start.
    pub(crate) fn is_in_touch_for(&self, time: Duration) -> bool {
        let since = *self.in_touch_since.lock().expect(UNPOISONED);
        since.is_none_or(|since| since.elapsed() >= time)
    }

    /// Lets the keeper hand all runs over, as after a lease that has ended.
    pub(crate) fn give_up(&self) {
        self.gives_up.notify_one();
    }
}

/// A host that is registered and has renewed its lease once.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) host: HostId,
    /// The database's clock.
    pub(crate) clock: Clock,
    /// When the renewal was asked for: the lease runs from then on at least.
    pub(crate) asked_at: Instant,
}

/// Registers the host and renews its lease once.
pub(crate) async fn enter(journal: &dyn Journal, options: &Options) -> Result<Entered, Error> {
    let asked_at = Instant::now();
    let host = journal.register_host(&options.name, options.lease).await?;
    let clock = Clock::new(journal.renew_lease(host, options.lease).await?, Instant::now());
    Ok(Entered { host, clock, asked_at })
}

/// Keeps the lease. Nothing else is waited for here: what may take its time goes to `others`.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) journal: Arc<dyn Journal>,
    /// The host's, for people.
    pub(crate) name: String,
    /// For how long each renewal holds.
    pub(crate) term: Duration,
    pub(crate) lease: Arc<Lease>,
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) shutdown: watch::Receiver<bool>,
    /// The runtime for everything else.
    pub(crate) others: Handle,
}

impl Keeper {
    /// Renews the lease until the host has shut down. If it ends first, all guests are stopped by this host's own monotonic
    /// clock, before others may take the runs; then the host registers anew.
    pub(crate) async fn run(self, mut host: HostId, renewed_at: Instant) {
        let Self { journal, term, lease, .. } = &self;
        let term = *term;
        let mut ends_at = renewed_at + term;
        let mut next = renewed_at + term / 4;
        loop {
            // Also while the host shuts down and runs are still under way; after that it has no id any more.
            let gives_up = tokio::select! {
                biased;
                () = tokio::time::sleep_until(next.min(ends_at)) => false,
                () = lease.gives_up.notified() => true,
            };
            if lease.host().is_none() {
                return;
            }
            let asked_at = Instant::now();
            let answer = match gives_up {
                true => Ok(Err(Error::HostRetired)),
                false => tokio::time::timeout_at(ends_at, journal.renew_lease(host, term)).await,
            };
            match answer {
                Ok(Ok(now)) => {
                    self.clock.set(now, Instant::now());
                    if asked_at + term / 2 > ends_at {
                        // Several renewals had no answer.
                        lease.out_of_touch_until(Instant::now());
                    }
                    ends_at = asked_at + term;
                    next = asked_at + term / 4;
                }
                Ok(Err(error)) if !matches!(error, Error::HostRetired) && Instant::now() < ends_at => {
                    warn!(%error, "could not renew the lease; {:?} of it are left", ends_at - Instant::now());
                    next = Instant::now() + TRY_AGAIN;
                }
                Ok(Err(_)) | Err(_) if lease.host().is_none() => return,
                Ok(Err(_)) | Err(_) => {
                    if !gives_up {
                        warn!(
                            "the lease ended: all runs are stopped here, and taken over when they are free"
                        );
                    }
                    self.drivers.stop();
                    let lost = host;
                    loop {
                        (host, ends_at) = self.register_anew().await;
                        if *self.shutdown.borrow() {
                            return;
                        }
                        if Instant::now() < ends_at {
                            break;
                        }
                    }
                    next = Instant::now();
                    lease.out_of_touch_until(next);
                    lease.begin(host);
                    info!(host.id = %host, "registered anew");
                    self.others.spawn(leave(Arc::clone(journal), Arc::clone(&self.clock), lost));
                }
            }
        }
    }

    async fn register_anew(&self) -> (HostId, Instant) {
        loop {
            let asked_at = Instant::now();
            match self.journal.register_host(&self.name, self.term).await {
                Ok(host) => return (host, asked_at + self.term),
                Err(error) => {
                    warn!(%error, "could not register");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Nobody died: the steps that were stopped here may begin again without counting a loss.
async fn leave(journal: Arc<dyn Journal>, clock: Arc<Clock>, lost: HostId) {
    if let Err(error) = journal.retire_host(lost, clock.now()).await {
        warn!(%error, "could not hand the stopped runs over");
    }
}
