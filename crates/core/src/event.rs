//! What happened to a run: the append-only log that everything else is a function of.
//!
//! Payloads are stored formats: versioned, read forever. Fields are added with a default and never renamed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::Digest;
use crate::plan::StepName;
use crate::time::Timestamp;

/// The version that this code writes into every payload as `v`.
pub const EVENT_FORMAT: u32 = 1;

/// One event, without its place in the log: sequence and instant are given when it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "eventType",
    content = "payload",
    rename_all = "SCREAMING_SNAKE_CASE",
    rename_all_fields = "camelCase"
)]
pub enum Event {
    WorkflowStarted {
        definition: String,
        /// SHA-256 of the definition's source.
        definition_digest: Digest,
        release: i64,
        input: Arc<Value>,
    },
    StepStarted {
        step: StepName,
        /// From 1.
        attempt: u32,
        /// How often a host was lost in this very attempt.
        #[serde(default, skip_serializing_if = "is_zero")]
        rerun: u32,
        /// Whether the step has a compensation: then it goes on the stack now.
        compensable: bool,
    },
    StepCompleted {
        step: StepName,
        attempt: u32,
        value: Arc<Value>,
        #[serde(flatten)]
        cost: Cost,
    },
    /// For good: no attempt follows.
    StepFailed {
        step: StepName,
        attempt: u32,
        error: Failure,
        #[serde(flatten)]
        cost: Cost,
    },
    /// An attempt failed and another follows at an instant that restarts keep.
    StepRetryScheduled {
        step: StepName,
        attempt: u32,
        error: Failure,
        next_attempt: u32,
        next_attempt_at: Timestamp,
        #[serde(flatten)]
        cost: Cost,
    },
    StepSkipped {
        step: StepName,
    },
    /// In flight or waiting for a retry when the run failed elsewhere; its unfinished writes are dropped.
    StepCancelled {
        step: StepName,
        attempt: u32,
    },
    WorkflowFailed {
        cause: Cause,
        /// The step that failed, where the cause is one.
        step: Option<StepName>,
        error: Failure,
        /// What will be undone, in that order.
        compensations: Vec<StepName>,
        /// Who cancelled it; nobody where the cause is another.
        #[serde(flatten)]
        author: Author,
    },
    CompensationStarted {
        step: StepName,
        attempt: u32,
        #[serde(default, skip_serializing_if = "is_zero")]
        rerun: u32,
    },
    CompensationCompleted {
        step: StepName,
        attempt: u32,
        value: Arc<Value>,
        #[serde(flatten)]
        cost: Cost,
    },
    CompensationRetryScheduled {
        step: StepName,
        attempt: u32,
        error: Failure,
        next_attempt: u32,
        next_attempt_at: Timestamp,
        #[serde(flatten)]
        cost: Cost,
    },
    /// For good; the remaining ones still run.
    CompensationFailed {
        step: StepName,
        attempt: u32,
        error: Failure,
        #[serde(flatten)]
        cost: Cost,
    },
    WorkflowCompensated {},
    WorkflowCompensationFailed {
        /// The steps that are still not undone, in the order in which that was tried.
        failed: Vec<StepName>,
    },
    WorkflowCompleted {
        result: Arc<Value>,
    },
    /// A compensation is to be tried again, with a new budget of attempts.
    OperatorRetried {
        step: StepName,
        next_attempt: u32,
        /// The release whose components are called instead of the run's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<i64>,
        #[serde(flatten)]
        author: Author,
    },
    /// What the step did stays, and the compensation is no longer asked for.
    OperatorSkipped {
        step: StepName,
        #[serde(flatten)]
        author: Author,
    },
    /// What the step did was undone outside.
    OperatorSettled {
        step: StepName,
        #[serde(flatten)]
        author: Author,
    },
}

