//! Decides what to do with a run, as a function of its plan, its state and the current instant.
//!
//! The shell asks [`decide`] again and again and carries out the commands. It records the events that are due, and keeps
//! exactly the requested attempts in flight: it interrupts an attempt that is no longer requested. It asks again when an
//! attempt has ended, or when the earliest awaited instant has come. [`react`] does the recording: it turns a signal into
//! all the events that follow from it at once, which form one transition.

use std::sync::Arc;

use serde_json::Value;

use crate::eval::{self, Env};
use crate::event::{Author, Cause, Cost, Event, Failure, FailureCode};
use crate::order::{self, Order};
use crate::plan::{Backoff, Plan, Retry, Step, StepName};
use crate::state::{Progress, RunState, Status, evolve};
use crate::time::Timestamp;
use crate::transition::{Driver, RunRecord};

/// A step fails when one attempt at it has lost this many hosts. Otherwise a step that kills its host could kill them all.
pub const MAX_RERUNS: u32 = 3;

/// A request to the shell.
#[expect(clippy::large_enum_variant, reason = "a handful at a time, and gone at once")]
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Record this event now, then decide again on the state after it.
    Record(Event),
    /// Keep this attempt in flight.
    Run(Attempt),
    /// Decide again at this instant, if nothing else happens before.
    WaitUntil(Timestamp),
}

/// One try at a step or at its compensation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    pub step: StepName,
    pub direction: Direction,
    /// Counts from 1.
    pub number: u32,
    /// How many hosts this attempt has lost.
    pub rerun: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Forward,
    Undo,
}

/// An outside occurrence that a run reacts to.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Time has passed or a slot is free: record what is due.
    Tick,
    Ended(Attempt, Ending),
    /// The host that ran the attempts in flight is gone, and so are the attempts.
    HostLost,
    Ordered(Order),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    pub result: Result<Arc<Value>, Failure>,
    pub cost: Cost,
}

/// Why a signal changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The attempt was interrupted or another one took its place, so its result must not be recorded.
    #[error("attempt {} at `{}` is not in flight any more", .0.number, .0.step)]
    LateResult(Attempt),
    #[error("the run is over: {0}")]
    Over(Status),
    #[error("the run is {0}: no step of it is being undone")]
    NotUndoing(Status),
    #[error("`{0}` has no compensation to run: the step never started, has none, or isn't in the workflow")]
    NothingToUndo(StepName),
    /// The order makes no sense for a compensation in this state.
    #[error("the compensation of `{step}` is {state} already")]
    Already { step: StepName, state: &'static str },
}

/// Returns all events that follow at once from `signal`. There are none if nothing is due.
///
/// # Errors
/// The signal comes too late or makes no sense for the run. Nothing has to be recorded then.
pub fn react(plan: &Plan, state: &RunState, signal: Signal, now: Timestamp) -> Result<Reaction, Refused> {
    let mut reaction = Reaction { state: state.clone(), events: Vec::new() };
    let first = match signal {
        Signal::Tick => Vec::new(),
        Signal::Ended(attempt, ending) => vec![ended(plan, state, attempt, ending, now)?],
        Signal::HostLost => host_lost(state),
        Signal::Ordered(order) => order::obey(state, order)?,
    };
    first.into_iter().for_each(|event| reaction.push(event));
    loop {
        let due: Vec<Event> = decide(plan, &reaction.state, now)
            .into_iter()
            .filter_map(|command| match command {
                Command::Record(event) => Some(event),
                Command::Run(_) | Command::WaitUntil(_) => None,
            })
            .collect();
        if due.is_empty() {
            return Ok(reaction);
        }
        due.into_iter().for_each(|event| reaction.push(event));
    }
}

/// Events to record together, and the state after them.
#[derive(Clone, Debug, PartialEq)]
pub struct Reaction {
    pub state: RunState,
    pub events: Vec<Event>,
}

impl Reaction {
    fn push(&mut self, event: Event) {
        evolve(&mut self.state, &event);
        self.events.push(event);
    }
}

