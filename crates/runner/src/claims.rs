//! The one loop that serves admission, timers and takeover: it claims what is due and nobody drives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aster_core::id::ReleaseId;
use aster_core::journal::Replay;
use aster_core::saga::Signal;
use aster_core::state::{RunState, evolve};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, error, info, warn};

use crate::Error;
use crate::drive::Drive;
use crate::drivers::Contact;
use crate::ports::Release;
use crate::shared::{Claimed, HANDED_BACK_FOR_MS, Shared, stopping};

/// How long an instant that only another host knows of may be overslept.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs claimed with one statement, and read with two more.
const CLAIMED_AT_ONCE: usize = 256;

/// How often a claimed run is tried to be loaded, before it is left to another host, or to better times.
const LOADED_AT_MOST: u32 = 10;

pub(crate) async fn take(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let round = async {
            let slot = Arc::clone(&shared.slots).acquire_owned().await.expect("the slots are never closed");
            claim(&shared, slot).await
        };
        let seen = tokio::select! {
            biased;
            () = stopping(&mut shutdown) => return,
            seen = round => seen.unwrap_or_else(|error| {
                debug!(%error, "could not claim runs");
                0
            }),
        };
        // Another host may have taken all that were seen: then there may be more.
        if seen == 0 {
            tokio::select! {
                biased;
                () = stopping(&mut shutdown) => return,
                () = shared.alarm.rings() => {}
                () = tokio::time::sleep(shared.alarm.pause(shared.clock.now(), LOOK_AGAIN)) => {}
            }
        }
    }
}

/// Claims due runs, at most one for each free slot, and begins to drive them; returns how many were due.
async fn claim(shared: &Arc<Shared>, slot: OwnedSemaphorePermit) -> Result<usize, Error> {
    let Some(host) = shared.lease.host() else { return Ok(0) };
    let _round = shared.claims.begin();
    let free = shared.slots.available_permits().min(CLAIMED_AT_ONCE - 1);
    let claims = shared.journal.claim(host, 1 + free, shared.clock.now()).await?;
    if claims.seen > 0 && claims.runs.is_empty() {
        tokio::time::sleep(TAKEN_BY_OTHERS).await;
    }
    let lost = claims.runs.iter().filter(|run| run.host_lost).count();
    if lost > 0 {
        info!(runs = lost, host.id = %host, "took over {lost} runs whose host is gone");
    }
    // Only now: the takeover is committed, so nobody else adds to their logs.
    let ids: Vec<_> = claims.runs.iter().map(|run| run.workflow_id).collect();
    let mut replays: BTreeMap<_, _> = match shared.journal.replay(&ids).await {
        Ok(replays) => replays.into_iter().collect(),
        Err(error) => {
            debug!(%error, "could not read what was claimed: each run is read by itself");
            BTreeMap::new()
        }
    };
    let mut slot = Some(slot);
    for run in claims.runs {
        let next_slot = slot.take().or_else(|| Arc::clone(&shared.slots).try_acquire_owned().ok());
        let Some(permit) = next_slot else {
            // New runs were faster: another round, or another host, takes it.
            shared.hand_back(host, run.workflow_id, run.fence, 0).await;
            continue;
        };
        let claimed =
            Claimed { host, workflow_id: run.workflow_id, fence: run.fence, host_lost: run.host_lost };
        let replay = replays.remove(&run.workflow_id).and_then(Result::ok);
        spawn(shared, claimed, permit, replay);
    }
    Ok(claims.seen)
}

/// Counts the rounds of the claim loop, of which there is one at a time. From the instant at which the database gives a run
/// until a task drives it, the run looks like one that nobody looks after.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Rounds {
    /// How many have begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether the first `n` have ended: what they gave is driven, or nobody knows of it.
    pub(crate) fn have_ended(&self, n: u64) -> bool {
        self.ended.load(Ordering::SeqCst) >= n
    }

    /// A round, which ends when this is dropped.
    fn begin(&self) -> Round<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Round(self)
    }
}

struct Round<'r>(&'r Rounds);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Between two looks at runs that others took, or that this host may not take.
const TAKEN_BY_OTHERS: Duration = Duration::from_millis(20);

/// Begins to drive a run that this host owns.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    claimed: Claimed,
    permit: OwnedSemaphorePermit,
    replay: Option<Replay>,
) {
    let contact = Arc::<Contact>::default();
    let driver_slot = shared.drivers.slot(claimed.host, claimed.workflow_id, claimed.fence, &contact);
    if let Some(driver_slot) = driver_slot {
        let going_on = go_on(Arc::clone(shared), claimed, permit, contact, replay);
        tokio::spawn(driver_slot.drive(going_on));
    }
}

/// Folds the log of a run that this host owns, and drives it from there.
async fn go_on(
    shared: Arc<Shared>,
    claimed: Claimed,
    permit: OwnedSemaphorePermit,
    contact: Arc<Contact>,
    mut replay: Option<Replay>,
) {
    let mut pause = Duration::from_millis(50);
    let mut tries = 0;
    let (replay, release) = loop {
        tries += 1;
        match load(&shared, claimed, replay.take()).await {
            Ok(loaded) => break loaded,
            Err(error)
                if error.may_pass()
                    && tries < LOADED_AT_MOST
                    && shared.lease.host() == Some(claimed.host) =>
            {
                warn!(run.id = %claimed.workflow_id, %error, "could not load a claimed run: tries again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => {
                error!(run.id = %claimed.workflow_id, %error, "a claimed run can't be loaded: another host may try");
                shared.hand_back(claimed.host, claimed.workflow_id, claimed.fence, HANDED_BACK_FOR_MS).await;
                return;
            }
        }
    };
    let Replay { tenant, key, accepted, events, ordered: has_orders } = replay;
    if has_orders {
        contact.ordered.notify_one();
    }
    let mut state = RunState::new(accepted);
    events.iter().for_each(|event| evolve(&mut state, event));
    let Claimed { host, fence, .. } = claimed;
    let drive = Drive {
        shared,
        host,
        fence,
        tenant,
        key,
        release,
        state: Arc::new(state),
        row: None,
        contact,
        permit,
    };
    // Where the last host left in order, what was in flight just goes on.
    Box::pin(drive.run(claimed.host_lost.then_some(Signal::HostLost))).await;
}

/// What a run is replayed from, unless it was read already, and what it pins.
async fn load(shared: &Shared, claimed: Claimed, replay: Option<Replay>) -> Result<(Replay, Release), Error> {
    let id = claimed.workflow_id;
    let replay = match replay {
        Some(replay) => replay,
        None => {
            let read = shared.journal.replay(&[id]).await?.pop();
            read.ok_or_else(|| Error::NotFound { what: format!("run {id}") })?.1?
        }
    };
    let release = shared.guests.release(ReleaseId(replay.accepted.release)).await?;
    Ok((replay, release))
}