impl Event {
    /// The name under which it is stored, `STEP_COMPLETED`.
    pub fn event_type(&self) -> &'static str {
        match self {
            Event::WorkflowStarted { .. } => "WORKFLOW_STARTED",
            Event::StepStarted { .. } => "STEP_STARTED",
            Event::StepCompleted { .. } => "STEP_COMPLETED",
            Event::StepFailed { .. } => "STEP_FAILED",
            Event::StepRetryScheduled { .. } => "STEP_RETRY_SCHEDULED",
            Event::StepSkipped { .. } => "STEP_SKIPPED",
            Event::StepCancelled { .. } => "STEP_CANCELLED",
            Event::WorkflowFailed { .. } => "WORKFLOW_FAILED",
            Event::CompensationStarted { .. } => "COMPENSATION_STARTED",
            Event::CompensationCompleted { .. } => "COMPENSATION_COMPLETED",
            Event::CompensationRetryScheduled { .. } => "COMPENSATION_RETRY_SCHEDULED",
            Event::CompensationFailed { .. } => "COMPENSATION_FAILED",
            Event::WorkflowCompensated {} => "WORKFLOW_COMPENSATED",
            Event::WorkflowCompensationFailed { .. } => "WORKFLOW_COMPENSATION_FAILED",
            Event::WorkflowCompleted { .. } => "WORKFLOW_COMPLETED",
            Event::OperatorRetried { .. } => "OPERATOR_RETRIED",
            Event::OperatorSkipped { .. } => "OPERATOR_SKIPPED",
            Event::OperatorSettled { .. } => "OPERATOR_SETTLED",
        }
    }

    /// The payload as the JSON text that is stored, with the version in front.
    pub fn payload(&self) -> String {
        // Written once, and cut out of `{"eventType":"…","payload":{…}}`: a value in between would cost as much again.
        let whole = serde_json::to_string(self).expect("events hold nothing that JSON can't");
        let before = r#"{"eventType":"","payload":{"#.len() + self.event_type().len();
        let fields = &whole[before..whole.len() - 2];
        let comma = if fields.is_empty() { "" } else { "," };
        format!(r#"{{"v":{EVENT_FORMAT}{comma}{fields}}}"#)
    }

    /// Reads what [`Event::event_type`] and [`Event::payload`] wrote.
    ///
    /// # Errors
    /// The type is unknown, or the payload isn't one of its kind: written by a newer host, or damaged.
    pub fn parse(event_type: &str, payload: Value) -> Result<Self, serde_json::Error> {
        let mut whole = serde_json::Map::with_capacity(2);
        whole.insert("eventType".into(), event_type.into());
        whole.insert("payload".into(), payload);
        serde_json::from_value(Value::Object(whole))
    }
}

/// Who ordered something, and why. Both are what the caller said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Author {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The order that the event carries out: so it isn't carried out twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Uuid>,
}

/// What an attempt cost, and which code ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Over all calls of the attempt.
    #[serde(default)]
    pub fuel_used: u64,
    /// From the attempt's start to its end.
    #[serde(default)]
    pub duration_micros: u64,
    /// The component that was called last; absent where the body made no call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Every call in order, where there were several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallCost>,
    /// What the guest printed, cut to a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallCost {
    pub component: String,
    pub function: String,
    pub digest: Digest,
    pub fuel_used: u64,
    pub duration_micros: u64,
}

/// Why something failed, as it is recorded and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub code: FailureCode,
    /// One line; for an `err` that is a text, the text itself.
    pub message: String,
    /// The payload of the `err`, where it is more than a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Failure {
    /// Longest message, in characters; longer ones are cut, for they are shown in lists and logs.
    pub const MAX_MESSAGE: usize = 4_000;

    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(Self::MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        Self { code, message, detail: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    /// The function answered `err`, or the body returned `err of`.
    Error,
    /// The same, where the error's type is a variant and it is in the case `transient` or `retryable`.
    TransientError,
    /// The guest trapped: a panic, an exit, memory out of bounds.
    Trap,
    OutOfFuel,
    OutOfMemory,
    /// The step's time limit, or the workflow's.
    Timeout,
    /// A value didn't fit its type, a field was missing, an integer overflowed: the expression can't be computed.
    Type,
    /// The component or function isn't there.
    Unavailable,
    /// The step's host died in it three times.
    HostLost,
    /// The store refused what the step wrote.
    Storage,
    Cancelled,
}

impl FailureCode {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::TransientError => "TRANSIENT_ERROR",
            Self::Trap => "TRAP",
            Self::OutOfFuel => "OUT_OF_FUEL",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::Timeout => "TIMEOUT",
            Self::Type => "TYPE",
            Self::Unavailable => "UNAVAILABLE",
            Self::HostLost => "HOST_LOST",
            Self::Storage => "STORAGE",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether another attempt may end otherwise (SPEC 3.2): the only place that decides it.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::TransientError | Self::Trap | Self::Timeout => true,
            Self::Error
            | Self::OutOfFuel
            | Self::OutOfMemory
            | Self::Type
            | Self::Unavailable
            | Self::HostLost
            | Self::Storage
            | Self::Cancelled => false,
        }
    }
}

/// Why a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Cause {
    Step,
    Timeout,
    Cancel,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step => "STEP",
            Self::Timeout => "TIMEOUT",
            Self::Cancel => "CANCEL",
        }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
