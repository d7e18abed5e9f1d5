//! The state of a run: the fold of its events.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::event::{Author, Cause, Cost, Event, Failure};
use crate::id::{Digest, WorkflowId};
use crate::plan::StepName;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Accepted and durable, but not started: the run has no events yet.
    Ready,
    Running,
    Completed,
    /// The run failed with nothing to undo.
    Failed,
    Compensating,
    /// The run failed, and every registered compensation succeeded.
    Compensated,
    /// At least one compensation failed for good, and an operator has to act.
    CompensationFailed,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Self::Ready,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Compensating,
        Self::Compensated,
        Self::CompensationFailed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Compensating => "COMPENSATING",
            Self::Compensated => "COMPENSATED",
            Self::CompensationFailed => "COMPENSATION_FAILED",
        }
    }

    /// Whether the run has ended. Only an operator can make it go on.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Ready | Self::Running | Self::Compensating)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| UnknownStatus(text.into()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a status: expected READY, RUNNING, COMPLETED, FAILED, COMPENSATING, COMPENSATED or COMPENSATION_FAILED"
)]
pub struct UnknownStatus(String);

/// The facts that acceptance fixes, before any event.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub workflow_id: WorkflowId,
    pub definition: String,
    pub definition_digest: Digest,
    pub release: i64,
    pub input: Arc<Value>,
    /// The instant at which the run times out.
    pub deadline: Timestamp,
}

/// The state of a run after some prefix of its log.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    pub accepted: Accepted,
    pub status: Status,
    /// The sequence of the last event, or 0 before the first one.
    pub sequence: u64,
    /// The steps that have begun, were skipped, or failed before they began. Missing steps are still to come.
    pub steps: BTreeMap<StepName, StepState>,
    /// The steps with a registered compensation, in the order in which they first started.
    pub stack: Vec<StepName>,
    pub failed: Option<RunFailure>,
    /// The compensations, in the order in which they run. Empty until the run has failed.
    pub undoing: Vec<Undo>,
    pub result: Option<Arc<Value>>,
    /// The ids of the orders that were carried out, in that order.
    pub orders: Vec<Uuid>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RunFailure {
    pub cause: Cause,
    pub step: Option<StepName>,
    pub error: Failure,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StepState {
    pub progress: Progress,
    /// The value of a completed step; null for any other.
    pub value: Arc<Value>,
}

/// One compensation of a run that has failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Undo {
    pub step: StepName,
    pub progress: Progress,
    /// How many attempts have begun.
    pub attempts: u32,
    /// How many of them began before the last retry by an operator, which starts a new budget.
    pub spent: u32,
    /// The release whose components an operator wants to call. `None` means the run's own release.
    pub release: Option<i64>,
    /// The error of the newest failed attempt.
    pub error: Option<Failure>,
    /// The name and version of the component that was called last, from the newest ended attempt that made a call.
    pub component: Option<(String, Digest)>,
}

impl Undo {
    fn new(step: StepName) -> Self {
        Self {
            step,
            progress: Progress::Registered,
            attempts: 0,
            spent: 0,
            release: None,
            error: None,
            component: None,
        }
    }

    /// Whether the compensation has ended. Only an operator can make it go on.
    pub fn is_over(&self) -> bool {
        use Progress::{Completed, Failed, Settled, Skipped};
        matches!(self.progress, Completed | Failed(_) | Skipped | Settled)
    }

    /// The word for people: `pending`, `running`, `done`, `failed`, `skipped` or `settled`. A compensation that waits for
    /// another attempt is pending, too.
    pub fn state_name(&self) -> &'static str {
        match self.progress {
            Progress::Registered | Progress::Waiting { .. } | Progress::Cancelled => "pending",
            Progress::InFlight { .. } => "running",
            Progress::Completed => "done",
            Progress::Failed(_) => "failed",
            Progress::Skipped => "skipped",
            Progress::Settled => "settled",
        }
    }

    fn ended(&mut self, progress: Progress, error: Option<&Failure>, cost: &Cost) {
        self.progress = progress;
        if let Some(error) = error {
            self.error = Some(error.clone());
        }
        if let (Some(component), Some(digest)) = (&cost.component, cost.digest) {
            self.component = Some((component.clone(), digest));
        }
    }
}

/// The outcome of a step that has to be undone, as far as its compensation may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The step's value and writes were committed.
    Completed,
    /// The step had no effect: its host saw it end before any, or its components have no outbound grant.
    None,
    /// The step was cut off when an outbound call may already have been made.
    Unknown,
}

/// The progress of a step or of its compensation.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The compensation waits for its turn.
    Registered,
    InFlight {
        attempt: u32,
        /// How many hosts this attempt has lost.
        rerun: u32,
    },
    /// An attempt failed, and `attempt` begins at the instant `at`.
    Waiting {
        attempt: u32,
        at: Timestamp,
    },
    Completed,
    Failed(Failure),
    /// The step's `when` is false, or an operator skipped the compensation.
    Skipped,
    Cancelled,
    /// An operator did the compensation by hand.
    Settled,
}

