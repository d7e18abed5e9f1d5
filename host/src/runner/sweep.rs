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
            biased;
            () = claims::stopping(&mut shutdown) => return,
            () = tokio::time::sleep(shared.options.lease / 4) => {}
        }
        // None while the host has no lease.
        let Some(host) = shared.host() else { continue };
        let before = if seen.0 == Some(host) { std::mem::take(&mut seen.1) } else { Vec::new() };
        if shared.knows_who_is_silent() {
            release(&shared).await;
        }
        match adopt(&shared, host, before).await {
            Ok(strays) => seen = (Some(host), strays),
            Err(error) => warn!(%error, "could not look for runs that nobody drives"),
        }
    }
}

/// Takes the runs from hosts that are gone.
async fn release(shared: &Shared) {
    let now = shared.clock.now();
    match shared.journal.fence_off_dead_hosts(now, shared.options.takeover_margin, RELEASED_AT_ONCE).await {
        Ok(0) => {}
        Ok(runs) => {
            info!(runs, "took runs from hosts that are gone");
            shared.wake_claims_at(now);
        }
        Err(error) => warn!(%error, "could not look for hosts that are gone"),
    }
}

/// Goes on with runs that the host owns and no task of it drives: their acceptance or claim was done without an answer, or
/// their task died. `before` are those that were so a round ago; what is so for the first time may just be on its way, and is
/// returned.
async fn adopt(shared: &Arc<Shared>, host: HostId, before: Seen) -> Result<Seen, store::Error> {
    let owned = shared.journal.owned(host).await?;
    // Whether a task began to drive the run and died of it, or none ever did.
    let strays: Vec<_> = {
        let driving = shared.driving();
        let task_of =
            |workflow_id: WorkflowId| driving.get(&workflow_id).map(|driver| driver.task.is_finished());
        let with_task =
            owned.into_iter().map(|(workflow_id, fence)| (workflow_id, fence, task_of(workflow_id)));
        with_task.filter(|(_, _, task)| *task != Some(false)).collect()
    };
    let mut new = Vec::new();
    for (workflow_id, fence, task) in strays {
        if !before.contains(&(workflow_id, fence)) {
            new.push((workflow_id, fence));
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
                let claimed = Claimed { host, workflow_id, fence, host_lost: task.is_some(), ordered: true };
                claims::spawn(shared, claimed, permit, None);
            }
            Err(error) => warn!(run.id = %workflow_id, %error, "could not adopt a run"),
        }
    }
    Ok(new)
}
