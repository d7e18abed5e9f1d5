//! The shell around the core: sandbox, store, runner, REST and the command line.

pub mod sandbox;
pub mod store;