/// Returns what to do now.
pub fn decide(plan: &Plan, state: &RunState, now: Timestamp) -> Vec<Command> {
    match state.status {
        Status::Ready | Status::Running => forward(plan, state, now),
        Status::Compensating => undo(state, now),
        Status::Completed | Status::Failed | Status::Compensated | Status::CompensationFailed => Vec::new(),
    }
}

/// Returns the content of the run's row for `state`. A run that only waits is handed back until the instant it waits for.
pub fn record(plan: &Plan, state: &RunState, now: Timestamp) -> RunRecord {
    let commands = decide(plan, state, now);
    let runs = commands.iter().any(|command| matches!(command, Command::Run(_)));
    let driver = match earliest_wait(&commands) {
        _ if state.status.is_over() => Driver::Nobody,
        Some(at) if !runs => Driver::ClaimableAt(at),
        _ => Driver::Owner,
    };
    RunRecord {
        status: state.status,
        cause: state.failed.as_ref().map(|failed| failed.cause),
        result: state.result.clone(),
        error: state.error().cloned(),
        driver,
    }
}

/// Returns the instant at which to decide again if nothing else happens.
pub fn earliest_wait(commands: &[Command]) -> Option<Timestamp> {
    let waits = commands.iter().filter_map(|command| match command {
        Command::WaitUntil(at) => Some(*at),
        _ => None,
    });
    waits.min()
}

fn forward(plan: &Plan, state: &RunState, now: Timestamp) -> Vec<Command> {
    let failed = state.steps.iter().find_map(|(name, step)| match &step.progress {
        Progress::Failed(failure) => Some((name, failure)),
        _ => None,
    });
    if let Some((step, failure)) = failed {
        return records(fail(state, Cause::Step, Some(step.clone()), failure.clone(), Author::default()));
    }
    if now >= state.accepted.deadline {
        let failure = Failure::new(FailureCode::Timeout, "the workflow's timeout passed");
        return records(fail(state, Cause::Timeout, None, failure, Author::default()));
    }
    if state.status == Status::Ready {
        return records(vec![Event::WorkflowStarted {
            definition: state.accepted.definition.clone(),
            definition_digest: state.accepted.definition_digest,
            release: state.accepted.release,
            input: Arc::clone(&state.accepted.input),
        }]);
    }
    if plan.steps.iter().all(|step| state.is_passed(&step.name)) {
        let last = plan.steps.last().and_then(|step| state.value(&step.name));
        return records(vec![Event::WorkflowCompleted { result: last.cloned().unwrap_or_default() }]);
    }
    let mut commands: Vec<Command> =
        plan.steps.iter().filter_map(|step| next(plan, step, state, now)).collect();
    commands.push(Command::WaitUntil(state.accepted.deadline));
    commands
}

/// The command for one step, or `None` if the step has ended or waits for its dependencies.
fn next(plan: &Plan, step: &Step, state: &RunState, now: Timestamp) -> Option<Command> {
    let started = |attempt| {
        let compensable = step.compensation.is_some();
        Command::Record(Event::StepStarted { step: step.name.clone(), attempt, rerun: 0, compensable })
    };
    match state.steps.get(&step.name).map(|step| &step.progress) {
        None if !step.depends_on.iter().all(|name| state.is_passed(name)) => None,
        None => Some(match is_wanted(plan, step, state) {
            Ok(true) => started(1),
            Ok(false) => Command::Record(Event::StepSkipped { step: step.name.clone() }),
            // The step never began, so there is nothing to undo.
            Err(error) => Command::Record(Event::StepFailed {
                step: step.name.clone(),
                attempt: 0,
                error,
                cost: Cost::default(),
            }),
        }),
        Some(Progress::Waiting { attempt, at }) if now >= *at => Some(started(*attempt)),
        Some(Progress::Waiting { at, .. }) => Some(Command::WaitUntil(*at)),
        Some(Progress::InFlight { attempt, rerun }) => {
            Some(run(&step.name, Direction::Forward, *attempt, *rerun))
        }
        Some(
            Progress::Registered
            | Progress::Completed
            | Progress::Failed(_)
            | Progress::Skipped
            | Progress::Cancelled
            | Progress::Settled,
        ) => None,
    }
}

