//! Maintenance of the database while the host works: creating partitions ahead of time, and deleting old runs.
//!
//! Every host does this, and several at once do no harm. Nothing waits for it; work that fails is tried again later.

use std::time::{Duration, Instant};

use aster_core::time::Timestamp;
use tracing::{debug, info, warn};

use crate::store::{Error, Store};

const EVERY: Duration = Duration::from_secs(3_600);
/// The pause after a round that failed.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// Works in rounds until the future is dropped. Ended runs are kept for `retention`, or for ever if it is `None`.
pub async fn keep(store: Store, retention: Option<Duration>) {
    loop {
        let pause = match round(&store, retention).await {
            Ok(()) => EVERY,
            Err(error) => {
                warn!(
                    "the host couldn't maintain the database, and will try again: {:#}",
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
    // This is done even if no partition could be made: the default partition takes the events instead, and may itself
    // be the reason.
    if let Some(retention) = retention {
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        forget(store, Timestamp::from_millis(now.as_millis().saturating_sub(retention))).await?;
    }
    made.map(drop)
}

/// Creates the partitions of this week and the next ones, and returns their names.
pub(crate) async fn make_partitions(store: &Store, now: Timestamp) -> Result<Vec<String>, Error> {
    let mut made = Vec::new();
    for week in store.weeks_to_make(now).await? {
        let name = week.name();
        if store.make_partition(week).await? {
            info!(partition = name, "the host created partition {name} for events");
            made.push(name);
        } else {
            debug!(partition = name, "the default partition keeps the events of the week of {name}");
        }
    }
    Ok(made)
}

/// The runs and partitions that a round has deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) runs: u64,
    pub(crate) partitions: Vec<String>,
    /// The number of partitions whose retention is over, but which must stay.
    pub(crate) held: usize,
    /// The number of runs that hold them.
    pub(crate) holding: u64,
}

/// Deletes runs that ended before `cutoff`: whole weeks, the oldest first, and the runs of the default partition one by
/// one.
pub(crate) async fn forget(store: &Store, cutoff: Timestamp) -> Result<Forgotten, Error> {
    let began = Instant::now();
    let mut forgotten = Forgotten::default();
    let old = store.partitions().await?.into_iter().filter(|partition| partition.is_before(cutoff));
    for partition in old {
        match store.count_holding(&partition, cutoff).await? {
            0 => {
                let (runs, dropped) = store.drop_partition(&partition, cutoff).await?;
                forgotten.runs += runs;
                // Otherwise another host was faster.
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
            "the host deleted {} runs whose retention is over",
            forgotten.runs
        );
    }
    if forgotten.held > 0 {
        info!(
            runs = forgotten.holding,
            partitions = forgotten.held,
            "{} runs that are unfinished or COMPENSATION_FAILED, or ended late, keep all events of the weeks in which they began",
            forgotten.holding
        );
    }
    Ok(forgotten)
}
