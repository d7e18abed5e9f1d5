//! Whether a connection is a session of Postgres.
//!
//! A pooler of connections may lend out Postgres's sessions by the transaction. Statements that are prepared once, settings,
//! and the lock of migrations belong to a session, so a host can't work through such a one.

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Row as _};

use super::Error;
use super::connections::{Settings, connect};

/// What poolers say where Postgres says nothing.
const SAID_BY_POOLERS: [&str; 3] =
    ["unsupported startup parameter", "statement pooling mode", "transaction pooling mode"];

/// # Errors
/// [`Error::Unusable`] if it is none; and whatever a statement can end with.
pub(super) async fn check(options: &PgConnectOptions, settings: &Settings) -> Result<(), Error> {
    match are_lent(options, settings).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(unusable("")),
        Err(error) => Err(named(error)),
    }
}

/// The error, or that a pooler has made it.
pub(super) fn named(error: sqlx::Error) -> Error {
    let said = error.as_database_error().map(|refusal| refusal.message().to_owned()).unwrap_or_default();
    match SAID_BY_POOLERS.iter().any(|words| said.contains(words)) {
        true => unusable(&format!(" ({said})")),
        false => error.into(),
    }
}

fn unusable(said: &str) -> Error {
    Error::Unusable {
        reason: format!(
            "a pooler of connections stands before Postgres and lends its sessions by the transaction{said}, but a host \
             needs sessions of its own: connect to Postgres itself, or set `pool_mode = session` for this database in \
             PgBouncer"
        ),
    }
}

/// Two connections with one backend of Postgres, or one that changes its backend, are no sessions.
async fn are_lent(options: &PgConnectOptions, settings: &Settings) -> Result<bool, sqlx::Error> {
    let mut first = connect(options, settings).await?;
    let before = backend(&mut first).await?;
    let mut second = connect(options, settings).await?;
    // For as long as its transaction lasts, a pooler leaves it with one backend: most likely the one that is free now.
    sqlx::raw_sql("begin").execute(&mut second).await?;
    let other = backend(&mut second).await?;
    Ok(other == before || backend(&mut first).await? != before)
}

/// Asked without a prepared statement, which a pooler might not know.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}