impl RunState {
    pub fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            status: Status::Ready,
            sequence: 0,
            steps: BTreeMap::new(),
            stack: Vec::new(),
            failed: None,
            undoing: Vec::new(),
            result: None,
            orders: Vec::new(),
        }
    }

    /// Whether the step is completed or skipped, so that steps that depend on it may begin.
    pub fn is_passed(&self, step: &str) -> bool {
        matches!(
            self.steps.get(step).map(|step| &step.progress),
            Some(Progress::Completed | Progress::Skipped)
        )
    }

    /// The value of a step that has begun. It is null unless the step completed.
    pub fn value(&self, step: &str) -> Option<&Arc<Value>> {
        self.steps.get(step).map(|step| &step.value)
    }

    /// Why the run failed. Each compensation keeps its own error.
    pub fn error(&self) -> Option<&Failure> {
        self.failed.as_ref().map(|failed| &failed.error)
    }

    fn set(&mut self, step: &StepName, progress: Progress) {
        match self.steps.get_mut(step) {
            Some(state) => state.progress = progress,
            None => {
                self.steps.insert(step.clone(), StepState { progress, value: Arc::new(Value::Null) });
            }
        }
    }

    /// All compensations in the order in which they run, also before the run has failed. A completed run has none.
    pub fn compensations(&self) -> Vec<Undo> {
        match (&self.failed, self.status) {
            (Some(_), _) => self.undoing.clone(),
            (None, Status::Completed) => Vec::new(),
            (None, _) => self.stack.iter().rev().cloned().map(Undo::new).collect(),
        }
    }

    /// The outcome of a step. No component has an outbound grant yet, so a step that didn't complete had no effect.
    pub fn outcome(&self, step: &str) -> Outcome {
        match self.steps.get(step).map(|step| &step.progress) {
            Some(Progress::Completed) => Outcome::Completed,
            _ => Outcome::None,
        }
    }

    /// The compensation of a step. `None` until the run has failed, and for a step that has nothing to undo.
    pub fn undo(&self, step: &str) -> Option<&Undo> {
        self.undoing.iter().find(|undo| &*undo.step == step)
    }

    fn with_undo(&mut self, step: &StepName, change: impl FnOnce(&mut Undo)) {
        if let Some(undo) = self.undoing.iter_mut().find(|undo| undo.step == *step) {
            change(undo);
        }
    }

    /// Applies an operator's act to a compensation. The run is compensating again, even if nothing is left to undo.
    fn operate(&mut self, step: &StepName, author: &Author, change: impl FnOnce(&mut Undo)) {
        self.orders.extend(author.order_id);
        self.with_undo(step, change);
        self.status = Status::Compensating;
    }
}

/// Applies one more event to `state`. Never fails: an event about an unknown compensation changes only the sequence.
pub fn evolve(state: &mut RunState, event: &Event) {
    state.sequence += 1;
    match event {
        Event::WorkflowStarted { .. } => state.status = Status::Running,
        Event::StepStarted { step, attempt, rerun, compensable } => {
            if *compensable && !state.stack.contains(step) {
                state.stack.push(step.clone());
            }
            state.set(step, Progress::InFlight { attempt: *attempt, rerun: *rerun });
        }
        Event::StepCompleted { step, value, .. } => {
            state.set(step, Progress::Completed);
            if let Some(state) = state.steps.get_mut(step) {
                state.value = Arc::clone(value);
            }
        }
        Event::StepFailed { step, error, .. } => state.set(step, Progress::Failed(error.clone())),
        Event::StepRetryScheduled { step, next_attempt, next_attempt_at, .. } => {
            state.set(step, Progress::Waiting { attempt: *next_attempt, at: *next_attempt_at });
        }
        Event::StepSkipped { step } => state.set(step, Progress::Skipped),
        Event::StepCancelled { step, .. } => state.set(step, Progress::Cancelled),
        Event::WorkflowFailed { cause, step, error, compensations, author } => {
            state.orders.extend(author.order_id);
            state.failed = Some(RunFailure { cause: *cause, step: step.clone(), error: error.clone() });
            state.undoing = compensations.iter().cloned().map(Undo::new).collect();
            state.status = if compensations.is_empty() { Status::Failed } else { Status::Compensating };
        }
        Event::CompensationStarted { step, attempt, rerun } => state.with_undo(step, |undo| {
            undo.attempts = *attempt;
            undo.progress = Progress::InFlight { attempt: *attempt, rerun: *rerun };
        }),
        Event::CompensationCompleted { step, cost, .. } => {
            state.with_undo(step, |undo| undo.ended(Progress::Completed, None, cost));
        }
        Event::CompensationRetryScheduled { step, error, next_attempt, next_attempt_at, cost, .. } => {
            let waiting = Progress::Waiting { attempt: *next_attempt, at: *next_attempt_at };
            state.with_undo(step, |undo| undo.ended(waiting, Some(error), cost));
        }
        Event::CompensationFailed { step, error, cost, .. } => {
            state.with_undo(step, |undo| undo.ended(Progress::Failed(error.clone()), Some(error), cost));
        }
        Event::WorkflowCompensated {} => state.status = Status::Compensated,
        Event::WorkflowCompensationFailed { .. } => state.status = Status::CompensationFailed,
        Event::WorkflowCompleted { result } => {
            state.result = Some(Arc::clone(result));
            state.status = Status::Completed;
        }
        Event::OperatorRetried { step, next_attempt, release, author } => {
            state.operate(step, author, |undo| {
                undo.progress = Progress::Registered;
                undo.spent = next_attempt.saturating_sub(1);
                undo.release = *release;
            })
        }
        Event::OperatorSkipped { step, author } => {
            state.operate(step, author, |undo| undo.progress = Progress::Skipped);
        }
        Event::OperatorSettled { step, author } => {
            state.operate(step, author, |undo| undo.progress = Progress::Settled);
        }
    }
}
