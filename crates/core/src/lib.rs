//! The saga as a pure state machine.
//!
//! - [`plan`]: what a definition was checked and lowered to; [`eval`] computes its expressions.
//! - [`event`]: what happened to a run; [`state`] folds events into what is true of it.
//! - [`saga`]: what is to be done next ([`saga::decide`]) and what a happening leads to ([`saga::react`]).
//! - [`order`]: what people may want of a run from outside.
//! - [`wit`]: the types of components, as data; [`keyvalue`]: what a step read and wrote.
//!
//! There is no I/O, no clock, no randomness and no async here: a run is a function of its plan and its events,
//! so recovery is the same code as progress.

pub mod eval;
pub mod event;
pub mod id;
pub mod keyvalue;
pub mod name;
pub mod order;
pub mod plan;
pub mod saga;
pub mod state;
pub mod time;
pub mod transition;
pub mod wit;
