//! One task per run that is under way: keeps the attempts in flight that the core asks for, and commits what becomes of
//! them, one transition at a time.

use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Cost, Failure, FailureCode};
use aster_core::id::{Fence, HostId, ReleaseId, TenantId};
use aster_core::keyvalue::{Effects, Key};
use aster_core::saga::{self, Attempt, Command, Direction, Ending, Signal};
use aster_core::state::RunState;
use aster_core::transition::{Driver, RunRecord, Transition};
use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, error, warn};

use crate::Error;
use crate::attempt::{self, AttemptOutcome};
use crate::crash;
use crate::drivers::Contact;
use crate::ends::{End, cut};
use crate::in_flight::InFlight;
use crate::key_queues::Turn;
use crate::ports::Release;
use crate::shared::{HANDED_BACK_FOR_MS, Shared};

/// A run that waits longer than this for its next instant isn't kept in memory for it.
const SHORT_WAIT: Duration = Duration::from_millis(100);

/// A run that this host owns.
#[derive(Debug)]
pub(crate) struct Drive {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: HostId,
    pub(crate) fence: Fence,
    pub(crate) tenant: TenantId,
    /// For the log.
    pub(crate) key: Option<String>,
    pub(crate) release: Release,
    pub(crate) state: Arc<RunState>,
    /// What the run's row says; none if others may have written it.
    pub(crate) row: Option<RunRecord>,
    pub(crate) contact: Arc<Contact>,
    /// Its place among the active runs, given back when this is dropped.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What a transition led to.
#[derive(Debug, PartialEq)]
enum Flow {
    Go,
    /// The run is over, or waits without anything in flight.
    Rest,
    /// The run belongs to someone else, or can't go on here.
    Lost,
}

/// What an attempt touched whose reads were stale: it waits for its turn at these keys before it runs again.
pub(crate) type Touched = Vec<Key>;

/// An attempt that has ended, with its turn at its keys if it had to queue for them.
pub(crate) type Finished = (Attempt, AttemptOutcome, Option<Turn>);

impl Drive {
    /// Drives the run until it is over, waits, or is lost.
    pub(crate) async fn run(mut self, first: Option<Signal>) {
        self.contact.doing.waits(false);
        let mut in_flight = InFlight::default();
        let mut flow = match first {
            Some(signal) => self.advance(signal, Effects::default(), None, &mut in_flight).await,
            None => Flow::Go,
        };
        while flow == Flow::Go {
            flow = self.proceed(&mut in_flight).await;
        }
    }

    /// Lets one thing happen.
    async fn proceed(&mut self, in_flight: &mut InFlight) -> Flow {
        // First, so that a run that was cancelled before it began does not begin.
        if self.contact.ordered.notified().now_or_never().is_some() {
            return self.obey(in_flight).await;
        }
        let now = self.shared.clock.now();
        let commands = saga::decide(&self.release.plan, &self.state, now);
        if commands.iter().any(|command| matches!(command, Command::Record(_))) {
            return self.advance(Signal::Tick, Effects::default(), None, in_flight).await;
        }
        self.reconcile(&commands, in_flight);
        let alarm = saga::earliest_wait(&commands).map(|at| at.since(now));
        let nothing_to_do = in_flight.is_empty() && alarm.is_none_or(|alarm| alarm > SHORT_WAIT);
        self.contact.doing.waits(in_flight.is_empty());
        tokio::select! {
            biased;
            () = self.contact.ordered.notified() => self.obey(in_flight).await,
            finished = in_flight.next() => self.finish(finished, in_flight).await,
            () = sleep(alarm) => self.advance(Signal::Tick, Effects::default(), None, in_flight).await,
            // It was claimed for an order that changed nothing.
            () = std::future::ready(()), if nothing_to_do => self.rest().await,
        }
    }

