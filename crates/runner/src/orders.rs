//! Tells drivers what people want of their runs.
//!
//! Who takes an order tells the driver at once if it is of the same host; this loop finds the orders that came to others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::debug;

use crate::Error;
use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::drivers::Drivers;
use crate::lease::Lease;
use crate::ports::Journal;
use crate::shared::stopping;

/// How long an order to another host may wait to be seen. The table is mostly empty, so a look costs next to nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Told at once; the rest follows at the next look.
const TOLD_AT_ONCE: usize = 1_000;

/// Finds the orders, and tells the drivers.
#[derive(Debug)]
pub(crate) struct Messenger {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) alarm: Arc<Alarm>,
}

impl Messenger {
    /// Looks for orders until the host shuts down.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                () = stopping(&mut shutdown) => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            if let Err(error) = self.look().await {
                debug!(%error, "could not look for orders");
            }
        }
    }

    async fn look(&self) -> Result<(), Error> {
        let Some(host) = self.lease.host() else { return Ok(()) };
        for workflow_id in self.journal.ordered_runs(host, TOLD_AT_ONCE).await? {
            // One that nobody drives here will be adopted, and then told.
            self.drivers.tell_ordered(workflow_id);
        }
        // An order may come just when its run is given back, to wait or for good.
        let now = self.clock.now();
        if self.journal.settle_stray_orders(now).await? > 0 {
            self.alarm.set(now);
        }
        Ok(())
    }
}
