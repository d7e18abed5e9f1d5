//! The host's sign of life, and the burial of hosts that give none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aster_core::id::{Fence, WorkflowId};
use tracing::{info, warn};

use super::{Claimed, Shared, UNPOISONED, claims};
use crate::store::{self, HostId};

/// Runs released from dead hosts at once; the rest follows in the next round.
const RELEASED_AT_ONCE: usize = 1_000;

/// Renews the lease until the host shuts down. If it ends first, all guests are stopped by this host's own monotonic clock,
/// before others may take the runs; then the host registers anew.
pub(super) async fn keep(shared: Arc<Shared>, mut host: HostId, renewed_at: Instant) {
    let lease = shared.options.lease;
    let mut ends_at = renewed_at + lease;
    let mut strays = Vec::new();
    loop {
        // Also while the host shuts down and runs are still under way; after that it has no id any more.
        tokio::time::sleep(lease / 4).await;
        if shared.host().is_none() {
            return;
        }
        let asked_at = Instant::now();
        let answer = tokio::time::timeout_at(ends_at.into(), shared.store.renew_lease(host, lease)).await;
        match answer {
            Ok(Ok(now)) => {
                shared.clock.set(now, asked_at);
                ends_at = asked_at + lease;
                let margin = shared.options.takeover_margin;
                match shared.store.fence_off_dead_hosts(now, margin, RELEASED_AT_ONCE).await {
                    Ok(0) => {}
                    Ok(runs) => {
                        info!(runs, "took runs from hosts that are gone");
                        shared.wake_claims_at(now);
                    }
                    Err(error) => warn!(%error, "could not look for hosts that are gone"),
                }
                strays = adopt(&shared, host, strays).await;
            }
            Ok(Err(error)) if !matches!(error, store::Error::HostRetired) && Instant::now() < ends_at => {
                warn!(%error, "could not renew the lease; {:?} of it are left", ends_at - Instant::now());
            }
            Ok(Err(_)) | Err(_) => {
                warn!("the lease ended: all runs are stopped here, and taken over when they are free");
                *shared.host.write().expect(UNPOISONED) = None;
                shared.stop_driving();
                strays.clear();
                (host, ends_at) = register_anew(&shared).await;
                *shared.host.write().expect(UNPOISONED) = Some(host);
                info!(host.id = %host, "registered anew");
            }
        }
    }
}

/// Goes on with runs that the host owns and nobody drives: those whose acceptance or claim was done without an answer.
/// `seen` are those that were so a round ago; what is so for the first time may just be on its way, and is returned.
async fn adopt(
    shared: &Arc<Shared>,
    host: HostId,
    seen: Vec<(WorkflowId, Fence)>,
) -> Vec<(WorkflowId, Fence)> {
    if !shared.suspects_strays.swap(false, Ordering::Relaxed) && seen.is_empty() {
        return Vec::new();
    }
    let owned = match shared.store.owned(host).await {
        Ok(owned) => owned,
        Err(error) => {
            shared.suspect(&error);
            return seen;
        }
    };
    let mut strays = owned;
    strays.retain(|(workflow_id, _)| !shared.driving().contains_key(workflow_id));
    strays.retain(|&(workflow_id, fence)| {
        if !seen.contains(&(workflow_id, fence)) {
            return true;
        }
        let Ok(permit) = Arc::clone(&shared.slots).try_acquire_owned() else { return true };
        info!(run.id = %workflow_id, "goes on with a run that was taken without an answer");
        let claimed = Claimed { host, workflow_id, fence };
        shared.spawn(workflow_id, claims::go_on(Arc::clone(shared), claimed, permit));
        false
    });
    strays
}

async fn register_anew(shared: &Shared) -> (HostId, Instant) {
    loop {
        let asked_at = Instant::now();
        match shared.store.register_host(&shared.options.name, shared.options.lease).await {
            Ok(host) => return (host, asked_at + shared.options.lease),
            Err(error) => {
                warn!(%error, "could not register");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
