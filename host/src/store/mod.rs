//! Everything that is durable: the only place with SQL.
//!
//! - [`Store::accept`] takes a run in, [`Store::commit`] is the only way in which it changes afterwards, and
//!   [`Store::claim`] gives one that nobody drives to a host.
//! - The registry: components, definitions, and the releases that runs pin.
//! - Key-value data, which steps change with their transitions only.
//!
//! It knows neither what a transition means (that is the core) nor who asks (that is the runner and the API). Instants are
//! arguments; the one clock is [`Store::clock`], Postgres's own.

mod accept;
mod commit;
mod components;
mod counters;
mod definitions;
mod error;
mod hosts;
mod keyvalue;
mod releases;
mod runs;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use aster_core::time::Timestamp;
use chrono::{DateTime, Utc};
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool, Postgres};
use tokio::time::timeout;

pub use self::accept::{Acceptance, NewRun, Start};
pub use self::commit::{Committed, Settled};
pub use self::components::{Component, ComponentVersion, Registered, Upload};
pub use self::counters::Counters;
pub use self::definitions::{Definition, DefinitionVersion, Deployed, NewDefinition};
pub use self::error::Error;
pub use self::hosts::HostId;
pub use self::keyvalue::ListedEntry;
pub use self::releases::{ActiveComponent, CurrentDefinition, Release, ReleaseId, Snapshot};
pub use self::runs::{RecordedEvent, Run, RunFilter};

use self::writer::Writer;

/// How to reach Postgres, and for how long to hope for it.
#[derive(Clone, Debug)]
pub struct Options {
    pub connect: PgConnectOptions,
    /// Commits take one at a time; the others serve reads, acceptances and the registry.
    pub max_connections: u32,
    pub patience: Patience,
}

impl Options {
    pub fn new(connect: PgConnectOptions) -> Self {
        Self { connect, max_connections: 16, patience: Patience::default() }
    }
}

/// When a write that isn't answered is given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one answer; after that the connection is taken for dead and the outcome is settled on another.
    pub answer: Duration,
    /// For Postgres to come back, before the caller is told that it is unavailable.
    pub outage: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(15), outage: Duration::from_secs(10) }
    }
}

/// One database, shared by all its clones. The writer of commits ends with the last one.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    writer: Writer,
    patience: Patience,
    counters: Arc<Counters>,
}

impl Store {
    /// Opens a pool of connections, and one at once, so that a wrong address shows here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that one isn't to be had.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_secs(5))
            // A ping before each use would double the round trips of a busy host.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options.connect)
            .await?;
        Ok(Self::from_pool(pool, options.patience))
    }

    /// # Panics
    /// Outside a tokio runtime: the writer is a task.
    pub fn from_pool(pool: PgPool, patience: Patience) -> Self {
        let counters = Arc::<Counters>::default();
        let writer = Writer::start(pool.clone(), patience, Arc::clone(&counters));
        Self { writer, pool, patience, counters }
    }

    /// Brings the schema up to date. Several hosts may do so at once: all but one wait.
    ///
    /// # Errors
    /// The database is unreachable, or has migrations that this binary doesn't know or knows otherwise.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        sqlx::migrate!("../migrations").run(&self.pool).await
    }

    /// What this host has committed since its start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether Postgres answers.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(self.pool.acquire().await?.ping().await?)
    }

    /// The database's clock: the one by which everything is recorded.
    pub async fn clock(&self) -> Result<Timestamp, Error> {
        let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&self.pool).await?;
        Ok(now.into())
    }
}

/// A lost answer, if there is none in time.
async fn in_time<T>(
    patience: Patience,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(patience.answer, asked).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Closes a connection that owes an answer. It must not go back to the pool: its next answer could be the missing one.
async fn abandon(connection: PoolConnection<Postgres>) {
    let _ = timeout(Duration::from_millis(50), connection.detach().close_hard()).await;
}

/// As Postgres takes it.
fn instant(at: Timestamp) -> DateTime<Utc> {
    at.into()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Limits of lists.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Sequences and sizes, which no row has below zero.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn digest(bytes: &[u8]) -> Result<aster_core::id::Digest, Error> {
    let bytes = bytes.try_into().map_err(|_| Error::corrupt("a digest that isn't 32 bytes long"))?;
    Ok(aster_core::id::Digest(bytes))
}

fn parse_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Error> {
    // Values may be nested deeper than serde_json reads by default only if they were built here: they were not.
    serde_json::from_str(text).map_err(|error| Error::corrupt(format!("{what}: {error}")))
}

fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::refused(format!("{what}: {error}")))
}

/// Texts that become part of a key: Postgres takes no NUL, and no index row beyond 2,704 bytes.
fn check_name(what: &str, text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(Error::refused(format!("the {what} holds a NUL character")));
    }
    let max = aster_core::keyvalue::MAX_NAME_BYTES;
    if text.len() > max {
        return Err(Error::refused(format!("the {what} has {} bytes; at most {max} are taken", text.len())));
    }
    Ok(())
}
