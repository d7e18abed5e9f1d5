//! Tells drivers what people want of their runs.
//!
//! Who takes an order tells the driver at once if it is of the same host; this loop finds the orders that came to others.

use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use tracing::debug;

use super::{Shared, claims};

/// How long an order to another host may wait to be seen. The table is mostly empty, so a look costs next to nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Told at once; the rest follows at the next look.
const TOLD_AT_ONCE: usize = 1_000;

/// Looks for orders until the host shuts down.
pub(super) async fn pass_on(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        tokio::select! {
            biased;
            () = claims::stopping(&mut shutdown) => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        if let Err(error) = look(&shared).await {
            debug!(%error, "could not look for orders");
        }
    }
}

async fn look(shared: &Shared) -> Result<(), Error> {
    let Some(host) = shared.host() else { return Ok(()) };
    for workflow_id in shared.journal.ordered_runs(host, TOLD_AT_ONCE).await? {
        // One that nobody drives here will be adopted, and then told.
        shared.tell_ordered(workflow_id);
    }
    // An order may come just when its run is given back, to wait or for good.
    let now = shared.clock.now();
    if shared.journal.settle_stray_orders(now).await? > 0 {
        shared.wake_claims_at(now);
    }
    Ok(())
}
