//! The one loop that serves admission, timers and takeover: it claims what is due and nobody drives.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::TenantId;
use aster_core::saga::Signal;
use aster_core::state::{Accepted, RunState, evolve};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::{debug, error, warn};

use super::drive::Drive;
use super::{Claimed, Shared, UNPOISONED};
use crate::registry::{self, Release};
use crate::store;

/// How long an instant that only another host knows of may be overslept.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs claimed with one statement.
const CLAIMED_AT_ONCE: usize = 64;

/// Events read at once while a log is folded.
const EVENTS_AT_ONCE: usize = 1_000;

pub(super) async fn take(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let claimed = match claim(&shared).await {
            Ok(claimed) => claimed,
            Err(error) => {
                debug!(%error, "could not claim runs");
                0
            }
        };
        if claimed == 0 {
            tokio::select! {
                () = shared.due.notified() => {}
                () = tokio::time::sleep(pause(&shared)) => {}
                () = stopping(&mut shutdown) => return,
            }
        }
    }
}

async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the host is gone.
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}

/// Until the next instant that is known here, at most [`LOOK_AGAIN`].
fn pause(shared: &Shared) -> Duration {
    let next_due = *shared.next_due.lock().expect(UNPOISONED);
    next_due.map_or(LOOK_AGAIN, |due| due.since(shared.clock.now()).min(LOOK_AGAIN))
}

/// Claims as many due runs as there are free slots, and begins to drive them; returns how many.
async fn claim(shared: &Arc<Shared>) -> Result<usize, store::Error> {
    let Some(host) = shared.host() else { return Ok(0) };
    let mut permits: Vec<OwnedSemaphorePermit> = Vec::new();
    while permits.len() < CLAIMED_AT_ONCE
        && let Ok(permit) = Arc::clone(&shared.slots).try_acquire_owned()
    {
        permits.push(permit);
    }
    if permits.is_empty() {
        return Ok(0);
    }
    let now = shared.clock.now();
    {
        let mut next_due = shared.next_due.lock().expect(UNPOISONED);
        if next_due.is_some_and(|due| due <= now) {
            *next_due = None;
        }
    }
    let claimed =
        shared.store.claim(host, permits.len(), now).await.inspect_err(|error| shared.suspect(error))?;
    let count = claimed.len();
    for ((workflow_id, fence), permit) in claimed.into_iter().zip(permits) {
        let claimed = Claimed { host, workflow_id, fence };
        shared.spawn(workflow_id, go_on(Arc::clone(shared), claimed, permit));
    }
    Ok(count)
}

/// Folds the log of a run that this host owns, and drives it from there.
pub(super) async fn go_on(shared: Arc<Shared>, claimed: Claimed, permit: OwnedSemaphorePermit) {
    let mut pause = Duration::from_millis(50);
    let (run, release) = loop {
        match load(&shared, claimed).await {
            Ok(loaded) => break loaded,
            Err(error) if error.may_pass() && shared.host() == Some(claimed.host) => {
                warn!(run.id = %claimed.workflow_id, %error, "could not load a claimed run: tries again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => {
                error!(run.id = %claimed.workflow_id, %error, "a claimed run can't be loaded: it stays as it is");
                return;
            }
        }
    };
    let Claimed { host, fence, .. } = claimed;
    let (tenant, state) = run;
    let drive =
        Drive { shared: Arc::clone(&shared), host, fence, tenant, release, state: Arc::new(state), permit };
    Box::pin(drive.run(Some(Signal::HostLost))).await;
}

type Folded = ((TenantId, RunState), Arc<Release>);

/// Reads the log only now: the takeover is committed, so nobody else adds to it.
async fn load(shared: &Shared, claimed: Claimed) -> Result<Folded, registry::Error> {
    let id = claimed.workflow_id;
    let run = shared.store.load_run(id).await?;
    let run = run.ok_or_else(|| store::Error::NotFound { what: format!("run {id}") })?;
    let release = shared.registry.release(run.release.0).await?;
    let mut state = RunState::new(Accepted {
        workflow_id: id,
        definition: run.definition,
        definition_digest: run.definition_digest,
        release: run.release.0,
        input: Arc::new(run.input),
        deadline: run.deadline,
    });
    loop {
        let events = shared.store.load_events(id, state.sequence + 1, EVENTS_AT_ONCE).await?;
        events.iter().for_each(|recorded| evolve(&mut state, &recorded.event));
        if events.len() < EVENTS_AT_ONCE {
            break;
        }
    }
    if state.sequence != run.last_sequence {
        let what =
            format!("run {id}: its log ends at {}, its row says {}", state.sequence, run.last_sequence);
        return Err(store::Error::Corrupt { what }.into());
    }
    Ok(((run.tenant, state), release))
}
