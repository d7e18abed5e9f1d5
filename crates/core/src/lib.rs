//! The saga as a pure state machine.
//!
//! - [`plan`]: the checked form of a definition; [`eval`] computes its expressions.
//! - [`event`]: the log of a run; [`state`] folds it into the run's state.
//! - [`saga`]: what to do next ([`saga::decide`]), and the events that a signal leads to ([`saga::react`]).
//! - [`transition`]: the only way in which a run changes; [`journal`]: what else passes between the driver of a run and the
//!   place where the run is kept.
//! - [`order`]: cancels and repairs, which people order from outside.
//! - [`wit`]: the types of components, as data; [`keyvalue`]: the entries that a step read and wrote.
//!
//! This crate has no I/O, no clock, no randomness and no async code. The state of a run is a function of its plan and its
//! events, so recovery runs the same code as progress.

pub mod eval;
pub mod event;
pub mod id;
pub mod journal;
pub mod keyvalue;
pub mod name;
pub mod order;
pub mod plan;
pub mod saga;
pub mod state;
pub mod time;
pub mod transition;
pub mod wit;
