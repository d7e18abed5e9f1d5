//! The host's sign of life. [`sweep`](super::sweep) looks after hosts that are dead.
//!
//! All of this runs on a thread of its own ([`LeaseThread`](super::lease_thread::LeaseThread)): guests, requests and commits can
//! hold every other thread, and the host keeps its runs all the same.

use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use aster_core::id::HostId;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::clock::Clock;
use super::ports::Journal;
use super::{Options, Shared, UNPOISONED};

/// After a renewal that failed.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// A host that is registered and has renewed its lease once.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) host: HostId,
    /// The database's clock.
    pub(super) clock: Clock,
    /// When the renewal was asked for: the lease runs from then on at least.
    pub(super) asked_at: Instant,
}

/// Registers the host and renews its lease once.
pub(super) async fn enter(journal: &dyn Journal, options: &Options) -> Result<Entered, Error> {
    let asked_at = Instant::now();
    let host = journal.register_host(&options.name, options.lease).await?;
    let clock = Clock::new(journal.renew_lease(host, options.lease).await?, Instant::now());
    Ok(Entered { host, clock, asked_at })
}

/// Renews the lease until the host has shut down. If it ends first, all guests are stopped by this host's own monotonic
/// clock, before others may take the runs; then the host registers anew. Nothing else is waited for here: what may take its time
/// goes to `others`, the runtime for everything else.
pub(super) async fn keep(shared: Arc<Shared>, mut host: HostId, renewed_at: Instant, others: Handle) {
    let lease = shared.options.lease;
    let mut ends_at = renewed_at + lease;
    let mut next = renewed_at + lease / 4;
    loop {
        // Also while the host shuts down and runs are still under way; after that it has no id any more.
        let gives_up = tokio::select! {
            biased;
            () = tokio::time::sleep_until(next.min(ends_at)) => false,
            () = shared.gives_up.notified() => true,
        };
        if shared.host().is_none() {
            return;
        }
        let asked_at = Instant::now();
        let answer = match gives_up {
            true => Ok(Err(Error::HostRetired)),
            false => tokio::time::timeout_at(ends_at, shared.journal.renew_lease(host, lease)).await,
        };
        match answer {
            Ok(Ok(now)) => {
                shared.clock.set(now, Instant::now());
                if asked_at + lease / 2 > ends_at {
                    // Several renewals had no answer.
                    shared.out_of_touch_until(Instant::now());
                }
                ends_at = asked_at + lease;
                next = asked_at + lease / 4;
            }
            Ok(Err(error)) if !matches!(error, Error::HostRetired) && Instant::now() < ends_at => {
                warn!(%error, "could not renew the lease; {:?} of it are left", ends_at - Instant::now());
                next = Instant::now() + TRY_AGAIN;
            }
            Ok(Err(_)) | Err(_) if shared.host().is_none() => return,
            Ok(Err(_)) | Err(_) => {
                if !gives_up {
                    warn!("the lease ended: all runs are stopped here, and taken over when they are free");
                }
                shared.stop_driving();
                let lost = host;
                loop {
                    (host, ends_at) = register_anew(&shared).await;
                    if *shared.shutdown.borrow() {
                        return;
                    }
                    if Instant::now() < ends_at {
                        break;
                    }
                }
                next = Instant::now();
                shared.out_of_touch_until(next);
                *shared.host.write().expect(UNPOISONED) = Some(host);
                info!(host.id = %host, "registered anew");
                others.spawn(leave(Arc::clone(&shared), lost));
            }
        }
    }
}

/// Nobody died: the steps that were stopped here may begin again without counting a loss.
async fn leave(shared: Arc<Shared>, lost: HostId) {
    if let Err(error) = shared.journal.retire_host(lost, shared.clock.now()).await {
        warn!(%error, "could not hand the stopped runs over");
    }
}

async fn register_anew(shared: &Shared) -> (HostId, Instant) {
    loop {
        let asked_at = Instant::now();
        match shared.journal.register_host(&shared.options.name, shared.options.lease).await {
            Ok(host) => return (host, asked_at + shared.options.lease),
            Err(error) => {
                warn!(%error, "could not register");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
