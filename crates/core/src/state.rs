//! What is true of a run: the fold of its events.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Cause, Event, Failure};
use crate::id::{Digest, WorkflowId};
use crate::plan::StepName;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Accepted and durable, not started: it has no events yet.
    Ready,
    Running,
    Completed,
    /// Failed with nothing to undo.
    Failed,
    Compensating,
    /// Failed, and every registered compensation succeeded.
    Compensated,
    /// At least one compensation failed for good: an operator is needed.
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

    /// Whether nothing follows by itself.
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

/// What acceptance fixed, before any event.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub workflow_id: WorkflowId,
    pub definition: String,
    pub definition_digest: Digest,
    pub release: i64,
    pub input: Arc<Value>,
    /// When the run's timeout passes.
    pub deadline: Timestamp,
}

/// The run after some prefix of its log.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    pub accepted: Accepted,
    pub status: Status,
    /// Of the last event; 0 before the first.
    pub sequence: u64,
    /// The steps that have begun or were decided otherwise; one that is missing is still to come.
    pub steps: BTreeMap<StepName, StepState>,
    /// The compensations registered, in the order in which their steps first started.
    pub stack: Vec<StepName>,
    pub failed: Option<RunFailure>,
    /// What is to be undone, in that order; empty until the run has failed.
    pub undoing: Vec<(StepName, Progress)>,
    pub result: Option<Arc<Value>>,
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
    /// Of a completed step; null otherwise.
    pub value: Arc<Value>,
}

/// How far a step, or its compensation, has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A compensation that waits for its turn.
    Registered,
    InFlight {
        attempt: u32,
        /// How often a host was lost in this attempt.
        rerun: u32,
    },
    /// An attempt failed; this is the next one and when it begins.
    Waiting {
        attempt: u32,
        at: Timestamp,
    },
    Completed,
    Failed(Failure),
    Skipped,
    Cancelled,
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
        }
    }

    /// Whether steps that depend on this one may go on.
    pub fn is_passed(&self, step: &str) -> bool {
        matches!(
            self.steps.get(step).map(|step| &step.progress),
            Some(Progress::Completed | Progress::Skipped)
        )
    }

    /// The value of a step: null unless it completed.
    pub fn value(&self, step: &str) -> Option<&Arc<Value>> {
        self.steps.get(step).map(|step| &step.value)
    }

    /// Why the run failed. What failed in undoing it is with the compensations.
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

    fn set_undo(&mut self, step: &StepName, progress: Progress) {
        if let Some((_, state)) = self.undoing.iter_mut().find(|(name, _)| name == step) {
            *state = progress;
        }
    }
}

/// Makes of `state` the state after one more event. Total: what makes no sense there changes nothing but the sequence.
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
        Event::WorkflowFailed { cause, step, error, compensations } => {
            state.failed = Some(RunFailure { cause: *cause, step: step.clone(), error: error.clone() });
            state.undoing = compensations.iter().map(|step| (step.clone(), Progress::Registered)).collect();
            state.status = if compensations.is_empty() { Status::Failed } else { Status::Compensating };
        }
        Event::CompensationStarted { step, attempt, rerun } => {
            state.set_undo(step, Progress::InFlight { attempt: *attempt, rerun: *rerun });
        }
        Event::CompensationCompleted { step, .. } => state.set_undo(step, Progress::Completed),
        Event::CompensationRetryScheduled { step, next_attempt, next_attempt_at, .. } => {
            state.set_undo(step, Progress::Waiting { attempt: *next_attempt, at: *next_attempt_at });
        }
        Event::CompensationFailed { step, error, .. } => {
            state.set_undo(step, Progress::Failed(error.clone()));
        }
        Event::WorkflowCompensated {} => state.status = Status::Compensated,
        Event::WorkflowCompensationFailed { .. } => state.status = Status::CompensationFailed,
        Event::WorkflowCompleted { result } => {
            state.result = Some(Arc::clone(result));
            state.status = Status::Completed;
        }
    }
}