    /// Carries out what people want of the run, the oldest order first.
    async fn obey(&mut self, in_flight: &mut InFlight) -> Flow {
        self.contact.doing.waits(false);
        let orders = match self.shared.journal.orders(self.id()).await {
            Ok(orders) => orders,
            Err(error) => {
                // They are still there: it will be told again, or woken.
                warn!(run.id = %self.id(), %error, "could not read the orders for a run");
                return Flow::Go;
            }
        };
        for order in orders {
            let order_id = order.author.order_id;
            let flow = self.advance(Signal::Ordered(order), Effects::default(), None, in_flight).await;
            if flow == Flow::Lost {
                return flow;
            }
            // What is left behind does nothing: the log names what was carried out.
            if let Some(order_id) = order_id
                && let Err(error) = self.shared.journal.forget_order(self.id(), order_id).await
            {
                warn!(run.id = %self.id(), %error, "could not forget an order");
            }
            if flow == Flow::Rest {
                // Whoever claims the run finds the others.
                return flow;
            }
        }
        Flow::Go
    }

    /// Gives a run back in which nothing has happened and nothing will for a while.
    async fn rest(&mut self) -> Flow {
        self.contact.doing.waits(false);
        let now = self.shared.clock.now();
        let transition = Transition {
            workflow_id: self.id(),
            fence: self.fence,
            last_sequence: self.state.sequence,
            at: now,
            was: self.state.status,
            is_quiet: false,
            events: Vec::new(),
            effects: Effects::default(),
            run: saga::record(&self.release.plan, &self.state, now),
        };
        let run = transition.run.clone();
        match self.shared.journal.commit(self.host, transition, None).await {
            Ok(_) => {
                self.shared.measures.add_commit();
                self.shared.pass_on(self.id(), now, &run);
                Flow::Rest
            }
            Err(Error::NotCommitted { fence }) => {
                self.fence = fence;
                Flow::Go
            }
            Err(error) => {
                debug!(run.id = %self.id(), %error, "a run that waits could not be given back");
                Flow::Lost
            }
        }
    }

