//! The only way in which a run changes: one commit of events, the new state of the run, and the effects of a step.

use std::sync::Arc;

use serde_json::Value;

use crate::event::{Cause, Event, Failure};
use crate::id::{Fence, WorkflowId};
use crate::keyvalue::Effects;
use crate::state::Status;
use crate::time::Timestamp;

/// One change of a run. It becomes durable as a whole or is refused as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub workflow_id: WorkflowId,
    /// The fence under which the committing host owns the run.
    pub fence: Fence,
    /// The last sequence of the run before this transition. The first event gets the next one.
    pub last_sequence: u64,
    /// The instant of the transition by the database's clock, which is the `occurred_at` of all its events.
    pub at: Timestamp,
    /// The status of the run before this transition, since runs are counted by their status.
    pub was: Status,
    /// Whether the run's row already equals `run`, so that only the log grows. Only the committing host can know this, and
    /// only if it wrote the row last.
    pub is_quiet: bool,
    /// Empty only if a run is handed back and nothing else has happened.
    pub events: Vec<Event>,
    pub effects: Effects,
    pub run: RunRecord,
}

/// A summary of the log, kept beside it so that lists and claims need no fold.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    pub status: Status,
    pub cause: Option<Cause>,
    /// The result of a COMPLETED run; `None` for any other.
    pub result: Option<Arc<Value>>,
    /// Why the run failed.
    pub error: Option<Failure>,
    pub driver: Driver,
}

/// The driver of the run after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The committing host goes on with the run.
    Owner,
    /// Nobody drives the run until this instant: a retry, the deadline, or now if no slot was free. From then on any
    /// host may claim it.
    ClaimableAt(Timestamp),
    /// Nobody drives the run, since it is over.
    Nobody,
}