fn is_wanted(plan: &Plan, step: &Step, state: &RunState) -> Result<bool, Failure> {
    let Some(when) = &step.when else { return Ok(true) };
    match eval::pure(when, Env::new(plan, state))? {
        Value::Bool(wanted) => Ok(wanted),
        other => Err(Failure::new(FailureCode::Type, format!("`when` takes true or false, not `{other}`"))),
    }
}

/// The events by which the run fails: the steps under way are cancelled, and the started steps will be undone, last first.
pub(crate) fn fail(
    state: &RunState,
    cause: Cause,
    step: Option<StepName>,
    error: Failure,
    author: Author,
) -> Vec<Event> {
    let stopped = state.steps.iter().filter_map(|(name, step)| match step.progress {
        Progress::InFlight { attempt, .. } | Progress::Waiting { attempt, .. } => {
            Some(Event::StepCancelled { step: name.clone(), attempt })
        }
        _ => None,
    });
    let compensations = state.stack.iter().rev().cloned().collect();
    stopped.chain([Event::WorkflowFailed { cause, step, error, compensations, author }]).collect()
}

/// Compensations run one at a time: the one in flight goes on, otherwise the first that is not over begins.
fn undo(state: &RunState, now: Timestamp) -> Vec<Command> {
    let running = state.undoing.iter().find(|undo| matches!(undo.progress, Progress::InFlight { .. }));
    let Some(next) = running.or_else(|| state.undoing.iter().find(|undo| !undo.is_over())) else {
        return records(vec![all_undone(state)]);
    };
    let step = &next.step;
    let started =
        |attempt| Command::Record(Event::CompensationStarted { step: step.clone(), attempt, rerun: 0 });
    vec![match next.progress {
        Progress::Waiting { attempt, at } if now >= at => started(attempt),
        Progress::Waiting { at, .. } => Command::WaitUntil(at),
        Progress::InFlight { attempt, rerun } => run(step, Direction::Undo, attempt, rerun),
        Progress::Registered
        | Progress::Completed
        | Progress::Failed(_)
        | Progress::Skipped
        | Progress::Cancelled
        | Progress::Settled => started(next.attempts + 1),
    }]
}

fn all_undone(state: &RunState) -> Event {
    let failed: Vec<StepName> = state
        .undoing
        .iter()
        .filter(|undo| matches!(undo.progress, Progress::Failed(_)))
        .map(|undo| undo.step.clone())
        .collect();
    match failed.is_empty() {
        true => Event::WorkflowCompensated {},
        false => Event::WorkflowCompensationFailed { failed },
    }
}

fn ended(
    plan: &Plan,
    state: &RunState,
    attempt: Attempt,
    ending: Ending,
    now: Timestamp,
) -> Result<Event, Refused> {
    let progress = match attempt.direction {
        Direction::Forward => state.steps.get(&attempt.step).map(|step| &step.progress),
        Direction::Undo => state.undo(&attempt.step).map(|undo| &undo.progress),
    };
    // An operator's retry begins with a new budget of attempts, and with the shortest wait.
    let spent = match attempt.direction {
        Direction::Forward => 0,
        Direction::Undo => state.undo(&attempt.step).map_or(0, |undo| undo.spent),
    };
    let awaited = Progress::InFlight { attempt: attempt.number, rerun: attempt.rerun };
    let (Some(step), true) = (plan.step(&attempt.step), progress == Some(&awaited)) else {
        return Err(Refused::LateResult(attempt));
    };
    let Ending { result, cost } = ending;
    let (step_name, number) = (attempt.step, attempt.number);
    let error = match (result, attempt.direction) {
        (Ok(value), Direction::Forward) => {
            return Ok(Event::StepCompleted { step: step_name, attempt: number, value, cost });
        }
        (Ok(value), Direction::Undo) => {
            return Ok(Event::CompensationCompleted { step: step_name, attempt: number, value, cost });
        }
        (Err(error), _) => error,
    };
    let retry = retry_of(plan, step, attempt.direction);
    if !error.code.is_retryable() || number >= retry.max_attempts.saturating_add(spent) {
        return Ok(match attempt.direction {
            Direction::Forward => Event::StepFailed { step: step_name, attempt: number, error, cost },
            Direction::Undo => Event::CompensationFailed { step: step_name, attempt: number, error, cost },
        });
    }
    let next_attempt = number + 1;
    let next_attempt_at = now.plus_millis(delay_ms(&retry, state, &step_name, number, spent));
    Ok(match attempt.direction {
        Direction::Forward => Event::StepRetryScheduled {
            step: step_name,
            attempt: number,
            error,
            next_attempt,
            next_attempt_at,
            cost,
        },
        Direction::Undo => Event::CompensationRetryScheduled {
            step: step_name,
            attempt: number,
            error,
            next_attempt,
            next_attempt_at,
            cost,
        },
    })
}

