//! How Postgres is asked: every statement goes through here, has a time limit, and leaves a usable connection or none.
//!
//! A connection that owes an answer never goes back to the pool: its next answer could be the missing one, and sqlx waits
//! for that one without a limit. So a connection is closed unless its question was answered, also if who asked is gone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::time::{Instant, sleep, timeout};

use super::error::Fault;
use super::{Error, Options, Patience};

/// A connection that was not used for that long is tried before it is used: one that broke is then no lost answer.
const FRESH: Duration = Duration::from_secs(1);
/// For a trial, which costs Postgres next to nothing.
const TRIAL: Duration = Duration::from_secs(1);
/// For a connection to be had, tried or made.
const CONNECT: Duration = Duration::from_secs(5);
/// Between attempts at a statement that ended in a deadlock.
const PAUSE: Duration = Duration::from_millis(5);

/// What Postgres itself is told about a connection, in seconds: to end one whose host is gone, so that its locks go too.
/// What a URL says about the same settings wins.
const SETTINGS: [(&str, &str); 5] = [
    // No transaction here waits for anything but Postgres.
    ("idle_in_transaction_session_timeout", "30s"),
    // A silent host is asked for a sign of life; it is gone after 10 s + 3 * 5 s.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // The same for one that takes no answer.
    ("tcp_user_timeout", "25s"),
];

/// The pool, and how long its connections are waited for. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) pool: PgPool,
    pub(super) patience: Patience,
}

impl Connections {
    /// Opens one at once.
    pub(super) async fn open(options: Options) -> Result<Self, sqlx::Error> {
        let Options { connect, max_connections, patience } = options;
        let given = connect.get_options().unwrap_or_default();
        let settings: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| !given.contains(name)).collect();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(CONNECT)
            // A ping before each use would double the round trips of a busy host.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > FRESH {
                        in_time(TRIAL, connection.ping()).await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(connect.options(settings))
            .await?;
        Ok(Self { pool, patience })
    }

    /// A connection of the pool, for one question.
    ///
    /// # Errors
    /// None is to be had.
    pub(super) async fn take(&self) -> Result<Taken, Error> {
        let connection = self.pool.acquire().await?;
        Ok(Taken { connection: Some(connection), answered: false, limit: self.patience.answer })
    }
}

/// A connection of the pool, for one question. Dropping this closes it, unless that was answered by a Postgres that can work.
#[derive(Debug)]
pub(super) struct Taken {
    /// Until this is dropped.
    connection: Option<PoolConnection<Postgres>>,
    answered: bool,
    limit: Duration,
}

impl Taken {
    /// For an answer that takes its time.
    pub(super) fn patiently(mut self) -> Self {
        self.limit *= 4;
        self
    }

    /// # Errors
    /// [`Error::Unavailable`] among others: then the answer may be lost, and what was asked done or not.
    ///
    /// # Cancel safety
    /// What was asked may be done or not; the connection is closed.
    pub(super) async fn ask<'c, T, E, A>(
        &'c mut self,
        question: impl FnOnce(&'c mut PgConnection) -> A,
    ) -> Result<T, Error>
    where
        A: Future<Output = Result<T, E>>,
        E: Into<Error>,
    {
        let Self { connection, answered, limit } = self;
        let connection = connection.as_mut().expect("it is there until this is dropped");
        let answer = match timeout(*limit, question(connection)).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(no_answer().into()),
        };
        let fault = answer.as_ref().err().and_then(Error::fault);
        *answered = fault.is_none_or(|fault| fault.leaves_connection());
        answer
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.answered {
            // The pool pings what comes back to it, without a limit of its own.
            let limit = self.limit;
            tokio::spawn(async move { timeout(limit, connection.return_to_pool()).await });
        } else {
            drop(connection.detach());
        }
    }
}

/// Asks again what ended in a deadlock: nothing was done then.
pub(super) async fn despite_deadlocks<T, A>(ask: impl Fn() -> A) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
            Err(error) if error.fault() == Some(Fault::Again) => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// A connection of its own, which waits for nobody else's questions: kept between questions, and made anew when it is lost.
#[derive(Debug)]
pub(super) struct Line {
    options: Arc<PgConnectOptions>,
    kept: Option<(PgConnection, Instant)>,
}

impl Line {
    /// To where the pool's connections lead.
    pub(super) fn new(pool: &PgPool) -> Self {
        Self { options: pool.connect_options(), kept: None }
    }

    /// The same, for statements that look up rows by their primary keys and nothing else. Their plans are made once, perhaps while the
    /// tables are still small, and kept: so nothing else may look cheaper.
    pub(super) fn for_lookups(pool: &PgPool) -> Self {
        let settings = [
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            // What is forbidden only looks dear: then this would compile the plan.
            ("jit", "off"),
        ];
        let options = PgConnectOptions::clone(&pool.connect_options()).options(settings);
        Self { options: Arc::new(options), kept: None }
    }

    /// The connection, tried or new, for one question; to be given back by [`Line::keep`].
    ///
    /// # Errors
    /// None is to be had within `limit`. Nothing was asked then.
    pub(super) async fn take(&mut self, limit: Duration) -> Result<PgConnection, sqlx::Error> {
        let limit = limit.min(CONNECT);
        if let Some((mut connection, asked_at)) = self.kept.take() {
            let trial = TRIAL.min(limit / 2);
            if asked_at.elapsed() < FRESH || in_time(trial, connection.ping()).await.is_ok() {
                return Ok(connection);
            }
        }
        in_time(limit, PgConnection::connect_with(&self.options)).await
    }

    /// Keeps the connection for the next question, if it is good for one after this answer.
    pub(super) fn keep<T>(&mut self, connection: PgConnection, answer: &Result<T, sqlx::Error>) {
        match answer {
            Err(error) if !Fault::of(error).leaves_connection() => drop(connection),
            _ => self.kept = Some((connection, Instant::now())),
        }
    }
}

/// A lost answer, if there is none in time.
pub(super) async fn in_time<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, asked).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}
