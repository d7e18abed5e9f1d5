//! The common parts of the end-to-end tests: real hosts on real databases, used over HTTP.
//!
//! `cargo xtask test` builds the binary and the components, starts a Postgres, and names them in `ASTER_BIN`,
//! `ASTER_COMPONENTS` and `DATABASE_URL`. Each test creates its own database in that server.

pub mod chaos;
mod client;
mod database;
mod host;
pub mod ledger;
pub mod orders;

pub use client::{Answer, Client};
pub use database::{Database, Session};
pub use host::{Host, Options, binary, component, components, workflow};