/// Every attempt in flight begins again under its own number, or fails if it has lost its host too often.
fn host_lost(state: &RunState) -> Vec<Event> {
    let lost = || {
        Failure::new(FailureCode::HostLost, format!("its host was lost {MAX_RERUNS} times in this attempt"))
    };
    let forward = state.steps.iter().filter_map(|(step, s)| match s.progress {
        Progress::InFlight { attempt, rerun } if rerun + 1 < MAX_RERUNS => Some(Event::StepStarted {
            step: step.clone(),
            attempt,
            rerun: rerun + 1,
            compensable: state.stack.contains(step),
        }),
        Progress::InFlight { attempt, .. } => {
            let cost = Cost::default();
            Some(Event::StepFailed { step: step.clone(), attempt, error: lost(), cost })
        }
        _ => None,
    });
    let undo = state.undoing.iter().filter_map(|undo| match undo.progress {
        Progress::InFlight { attempt, rerun } if rerun + 1 < MAX_RERUNS => {
            Some(Event::CompensationStarted { step: undo.step.clone(), attempt, rerun: rerun + 1 })
        }
        Progress::InFlight { attempt, .. } => {
            let cost = Cost::default();
            Some(Event::CompensationFailed { step: undo.step.clone(), attempt, error: lost(), cost })
        }
        _ => None,
    });
    forward.chain(undo).collect()
}

/// The `retry` of the workflow is the default for its steps. A compensation has five attempts unless its own block says
/// otherwise, since a step that is tried rarely must still be undone.
fn retry_of(plan: &Plan, step: &Step, direction: Direction) -> Retry {
    match direction {
        Direction::Forward => {
            step.retry.as_ref().or(plan.retry.as_ref()).cloned().unwrap_or_else(Retry::of_steps)
        }
        Direction::Undo => {
            let own = step.compensation.as_ref().and_then(|compensation| compensation.retry.as_ref());
            own.cloned().unwrap_or_else(Retry::of_compensations)
        }
    }
}

/// How long after the failed attempt `number` the next one begins: the backoff, ±20 %, and at most the maximal delay. The
/// first `spent` attempts belong to earlier budgets.
fn delay_ms(retry: &Retry, state: &RunState, step: &str, number: u32, spent: u32) -> u64 {
    let initial = retry.initial_delay_ms;
    let nth = number.saturating_sub(spent).max(1);
    let delay = match retry.backoff {
        Backoff::Constant => initial,
        Backoff::Linear => initial.saturating_mul(nth.into()),
        Backoff::Exponential => initial.saturating_mul(1 << (nth - 1).min(40)),
    };
    let delay = delay.min(retry.max_delay_ms);
    // A factor of 0.8 to 1.2 in thousandths. It is a hash of the run, step and attempt, so a replay computes it again.
    let thousandths = 800 + jitter(state.accepted.workflow_id.0.as_bytes(), step, number) % 401;
    let jittered = u128::from(delay) * u128::from(thousandths) / 1_000;
    u64::try_from(jittered).unwrap_or(u64::MAX).min(retry.max_delay_ms)
}

/// FNV-1a, which is the same in all versions and on all platforms. The standard hasher doesn't promise that.
fn jitter(workflow_id: &[u8], step: &str, number: u32) -> u64 {
    let bytes = workflow_id.iter().copied().chain(step.bytes()).chain(number.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}

fn run(step: &StepName, direction: Direction, number: u32, rerun: u32) -> Command {
    Command::Run(Attempt { step: step.clone(), direction, number, rerun })
}

fn records(events: Vec<Event>) -> Vec<Command> {
    events.into_iter().map(Command::Record).collect()
}
