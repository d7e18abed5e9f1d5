//! One task per run that is under way: keeps the attempts in flight that the core asks for, and commits what becomes of
//! them, one transition at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Cost, Failure, FailureCode};
use aster_core::id::{Fence, TenantId};
use aster_core::keyvalue::{Effects, Key};
use aster_core::saga::{self, Attempt, Command, Ending, Signal};
use aster_core::state::RunState;
use aster_core::transition::Transition;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, error, warn};

use super::attempt::{self, Landed};
use super::turns::Turn;
use super::{HANDED_BACK_FOR_MS, Shared};
use crate::crash;
use crate::registry::Release;
use crate::store::{self, HostId};

/// After so many reruns for stale reads a step waits for its turn at the keys.
const RERUNS_BEFORE_TURN: u32 = 2;

/// A run that this host owns.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) shared: Arc<Shared>,
    pub(super) host: HostId,
    pub(super) fence: Fence,
    pub(super) tenant: TenantId,
    pub(super) release: Arc<Release>,
    pub(super) state: Arc<RunState>,
    /// Its place among the active runs, given back when this is dropped.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) permit: OwnedSemaphorePermit,
}

/// What a transition led to.
#[derive(Debug, PartialEq)]
enum Flow {
    Go,
    /// The run is over, waits without anything in flight, or belongs to someone else.
    Stop,
}

/// The reads of an attempt that were stale, and what it touched.
#[derive(Clone, Debug, Default)]
struct Conflicts {
    count: u32,
    keys: Vec<Key>,
}

/// An attempt that is back, with its turn at its keys if it had to queue for them.
type Flown = (Attempt, Landed, Option<Turn>);

impl Drive {
    /// Drives the run until it is over, waits, or is lost.
    pub(super) async fn run(mut self, first: Option<Signal>) {
        let mut flights = Flights::default();
        if let Some(signal) = first
            && self.advance(signal, Effects::default(), &mut flights).await == Flow::Stop
        {
            return;
        }
        loop {
            let now = self.shared.clock.now();
            let commands = saga::decide(&self.release.plan, &self.state, now);
            if commands.iter().any(|command| matches!(command, Command::Record(_))) {
                if self.advance(Signal::Tick, Effects::default(), &mut flights).await == Flow::Stop {
                    return;
                }
                continue;
            }
            self.reconcile(&commands, &mut flights);
            let alarm = saga::earliest_wait(&commands).map(|at| at.since(now));
            let flow = tokio::select! {
                flown = flights.next() => self.land(flown, &mut flights).await,
                () = sleep(alarm) => self.advance(Signal::Tick, Effects::default(), &mut flights).await,
            };
            if flow == Flow::Stop {
                return;
            }
        }
    }

    /// Starts the attempts that are asked for and interrupts all others.
    fn reconcile(&self, commands: &[Command], flights: &mut Flights) {
        let wanted: Vec<&Attempt> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Run(attempt) => Some(attempt),
                Command::Record(_) | Command::WaitUntil(_) => None,
            })
            .collect();
        flights.keep_only(&wanted);
        for attempt in wanted {
            if flights.handles.contains_key(attempt) {
                continue;
            }
            let conflicts = flights.conflicts.get(attempt).cloned().unwrap_or_default();
            let flight = fly(
                Arc::clone(&self.shared),
                self.tenant.clone(),
                Arc::clone(&self.release),
                Arc::clone(&self.state),
                attempt.clone(),
                conflicts,
            );
            let handle = flights.tasks.spawn(flight);
            flights.handles.insert(attempt.clone(), handle);
        }
    }

    async fn land(&mut self, flown: Flown, flights: &mut Flights) -> Flow {
        let (attempt, landed, turn) = flown;
        self.shared.measures.record(&landed.cost, landed.result.as_ref().err().map(|failure| failure.code));
        let effects = match landed.result {
            Ok(_) => landed.effects,
            Err(_) => landed.effects.without_writes(),
        };
        let ending = Ending { result: landed.result, cost: landed.cost };
        let flow = self.advance(Signal::Ended(attempt, ending), effects, flights).await;
        drop(turn);
        flow
    }

    /// Makes of `signal` a transition and sees it committed, whatever that takes.
    async fn advance(&mut self, signal: Signal, effects: Effects, flights: &mut Flights) -> Flow {
        let mut signal = signal;
        let mut effects = effects;
        loop {
            let now = self.shared.clock.now();
            let reaction = match saga::react(&self.release.plan, &self.state, signal.clone(), now) {
                Ok(reaction) => reaction,
                Err(refused) => {
                    debug!(run.id = %self.id(), "{refused}");
                    return Flow::Go;
                }
            };
            if reaction.events.is_empty() {
                return Flow::Go;
            }
            let transition = Transition {
                workflow_id: self.id(),
                fence: self.fence,
                last_sequence: self.state.sequence,
                at: now,
                events: reaction.events,
                effects: effects.clone(),
                run: saga::record(&self.release.plan, &reaction.state, now),
            };
            let driver = transition.run.driver;
            crash::point("before-commit");
            match self.shared.store.commit(self.host, transition).await {
                Ok(committed) => {
                    self.fence = committed.fence;
                    crash::point("after-commit");
                }
                Err(store::Error::NotCommitted { fence }) => {
                    self.fence = fence;
                    continue;
                }
                Err(store::Error::Conflict { keys }) => {
                    if let Signal::Ended(attempt, _) = signal {
                        debug!(run.id = %self.id(), step.name = %attempt.step, "read what others changed: runs again");
                        flights.rerun(&attempt, keys, &effects);
                    }
                    return Flow::Go;
                }
                Err(store::Error::NotOwner { held, current }) => {
                    warn!(run.id = %self.id(), held = held.0, current = current.0, "the run belongs to another host now");
                    return Flow::Stop;
                }
                Err(refusal) => match refused(signal, &refusal) {
                    // What the step wrote or answered can't be stored: that step fails, and the run goes on from there.
                    Some(failed) => {
                        signal = failed;
                        effects = effects.without_writes();
                        continue;
                    }
                    None => {
                        error!(run.id = %self.id(), error = %refusal, "the run can't go on here");
                        self.shared.hand_back(self.host, self.id(), self.fence, HANDED_BACK_FOR_MS).await;
                        return Flow::Stop;
                    }
                },
            }
            self.state = Arc::new(reaction.state);
            return if self.shared.pass_on(self.id(), driver) { Flow::Go } else { Flow::Stop };
        }
    }

    fn id(&self) -> aster_core::id::WorkflowId {
        self.state.accepted.workflow_id
    }
}

