//! The events of a run. They form an append-only log, and everything else about the run is a function of it.
//!
//! Payloads are a stored format with a version, and are read forever. Fields are added with a default and never renamed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::Digest;
use crate::plan::StepName;
use crate::time::Timestamp;

/// The version that this code writes into every payload as `v`.
pub const EVENT_FORMAT: u32 = 1;

/// One event without its place in the log. It gets its sequence and instant when it is recorded.
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
        /// The SHA-256 of the definition's source.
        definition_digest: Digest,
        release: i64,
        input: Arc<Value>,
    },
    StepStarted {
        step: StepName,
        /// Counts from 1.
        attempt: u32,
        /// How many hosts this attempt has lost.
        #[serde(default, skip_serializing_if = "is_zero")]
        rerun: u32,
        /// Whether the step has a compensation, which goes on the stack now.
        compensable: bool,
    },
    StepCompleted {
        step: StepName,
        attempt: u32,
        value: Arc<Value>,
        #[serde(flatten)]
        cost: Cost,
    },
    /// The step failed for good: no attempt follows.
    StepFailed {
        step: StepName,
        attempt: u32,
        error: Failure,
        #[serde(flatten)]
        cost: Cost,
    },
    /// An attempt failed, and another follows at a fixed instant, even after a restart.
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
    /// The step was in flight or waiting for a retry when the run failed. Its unfinished writes are dropped.
    StepCancelled {
        step: StepName,
        attempt: u32,
    },
    WorkflowFailed {
        cause: Cause,
        /// The step that failed, if that is the cause.
        step: Option<StepName>,
        error: Failure,
        /// The steps that will be undone, in that order.
        compensations: Vec<StepName>,
        /// The author of a cancel; empty for any other cause.
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
    /// The compensation failed for good. The remaining ones still run.
    CompensationFailed {
        step: StepName,
        attempt: u32,
        error: Failure,
        #[serde(flatten)]
        cost: Cost,
    },
    WorkflowCompensated {},
    WorkflowCompensationFailed {
        /// The steps that could not be undone, in the order in which that was tried.
        failed: Vec<StepName>,
    },
    WorkflowCompleted {
        result: Arc<Value>,
    },
    /// An operator has a compensation tried again, with a new budget of attempts.
    OperatorRetried {
        step: StepName,
        next_attempt: u32,
        /// The release whose components are called instead of the run's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<i64>,
        #[serde(flatten)]
        author: Author,
    },
    /// An operator drops a compensation. The effects of the step stay.
    OperatorSkipped {
        step: StepName,
        #[serde(flatten)]
        author: Author,
    },
    /// An operator has undone the step by hand.
    OperatorSettled {
        step: StepName,
        #[serde(flatten)]
        author: Author,
    },
}

impl Event {
    /// The type as it is stored, such as `STEP_COMPLETED`.
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

    /// Returns the payload as the JSON text to store, which begins with the version.
    pub fn payload(&self) -> String {
        // The event is written once, and the payload cut out of `{"eventType":"…","payload":{…}}`. An intermediate
        // `Value` would cost as much again.
        let whole = serde_json::to_string(self).expect("events hold nothing that JSON can't");
        let before = r#"{"eventType":"","payload":{"#.len() + self.event_type().len();
        let fields = &whole[before..whole.len() - 2];
        let comma = if fields.is_empty() { "" } else { "," };
        format!(r#"{{"v":{EVENT_FORMAT}{comma}{fields}}}"#)
    }

    /// Reads what [`Event::event_type`] and [`Event::payload`] wrote.
    ///
    /// # Errors
    /// The type is unknown, or the payload doesn't fit it: a newer host wrote the event, or it is damaged.
    pub fn parse(event_type: &str, payload: Value) -> Result<Self, serde_json::Error> {
        let mut whole = serde_json::Map::with_capacity(2);
        whole.insert("eventType".into(), event_type.into());
        whole.insert("payload".into(), payload);
        serde_json::from_value(Value::Object(whole))
    }
}

/// The author of an order and their reason, both as the caller gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Author {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The order that the event carries out, so that it isn't carried out twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Uuid>,
}

/// The cost of an attempt, and the code that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// The fuel of all calls of the attempt.
    #[serde(default)]
    pub fuel_used: u64,
    /// The time from the start of the attempt to its end.
    #[serde(default)]
    pub duration_micros: u64,
    /// The component that was called last. `None` if the body made no call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// All calls in order, if there was more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallCost>,
    /// The output of the guest, cut to a bound.
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

/// The reason of a failure, as it is recorded and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub code: FailureCode,
    /// One line. For an `err` that is a text, it is that text.
    pub message: String,
    /// The payload of the `err`, if it is more than a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Failure {
    /// The longest message in characters. Longer ones are cut, since messages are shown in lists and logs.
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
    /// The same, and the error is a variant whose case is `transient` or `retryable`.
    TransientError,
    /// The guest trapped: it panicked, exited, or accessed memory out of bounds.
    Trap,
    OutOfFuel,
    OutOfMemory,
    /// The time limit of the step or of the workflow passed.
    Timeout,
    /// An expression can't be computed: a value doesn't fit its type, a field is missing, or an integer overflows.
    Type,
    /// The component or function doesn't exist.
    Unavailable,
    /// One attempt at the step has lost its host three times.
    HostLost,
    /// The store refused what the step wrote.
    Storage,
    Cancelled,
}

impl FailureCode {
    /// The code as it is stored and shown.
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

    /// Whether another attempt may succeed. No other place decides this.
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

/// The cause of a failed run.
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
