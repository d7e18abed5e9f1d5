//! What keeps the database in shape while the host works: partitions made ahead, and old runs forgotten.
//!
//! Every host does it, and they do no harm to each other. Nothing waits for it, and what can't be done now is done later.

use std::time::{Duration, Instant};

use aster_core::time::Timestamp;
use tracing::{debug, info, warn};

use crate::store::{Error, Store};

const EVERY: Duration = Duration::from_secs(3_600);
/// After a round that failed.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// Works round after round, until it is dropped. Ended runs are kept for `retention`; for ever if it is none.
pub async fn keep(store: Store, retention: Option<Duration>) {
    loop {
        let pause = match round(&store, retention).await {
            Ok(()) => EVERY,
            Err(error) => {
                warn!(
                    "maintenance of the database isn't done, and is tried again: {:#}",
                    anyhow::Error::from(error)
                );
                TRY_AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn round(store: &Store, retention: Option<Duration>) -> Result<(), Error> {
    let now = store.clock().await?;
    let made = make_partitions(store, now).await;
    store.fold_counts().await?;
    // Also if none could be made: the default partition takes what comes, and is what may be in the way.
    if let Some(retention) = retention {
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        forget(store, Timestamp::from_millis(now.as_millis().saturating_sub(retention))).await?;
    }
    made.map(drop)
}

/// Makes the partitions of this week and the next ones; their names.
pub(crate) async fn make_partitions(store: &Store, now: Timestamp) -> Result<Vec<String>, Error> {
    let mut made = Vec::new();
    for week in store.weeks_to_make(now).await? {
        let name = week.name();
        if store.make_partition(week).await? {
            info!(partition = name, "made a partition for events");
            made.push(name);
        } else {
            debug!(partition = name, "the default partition keeps the events of this week");
        }
    }
    Ok(made)
}

/// What a round has forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) runs: u64,
    pub(crate) partitions: Vec<String>,
    /// Partitions whose time is over, and which stay all the same.
    pub(crate) held: usize,
    /// The runs that hold them.
    pub(crate) holding: u64,
}

/// Forgets what ended before `cutoff`: weeks as a whole, the oldest first, and runs of the default partition one by one.
pub(crate) async fn forget(store: &Store, cutoff: Timestamp) -> Result<Forgotten, Error> {
    let began = Instant::now();
    let mut forgotten = Forgotten::default();
    let old = store.partitions().await?.into_iter().filter(|partition| partition.is_before(cutoff));
    for partition in old {
        match store.count_holding(&partition, cutoff).await? {
            0 => {
                let (runs, dropped) = store.drop_partition(&partition, cutoff).await?;
                forgotten.runs += runs;
                // Else another host was faster.
                if dropped {
                    forgotten.partitions.push(partition.name);
                }
            }
            holding => {
                forgotten.held += 1;
                forgotten.holding += holding;
            }
        }
    }
    forgotten.runs += store.forget_default(cutoff).await?;
    if forgotten.runs > 0 || !forgotten.partitions.is_empty() {
        info!(
            runs = forgotten.runs,
            partitions = forgotten.partitions.join(", "),
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "forgot runs that ended long ago"
        );
    }
    if forgotten.held > 0 {
        info!(
            runs = forgotten.holding,
            partitions = forgotten.held,
            "runs that are unfinished or COMPENSATION_FAILED, or ended late, hold all events of the weeks in which they began"
        );
    }
    Ok(forgotten)
}
