//! What the end-to-end tests share: real hosts on real databases, spoken to over HTTP.
//!
//! `cargo xtask test` builds the binary and the components, starts a Postgres and names them by `ASTER_BIN`,
//! `ASTER_COMPONENTS` and `DATABASE_URL`. Each test makes a database of its own in that server.

pub mod chaos;
mod client;
mod database;
mod host;
pub mod ledger;
pub mod orders;

pub use client::{Answer, Client};
pub use database::{Database, Session};
pub use host::{Host, Options, binary, component, components, workflow};
