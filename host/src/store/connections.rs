//! How Postgres is asked: every statement goes through here, has a time limit, and leaves a usable connection or none.
//!
//! A connection that owes an answer never goes back to the pool: its next answer could be the missing one, and sqlx waits
//! for that one without a limit. So a connection is closed unless its question was answered, also if who asked is gone.

use std::sync::Arc;
use std::time::Duration;

use aster_runner::Fault;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{Cause, fault, leaves_connection};
use super::{Error, Options, Patience, sessions};

/// A connection that was not used for that long is tried before it is used: one that broke is then no lost answer.
const FRESH: Duration = Duration::from_secs(1);
/// For a trial, which costs Postgres next to nothing.
const TRIAL: Duration = Duration::from_secs(1);
/// For a connection to be tried or made.
const CONNECT: Duration = Duration::from_secs(5);
/// For one of the pool to be had: less than a client's patience, so that there is time to find out why there is none.
const POOL: Duration = Duration::from_millis(2_500);
/// Between attempts at the first connection, while Postgres starts.
const STARTING: Duration = Duration::from_millis(100);
/// Between attempts while Postgres can't work.
const AWAY: Duration = Duration::from_millis(20);
/// Between attempts at a statement that ended in a deadlock.
const PAUSE: Duration = Duration::from_millis(5);

/// What Postgres itself is told about a connection: to end one whose host is gone, so that its locks go too, and to give up
/// what nobody waits for any more, so that it doesn't pile up. What a URL says about the same settings wins.
const SETTINGS: [(&str, &str); 7] = [
    // Clients are answered in time that somebody else holds a lock.
    ("lock_timeout", "3s"),
    // Longer than the longest question.
    ("statement_timeout", "65s"),
    // No transaction here waits for anything but Postgres.
    ("idle_in_transaction_session_timeout", "30s"),
    // A silent host is asked for a sign of life; it is gone after 10 s + 3 * 5 s.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // The same for one that takes no answer.
    ("tcp_user_timeout", "25s"),
];

/// Settings of a connection, as statements. They are set when it is made and not with its first message, in which a pooler
/// would refuse them.
pub(super) type Settings = Arc<str>;

/// `given` without what the URL has said already.
fn settings(options: &PgConnectOptions, given: &[(&str, &str)]) -> Settings {
    let said = options.get_options().unwrap_or_default();
    // `-c name=value` and `-cname=value` mean the same.
    let is_said = |name: &str| {
        let mut words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.any(|word| word == name || word.strip_prefix('c') == Some(name))
    };
    let given = given.iter().filter(|(name, _)| !is_said(name));
    given.map(|(name, value)| format!("set {name} = '{value}';")).collect::<String>().into()
}

/// A new connection.
pub(super) async fn connect(
    options: &PgConnectOptions,
    settings: &Settings,
) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    set(&mut connection, settings).await?;
    Ok(connection)
}

async fn set(connection: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(Arc::clone(settings))).execute(connection).await?;
    Ok(())
}

/// What came of an attempt at a connection, and when.
type Found = (Instant, Arc<Cause>);

/// The pool, and how long its connections are waited for. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) pool: PgPool,
    pub(super) patience: Patience,
    settings: Settings,
    /// Why there was no connection, and when that was found out.
    why: Arc<Mutex<Option<Found>>>,
}

impl Connections {
    /// Those of a pool that somebody has made.
    pub(super) fn of(pool: PgPool, patience: Patience) -> Self {
        let settings = settings(&pool.connect_options(), &SETTINGS);
        Self { pool, patience, settings, why: Arc::default() }
    }

    /// Tries one at once, and waits for a Postgres that is only starting.
    pub(super) async fn open(options: Options) -> Result<Self, Error> {
        let Options { connect: options, max_connections, patience } = options;
        // Postgres has written floats exactly since version 12, and PgBouncer refuses this parameter.
        let options = options.extra_float_digits(None);
        let settings = settings(&options, &SETTINGS);
        let give_up = Instant::now() + CONNECT;
        // By itself: the pool would say for how long it has tried, and not why in vain.
        loop {
            let tried = in_time(CONNECT, connect(&options, &settings)).await;
            match tried {
                Ok(_) => break,
                Err(error) if may_be_starting(&error) && Instant::now() < give_up => sleep(STARTING).await,
                Err(error) => return Err(sessions::named(error)),
            }
        }
        timeout(CONNECT, sessions::check(&options, &settings))
            .await
            .unwrap_or_else(|_| Err(no_answer().into()))?;
        let set_up = Arc::clone(&settings);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(POOL)
            .after_connect(move |connection, _| {
                let settings = Arc::clone(&set_up);
                Box::pin(async move { in_time(CONNECT, set(connection, &settings)).await })
            })
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
            .connect_lazy_with(options);
        Ok(Self { pool, patience, settings, why: Arc::default() })
    }

