//! Runs that nobody looks after: those of hosts that are gone, and those that this host owns without driving them.

use std::sync::Arc;

use aster_core::id::{Fence, WorkflowId};
use tracing::{info, warn};

use super::{Claimed, Shared, claims};
use crate::store::{self, HostId};

/// Runs released from dead hosts at once; the rest follows in the next round.
const RELEASED_AT_ONCE: usize = 1_000;

/// A run, and the fence under which it was seen.
type Seen = Vec<(WorkflowId, Fence)>;

/// Looks after them as often as the lease is renewed, until the host has shut down.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut seen: (Option<HostId>, Seen) = (None, Vec::new());
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.options.lease / 4) => {}
            () = claims::stopping(&mut shutdown) => return,
        }
        // None while the host has no lease.
        let Some(host) = shared.host() else { continue };
        let before = if seen.0 == Some(host) { std::mem::take(&mut seen.1) } else { Vec::new() };
        match round(&shared, host, before).await {
            Ok(strays) => seen = (Some(host), strays),
            Err(error) => warn!(%error, "could not look for runs that nobody drives"),
        }
    }
}

async fn round(shared: &Arc<Shared>, host: HostId, before: Seen) -> Result<Seen, store::Error> {
    let now = shared.clock.now();
    let margin = shared.options.takeover_margin;
    let released = shared.store.fence_off_dead_hosts(now, margin, RELEASED_AT_ONCE).await?;
    if released > 0 {
        info!(runs = released, "took runs from hosts that are gone");
        shared.wake_claims_at(now);
    }
    adopt(shared, host, before).await
}

/// Goes on with runs that the host owns and no task of it drives: their acceptance or claim was done without an answer, or
/// their task died. `before` are those that were so a round ago; what is so for the first time may just be on its way, and is
/// returned.
async fn adopt(shared: &Arc<Shared>, host: HostId, before: Seen) -> Result<Seen, store::Error> {
    let mut strays = shared.store.owned(host).await?;
    {
        let driving = shared.driving();
        strays.retain(|(workflow_id, _)| driving.get(workflow_id).is_none_or(|task| task.is_finished()));
    }
    let mut new = Vec::new();
    for (workflow_id, fence) in strays {
        if !before.contains(&(workflow_id, fence)) {
            new.push((workflow_id, fence));
            continue;
        }
        let Ok(permit) = Arc::clone(&shared.slots).try_acquire_owned() else {
            new.push((workflow_id, fence));
            continue;
        };
        // Whoever still holds the old fence, a late answer say, is not the owner any more.
        let fence = shared.store.adopt(host, workflow_id, fence).await?;
        info!(run.id = %workflow_id, "goes on with a run that nobody drove");
        let claimed = Claimed { host, workflow_id, fence, host_lost: true };
        shared.spawn(host, workflow_id, claims::go_on(Arc::clone(shared), claimed, permit));
    }
    Ok(new)
}
