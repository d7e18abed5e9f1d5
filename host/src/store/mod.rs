//! Everything that is durable: the only place with SQL.
//!
//! - [`Store::accept`] takes a run in, [`Store::commit`] is the only way in which it changes afterwards, and
//!   [`Store::claim`] gives one that nobody drives to a host.
//! - The registry: components with their compiled code, definitions, and the releases that runs pin.
//! - Key-value data, which steps change with their transitions only.
//! - Retention: partitions for events, and runs that go when their time is over.
//!
//! It knows neither what a transition means (that is the core) nor who asks (that is the runner and the API). Instants are
//! arguments; the one clock is [`Store::clock`], Postgres's own.

mod accept;
mod acceptor;
mod claims;
mod code;
mod commit;
mod components;
mod connections;
mod counters;
mod definitions;
mod error;
mod hosts;
mod json;
mod keyvalue;
mod listed;
mod orders;
mod reads;
mod releases;
mod replay;
mod retention;
mod runs;
mod sessions;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use aster_core::time::Timestamp;
use aster_runner::line::{self, CommitLine};
use chrono::{DateTime, Utc};
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::{NoContext, Uuid};

pub use self::code::CompiledCode;
pub use self::components::{Component, ComponentVersion, Offer, Registered, Upload};
pub use self::counters::Counters;
pub use self::definitions::{Definition, DefinitionVersion, Deployed, ListedDefinition, NewDefinition};
pub use self::error::Error;
pub use self::json::JsonText;
pub use self::keyvalue::ListedEntry;
pub use self::listed::Listed;
pub use self::releases::{ActiveComponent, CurrentDefinition, Release, Snapshot};
pub use self::retention::{Partition, Week};
pub use self::runs::{RecordedEvent, Run, RunFilter};

use self::acceptor::Acceptor;
use self::connections::{Connections, Line, Taken};
use self::error::Cause;
use self::reads::Reads;
use self::wire::Wire;

/// How to reach Postgres, and for how long to hope for it.
#[derive(Clone, Debug)]
pub struct Options {
    pub connect: PgConnectOptions,
    /// For lists, the registry and what is rare. A host has four more: for acceptances, for commits, for the reads of steps, and
    /// for its lease.
    pub max_connections: u32,
    pub patience: Patience,
}

impl Options {
    pub fn new(connect: PgConnectOptions) -> Self {
        Self { connect, max_connections: 16, patience: Patience::default() }
    }

    /// What a URL says.
    ///
    /// # Errors
    /// It is none of a Postgres. The message has nothing of the URL but its scheme: the rest may hold a password.
    pub fn of_url(url: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE";
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        let is_scheme = |text: &&str| text.len() < 20 && text.chars().all(|c| c.is_ascii_alphanumeric());
        match scheme.filter(is_scheme) {
            Some("postgres" | "postgresql") => {}
            Some(scheme) => {
                return Err(format!(
                    "it begins with `{scheme}://`, and Aster keeps its data in Postgres only: {EXPECTED}"
                ));
            }
            None => return Err(format!("it is no URL: {EXPECTED}")),
        }
        match url.parse() {
            Ok(connect) => Ok(Self::new(connect)),
            Err(sqlx::Error::Configuration(error)) => Err(format!("{error}: {EXPECTED}")),
            Err(error) => Err(format!("{error}: {EXPECTED}")),
        }
    }
}

/// When a statement that isn't answered is given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one answer; after that the connection is taken for dead, and whether a write was done is unknown.
    pub answer: Duration,
    /// For all that a client's call waits for Postgres, with a place in the pool: after that it is told that the database is
    /// unavailable.
    pub client: Duration,
    /// For Postgres to work again on a batch of commits, before it is taken apart to find out what is in the way.
    pub outage: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            client: Duration::from_millis(3_500),
            outage: Duration::from_secs(10),
        }
    }
}

/// One database, shared by all its clones. The line of commits ends with the last one.
#[derive(Clone, Debug)]
pub struct Store {
    connections: Connections,
    acceptor: Acceptor,
    line: CommitLine<Wire>,
    reads: Reads,
    /// For [`Store::register_host`] and [`Store::renew_lease`], which must not wait for a busy pool.
    lease_line: Arc<Mutex<Line>>,
    counters: Arc<Counters>,
}

impl Store {
    /// Makes a pool of connections, and tries one at once, so that a wrong address shows here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that one isn't to be had; [`Error::Unusable`] if it leads to a pooler of transactions.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        Ok(Self::new(Connections::open(options).await?))
    }

    /// The same store for clients' calls, which are answered sooner that the database is unavailable.
    #[must_use]
    pub fn for_clients(&self) -> Self {
        let mut store = self.clone();
        store.connections.patience.answer = store.connections.patience.client;
        store
    }

    /// # Panics
    /// Outside a tokio runtime: the writer is a task.
    pub fn from_pool(pool: PgPool, patience: Patience) -> Self {
        Self::new(Connections::of(pool, patience))
    }

    fn new(connections: Connections) -> Self {
        let counters = Arc::<Counters>::default();
        let wire = Wire::new(connections.clone());
        let counted = Arc::clone(&counters);
        let options = line::Options::new(connections.patience.outage);
        let line = CommitLine::start(wire, &options, move |transitions| counted.add_batch(transitions));
        let acceptor = Acceptor::start(&connections);
        let reads = Reads::start(&connections);
        let lease_line = Arc::new(Mutex::new(Line::new(&connections.pool)));
        Self { connections, acceptor, line, reads, lease_line, counters }
    }

    /// Brings the schema up to date. Several hosts may do so at once: all but one wait.
    ///
    /// # Errors
    /// The database is unreachable, or has migrations that this binary doesn't know or knows otherwise.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        // Not of the pool: a migration, or another host's, may take its time.
        let mut connection = PgConnection::connect_with(&self.connections.pool.connect_options()).await?;
        sqlx::migrate!("../migrations").run(&mut connection).await
    }

    /// What this host has committed since its start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many commits of this host wait for a lock that somebody else holds in the database.
    pub fn put_aside(&self) -> usize {
        self.line.put_aside()
    }

    /// Whether Postgres answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.connection().await?.ask(|connection| connection.ping()).await
    }

    /// Whether Postgres answers in time.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason, as far as that is found out in as much time again.
    pub async fn ping_within(&self, limit: Duration) -> Result<(), Error> {
        let tried = timeout(limit, self.ping()).await;
        if let Ok(Ok(())) = tried {
            return Ok(());
        }
        // A connection that has broken doesn't know why; a new one does, or there is one.
        match timeout(limit, self.connections.why()).await {
            Ok(Error::Unavailable { cause, .. }) if is_busy_pool(&cause) && tried.is_ok() => Ok(()),
            Ok(why) => Err(why),
            Err(_) => Err(connections::no_answer().into()),
        }
    }

    /// The database's clock: the one by which everything is recorded.
    pub async fn clock(&self) -> Result<Timestamp, Error> {
        let now = self
            .connection()
            .await?
            .ask(|connection| async move {
                sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(connection).await
            })
            .await?;
        Ok(now.into())
    }

    /// For one question: every statement but commits and renewals goes through here.
    async fn connection(&self) -> Result<Taken, Error> {
        self.connections.take().await
    }
}

/// A UUIDv7 by the database's clock, whatever this machine's says.
pub fn time_ordered_id(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let nanos = u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, millis / 1_000, nanos))
}

/// Whether this host's own questions have all connections.
fn is_busy_pool(cause: &aster_runner::Cause) -> bool {
    cause.downcast_ref().is_some_and(|Cause(error)| matches!(error, sqlx::Error::PoolTimedOut))
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