    /// A connection of the pool, for one question.
    ///
    /// # Errors
    /// None is to be had.
    pub(super) async fn take(&self) -> Result<Taken, Error> {
        let asked_at = Instant::now();
        match self.pool.acquire().await {
            Ok(connection) => {
                let limit = self.patience.answer.saturating_sub(asked_at.elapsed());
                Ok(Taken { connection: Some(connection), answered: false, limit })
            }
            Err(sqlx::Error::PoolTimedOut) => Err(self.why().await),
            Err(error) => Err(error.into()),
        }
    }

    /// Why the pool has no connection: it knows only that it waited. One asks for all that want to know.
    pub(super) async fn why(&self) -> Error {
        let mut known = self.why.lock().await;
        if let Some((found_at, cause)) = &*known
            && found_at.elapsed() < TRIAL
        {
            return Error::unavailable(Arc::clone(cause));
        }
        let tried = in_time(TRIAL, connect(&self.pool.connect_options(), &self.settings)).await;
        let cause = Arc::new(Cause(tried.err().unwrap_or(sqlx::Error::PoolTimedOut)));
        *known = Some((Instant::now(), Arc::clone(&cause)));
        Error::unavailable(cause)
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
        *answered = fault.is_none_or(leaves_connection);
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

/// Asks again while the database is unavailable, until there is an answer or `give_up` has come.
pub(super) async fn persistently<T, A>(give_up: Instant, ask: impl Fn() -> A) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    let mut unavailable = None;
    loop {
        match timeout_at(give_up, ask()).await {
            Ok(Err(error @ Error::Unavailable { .. })) => {
                if Instant::now() + AWAY >= give_up {
                    return Err(error);
                }
                unavailable = Some(error);
                sleep(AWAY).await;
            }
            Ok(answer) => return answer,
            // The reason that was seen last says more than that this one took too long.
            Err(_) => return Err(unavailable.unwrap_or_else(|| no_answer().into())),
        }
    }
}

/// Whether what refuses connections may take them soon.
fn may_be_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(refusal) => matches!(refusal.code().as_deref(), Some("57P03" | "53300")),
        _ => false,
    }
}

/// Asks again what ended in a deadlock: nothing was done then.
pub(super) async fn despite_deadlocks<T, A>(ask: impl Fn() -> A) -> Result<T, Error>
where
    A: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
            Err(error) if error.fault() == Some(&Fault::Again) => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// A connection of its own, which waits for nobody else's questions: kept between questions, and made anew when it is lost.
#[derive(Debug)]
pub(super) struct Line {
    options: Arc<PgConnectOptions>,
    settings: Settings,
    kept: Option<(PgConnection, Instant)>,
}

impl Line {
    /// To where the pool's connections lead.
    pub(super) fn new(pool: &PgPool) -> Self {
        Self::with(pool, &[])
    }

    fn with(pool: &PgPool, more: &[(&str, &str)]) -> Self {
        let options = pool.connect_options();
        let settings = settings(&options, &[&SETTINGS[..], more].concat());
        Self { options, settings, kept: None }
    }

    /// The same, for statements that look up rows by their primary keys and nothing else. Their plans are made once, perhaps while the
    /// tables are still small, and kept: so nothing else may look cheaper.
    pub(super) fn for_lookups(pool: &PgPool) -> Self {
        let more = [
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            // What is forbidden only looks dear: then this would compile the plan.
            ("jit", "off"),
            // Soon, since the commits of all runs wait meanwhile. Then they go one by one.
            ("lock_timeout", "1s"),
        ];
        Self::with(pool, &more)
    }

    /// The same, with another patience for locks that somebody holds.
    pub(super) fn giving_up_locks_after(mut self, limit: &str) -> Self {
        let settings = settings(&self.options, &[("lock_timeout", limit)]);
        self.settings = format!("{}{settings}", self.settings).into();
        self
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
        in_time(limit, connect(&self.options, &self.settings)).await
    }

    /// Keeps the connection for the next question, if it is good for one after this answer.
    pub(super) fn keep<T>(&mut self, connection: PgConnection, answer: &Result<T, sqlx::Error>) {
        match answer {
            Err(error) if !leaves_connection(&fault(error)) => drop(connection),
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

pub(super) fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}
