//! The shell around the core: sandbox, store, runner, REST and the command line.

pub mod app;
pub mod cli;
pub mod config;
pub mod crash;
mod guests;
pub mod http;
mod journal;
mod logs;
pub mod maintenance;
pub mod operate;
mod recent;
pub mod registry;
pub mod sandbox;
pub mod serve;
pub mod store;
pub mod submit;
