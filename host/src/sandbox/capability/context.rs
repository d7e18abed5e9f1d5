//! `aster:step/context`: what a call knows about the run that it belongs to.

use std::sync::Arc;

use aster_core::id::{TenantId, WorkflowId};
use aster_core::state::Outcome;
use aster_core::time::Timestamp;

use super::State;
use super::bindings::aster::step::context::{ForwardOutcome, Host};

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
    /// When the call is interrupted, by the database's clock, for the guest to see. The host goes by `Limits`.
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

impl Host for State {
    fn workflow_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.workflow_id.to_string())
    }

    fn definition(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.definition.to_string())
    }

    fn step(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.step.to_string())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.context.attempt)
    }

    fn deadline(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.context.deadline.and_then(|at| u64::try_from(at.as_millis()).ok()))
    }

    fn tenant(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.tenant.to_string())
    }

    fn idempotency_key(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.idempotency_key())
    }

    fn undoes(&mut self) -> wasmtime::Result<Option<String>> {
        let Context { workflow_id, step, direction, .. } = &self.context;
        Ok(match direction {
            Direction::Forward => None,
            Direction::Compensation(_) => Some(format!("{workflow_id}/{step}")),
        })
    }

    fn outcome(&mut self) -> wasmtime::Result<Option<ForwardOutcome>> {
        Ok(match self.context.direction {
            Direction::Forward => None,
            Direction::Compensation(Outcome::Completed) => Some(ForwardOutcome::Completed),
            Direction::Compensation(Outcome::None) => Some(ForwardOutcome::None),
            Direction::Compensation(Outcome::Unknown) => Some(ForwardOutcome::Unknown),
        })
    }
}
