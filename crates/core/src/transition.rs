//! The only way in which a run changes: events, what they make of the run, and the step's effects, in one commit.

use std::sync::Arc;

use serde_json::Value;

use crate::event::{Cause, Event, Failure};
use crate::id::{Fence, WorkflowId};
use crate::keyvalue::Effects;
use crate::state::Status;
use crate::time::Timestamp;

/// Durable as a whole or refused as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub workflow_id: WorkflowId,
    /// Under which the committing host owns the run.
    pub fence: Fence,
    /// The run's last sequence before this transition; the first event gets the next one.
    pub last_sequence: u64,
    /// When it happened, by the database's clock: the `occurred_at` of all its events.
    pub at: Timestamp,
    /// The run's status before this transition: runs are counted by their status.
    pub was: Status,
    /// Whether the run's row says already what `run` says: then only the log grows. Only the committing host can know, and
    /// only if it was the last to write the row.
    pub is_quiet: bool,
    /// Empty only where a run is handed back without anything having happened.
    pub events: Vec<Event>,
    pub effects: Effects,
    pub run: RunRecord,
}

/// What the log makes of a run, kept beside it so that lists and claims need no fold.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    pub status: Status,
    pub cause: Option<Cause>,
    /// Only of a COMPLETED run.
    pub result: Option<Arc<Value>>,
    /// Why it failed.
    pub error: Option<Failure>,
    pub driver: Driver,
}

/// Who drives the run after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The committing host goes on.
    Owner,
    /// Nobody until this instant (a retry, the deadline, now if there was no free slot): then any host may claim it.
    ClaimableAt(Timestamp),
    /// Nobody: the run is over.
    Nobody,
}