/// The attempts in flight. Dropping it interrupts them all.
#[derive(Debug, Default)]
struct Flights {
    tasks: JoinSet<Flown>,
    handles: HashMap<Attempt, AbortHandle>,
    conflicts: HashMap<Attempt, Conflicts>,
}

impl Flights {
    /// The next attempt that comes back; waits forever if none is in flight.
    async fn next(&mut self) -> Flown {
        loop {
            match self.tasks.join_next().await {
                // An interrupted attempt may have come back just before.
                Some(Ok(flown)) if self.handles.contains_key(&flown.0) => return flown,
                Some(Ok(_)) => {}
                Some(Err(failed)) => {
                    let whose = self.handles.iter().find(|(_, handle)| handle.id() == failed.id());
                    if let Some((attempt, _)) = whose
                        && failed.is_panic()
                    {
                        error!(step.name = %attempt.step, error = %failed, "the host panicked while it ran a step");
                        return (attempt.clone(), Landed::panicked(), None);
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    fn keep_only(&mut self, wanted: &[&Attempt]) {
        self.handles.retain(|attempt, handle| {
            let is_wanted = wanted.contains(&attempt);
            if !is_wanted {
                handle.abort();
            }
            is_wanted
        });
        self.conflicts.retain(|attempt, _| wanted.contains(&attempt));
    }

    fn rerun(&mut self, attempt: &Attempt, stale: Vec<Key>, effects: &Effects) {
        self.handles.remove(attempt);
        let conflicts = self.conflicts.entry(attempt.clone()).or_default();
        conflicts.count += 1;
        conflicts.keys = stale;
        conflicts.keys.extend(effects.keys().cloned());
    }
}

/// One attempt, from its turn at the keys to its landing.
async fn fly(
    shared: Arc<Shared>,
    tenant: TenantId,
    release: Arc<Release>,
    state: Arc<RunState>,
    attempt: Attempt,
    conflicts: Conflicts,
) -> Flown {
    let mut turn = None;
    if conflicts.count >= RERUNS_BEFORE_TURN {
        turn = Some(shared.turns.take(conflicts.keys).await);
    }
    let landed = attempt::execute(&shared, &tenant, &release, &state, &attempt).await;
    if turn.is_none() && shared.turns.contended(landed.effects.keys()) {
        turn = Some(shared.turns.take(landed.effects.keys().cloned().collect()).await);
    }
    (attempt, landed, turn)
}

/// The signal that an attempt failed because the store refused what it led to; `None` if no attempt is to blame.
fn refused(signal: Signal, refusal: &store::Error) -> Option<Signal> {
    let (Signal::Ended(attempt, ending), store::Error::Refused { reason }) = (signal, refusal) else {
        return None;
    };
    let already = matches!(&ending.result, Err(failure) if failure.code == FailureCode::Storage);
    let failure = Failure::new(FailureCode::Storage, format!("the database refused it: {reason}"));
    let cost = Cost { output: None, ..ending.cost };
    (!already).then_some(Signal::Ended(attempt, Ending { result: Err(failure), cost }))
}

async fn sleep(alarm: Option<Duration>) {
    match alarm {
        Some(alarm) => tokio::time::sleep(alarm).await,
        None => std::future::pending().await,
    }
}
