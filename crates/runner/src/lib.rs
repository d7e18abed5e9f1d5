//! Drives runs: carries out the core's commands.
//!
//! - [`call`]: one call of a guest, as the runner asks for it and hears of it.
//! - [`session`]: what an attempt reads and writes through key-value data.

pub mod call;
mod error;
pub mod session;

pub use self::error::{Cause, Error, Fault};
