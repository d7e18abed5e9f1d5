//! `aster:step/context`: what a call knows about the run that it belongs to.

use aster_core::state::Outcome;
use aster_runner::call::{Context, Direction};

use super::State;
use super::bindings::aster::step::context::{ForwardOutcome, Host};

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
