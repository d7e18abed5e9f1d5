//! Runs that nobody looks after: those of hosts that are gone, and those that this host owns without driving them.

use std::sync::Arc;

use aster_core::id::{Fence, HostId, WorkflowId};
use tracing::{info, warn};

use crate::Error;
use crate::claims;
use crate::drivers::Stray;
use crate::shared::{Claimed, Shared, stopping};

/// Runs released from dead hosts at once.
const RELEASED_AT_ONCE: usize = 5_000;

/// What a look has found.
#[derive(Debug, Default)]
struct Seen {
    /// Runs that this host owns and no task drives, each with its fence.
    strays: Vec<(WorkflowId, Fence)>,
    /// How many rounds the claim loop had begun: what they gave may only be on its way.
    claims: u64,
}

/// Looks after them as often as the lease is renewed, until the host has shut down.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut seen: (Option<HostId>, Seen) = (None, Seen::default());
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        tokio::select! {
            biased;
            () = stopping(&mut shutdown) => return,
            () = tokio::time::sleep(shared.options.lease / 4) => {}
        }
        // None while the host has no lease.
        let Some(host) = shared.lease.host() else { continue };
        let before = if seen.0 == Some(host) { std::mem::take(&mut seen.1) } else { Seen::default() };
        // Not right after an outage: then the other hosts couldn't renew their leases, either, and are given the time to do so.
        if shared.lease.is_in_touch_for(shared.options.lease + shared.options.takeover_margin) {
            release(&shared).await;
        }
        match adopt(&shared, host, before).await {
            Ok(now) => seen = (Some(host), now),
            Err(error) => warn!(%error, "could not look for runs that nobody drives"),
        }
    }
}

/// Takes the runs from hosts that are gone, in pieces, so that the first can be claimed while the rest is still to come.
async fn release(shared: &Shared) {
    loop {
        let now = shared.clock.now();
        let margin = shared.options.takeover_margin;
        match shared.journal.fence_off_dead_hosts(now, margin, RELEASED_AT_ONCE).await {
            Ok(0) => return,
            Ok(runs) => {
                shared.alarm.set(now);
                if runs < RELEASED_AT_ONCE as u64 || *shared.shutdown.borrow() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "could not look for hosts that are gone");
                return;
            }
        }
    }
}

/// Goes on with runs that the host owns and no task of it drives: their acceptance or claim was done without an answer, or
/// their task died. `before` are those that were so a round ago; what is so for the first time may just be on its way, and is
/// returned.
async fn adopt(shared: &Arc<Shared>, host: HostId, before: Seen) -> Result<Seen, Error> {
    let owned = shared.journal.owned(host).await?;
    let strays = shared.drivers.strays(owned);
    let mut seen = Seen { strays: Vec::new(), claims: shared.claims.begun() };
    let is_known = shared.claims.have_ended(before.claims);
    for Stray { workflow_id, fence, had_driver } in strays {
        if !is_known || !before.strays.contains(&(workflow_id, fence)) {
            seen.strays.push((workflow_id, fence));
            continue;
        }
        let Ok(permit) = Arc::clone(&shared.slots).try_acquire_owned() else {
            // The host is full: it stands in line with all others.
            shared.hand_back(host, workflow_id, fence, 0).await;
            continue;
        };
        // Whoever still holds the old fence, a late answer say, is not the owner any more.
        match shared.journal.adopt(host, workflow_id, fence).await {
            Ok(fence) => {
                info!(run.id = %workflow_id, "goes on with a run that nobody drove");
                let claimed = Claimed { host, workflow_id, fence, host_lost: had_driver };
                claims::spawn(shared, claimed, permit, None);
            }
            Err(error) => warn!(run.id = %workflow_id, %error, "could not adopt a run"),
        }
    }
    Ok(seen)
}