    /// Starts the attempts that are asked for and interrupts all others.
    fn reconcile(&self, commands: &[Command], in_flight: &mut InFlight) {
        let wanted: Vec<&Attempt> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Run(attempt) => Some(attempt),
                Command::Record(_) | Command::WaitUntil(_) => None,
            })
            .collect();
        in_flight.keep_only(&wanted);
        for attempt in wanted {
            if !in_flight.has(attempt) {
                let touched = in_flight.touched.get(attempt).cloned();
                in_flight.begin(
                    run_attempt(
                        Arc::clone(&self.shared),
                        self.tenant.clone(),
                        self.release.clone(),
                        Arc::clone(&self.state),
                        Arc::clone(&self.contact),
                        attempt.clone(),
                        touched,
                    ),
                    attempt,
                );
            }
        }
    }

    async fn finish(&mut self, finished: Finished, in_flight: &mut InFlight) -> Flow {
        let (attempt, outcome, turn) = finished;
        self.shared.measures.record(&outcome.cost, outcome.result.as_ref().err().map(|failure| failure.code));
        if let Err(failure) = &outcome.result {
            debug!(
                run.id = %self.id(), step.name = %attempt.step, attempt.number, attempt.direction = ?attempt.direction,
                component.digest = outcome.cost.digest.map(tracing::field::display), error.code = failure.code.as_str(),
                error.message = cut(&failure.message), "an attempt failed"
            );
        }
        let effects = match outcome.result {
            Ok(_) => outcome.effects,
            Err(_) => outcome.effects.without_writes(),
        };
        let ending = Ending { result: outcome.result, cost: outcome.cost };
        self.advance(Signal::Ended(attempt, ending), effects, turn, in_flight).await
    }

    /// Makes of `signal` a transition and sees it committed, whatever that takes.
    async fn advance(
        &mut self,
        mut signal: Signal,
        mut effects: Effects,
        mut turn: Option<Turn>,
        in_flight: &mut InFlight,
    ) -> Flow {
        self.contact.doing.waits(false);
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
            let run = saga::record(&self.release.plan, &reaction.state, now);
            let transition = Transition {
                workflow_id: self.id(),
                fence: self.fence,
                last_sequence: self.state.sequence,
                at: now,
                was: self.state.status,
                is_quiet: self.row.as_ref() == Some(&run),
                events: reaction.events,
                effects: effects.clone(),
                run: run.clone(),
            };
            crash::point("before-commit");
            match self.shared.journal.commit(self.host, transition, turn.take()).await {
                Ok(committed) => {
                    self.fence = committed.fence;
                    self.shared.measures.add_commit();
                    crash::point("after-commit");
                }
                Err(Error::NotCommitted { fence }) => {
                    self.fence = fence;
                    continue;
                }
                Err(Error::Conflict { keys }) => {
                    if let Signal::Ended(attempt, _) = signal {
                        debug!(run.id = %self.id(), step.name = %attempt.step, "read what others changed: runs again");
                        in_flight.rerun(&attempt, keys, &effects);
                    }
                    return Flow::Go;
                }
                Err(Error::NotOwner { held, current }) => {
                    warn!(run.id = %self.id(), held = held.0, current = current.0, "the run belongs to another host now");
                    return Flow::Lost;
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
                        return Flow::Lost;
                    }
                },
            }
            self.state = Arc::new(reaction.state);
            if run.driver == Driver::Nobody {
                End { tenant: &self.tenant, key: self.key.as_deref(), state: &self.state, at: now }.tell();
            }
            let goes_on = self.shared.pass_on(self.id(), now, &run);
            self.row = Some(run);
            return if goes_on { Flow::Go } else { Flow::Rest };
        }
    }

    fn id(&self) -> aster_core::id::WorkflowId {
        self.state.accepted.workflow_id
    }
}

/// One attempt, from its turn at the keys to its outcome. It queues for what it has `touched` in vain, and for what others queue
/// for: then it runs again when its turn has come, since it would be overtaken otherwise.
async fn run_attempt(
    shared: Arc<Shared>,
    tenant: TenantId,
    release: Release,
    state: Arc<RunState>,
    contact: Arc<Contact>,
    attempt: Attempt,
    touched: Option<Touched>,
) -> Finished {
    let release = match repair_release(&state, &attempt) {
        None => release,
        Some(id) => match attempt::other_release(&shared, id).await {
            Ok(release) => release,
            Err(failure) => return (attempt, AttemptOutcome::failed(failure), None),
        },
    };
    let doing = &contact.doing;
    let take_turn = async |keys| {
        let _queues = doing.queue();
        shared.key_queues.take(keys).await
    };
    let mut turn = match touched {
        Some(keys) => Some(take_turn(keys).await),
        None => None,
    };
    let mut outcome = attempt::execute(&shared, &tenant, &release, &state, doing, &attempt).await;
    if turn.is_none() && shared.key_queues.contended(outcome.effects.keys()) {
        turn = Some(take_turn(outcome.effects.keys().cloned().collect()).await);
        outcome = attempt::execute(&shared, &tenant, &release, &state, doing, &attempt).await;
    }
    (attempt, outcome, turn)
}

/// The release that an operator wants for a compensation instead of the run's own.
fn repair_release(state: &RunState, attempt: &Attempt) -> Option<ReleaseId> {
    match attempt.direction {
        Direction::Forward => None,
        Direction::Undo => state.undo(&attempt.step)?.release.map(ReleaseId),
    }
}

/// The signal that an attempt failed because the store refused what it led to; `None` if no attempt is to blame.
fn refused(signal: Signal, refusal: &Error) -> Option<Signal> {
    let (Signal::Ended(attempt, ending), Error::Refused { reason }) = (signal, refusal) else {
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
