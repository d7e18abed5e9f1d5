//! The shell around the core: sandbox, store, runner, REST and the command line.

pub mod config;
pub mod crash;
pub mod registry;
pub mod runner;
pub mod sandbox;
pub mod store;
pub mod submit;
