//! One call of a guest: how far it may go, what the guest may know of its run, and what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aster_core::event::Failure;
use aster_core::id::{TenantId, WorkflowId};
use aster_core::state::Outcome;
use aster_core::time::Timestamp;
use serde_json::Value;

/// What is left of the attempt's limits.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    pub fuel: u64,
    /// Over all memories of the instance.
    pub memory_bytes: u64,
    pub deadline: Instant,
}

/// Says which call of which run this is.
#[derive(Clone, Debug)]
pub struct Context {
    pub workflow_id: WorkflowId,
    /// The definition's full name.
    pub definition: Arc<str>,
    /// The step; in a compensation, the step that is undone.
    pub step: Arc<str>,
    /// From 1.
    pub attempt: u32,
    /// When the call is interrupted, by the database's clock, for the guest to see. The host goes by [`CallLimits`].
    pub deadline: Option<Timestamp>,
    pub tenant: TenantId,
    /// The call's number in its step or compensation, from 1.
    pub call_number: u32,
    pub direction: Direction,
}

/// Whether a call does or undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Compensation(Outcome),
}

/// How a call ended, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReport {
    /// The `ok` payload or plain result; null where there is none.
    pub outcome: Result<Value, Failure>,
    pub fuel_used: u64,
    pub duration: Duration,
    pub output: Output,
}

/// Standard output and error of a call, as valid UTF-8 without control characters other than line ends and tabs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

impl Context {
    /// The same in every attempt: `<workflow id>/<step>/<n>`, and `<workflow id>/<step>/undo/<n>` in a compensation.
    pub fn idempotency_key(&self) -> String {
        let Self { workflow_id, step, call_number, .. } = self;
        match self.direction {
            Direction::Forward => format!("{workflow_id}/{step}/{call_number}"),
            Direction::Compensation(_) => format!("{workflow_id}/{step}/undo/{call_number}"),
        }
    }
}

impl Output {
    pub fn is_empty(&self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }

    /// Both, output before errors. `None` means that nothing was printed.
    pub fn into_text(self) -> Option<String> {
        match (self.stdout.is_empty(), self.stderr.is_empty()) {
            (true, true) => None,
            (false, true) => Some(self.stdout),
            (true, false) => Some(self.stderr),
            (false, false) => {
                let line_end = if self.stdout.ends_with('\n') { "" } else { "\n" };
                Some(self.stdout + line_end + &self.stderr)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_become_one_text() {
        let output = Output { stdout: "out".into(), stderr: "err\n".into() };
        assert_eq!(output.into_text().as_deref(), Some("out\nerr\n"));
        assert_eq!(Output::default().into_text(), None);
    }
}
