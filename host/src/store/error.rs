//! What can go wrong in the store, by what the caller can do about it.

use std::sync::Arc;

use aster_core::id::Fence;
use aster_core::keyvalue::Key;

#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Postgres didn't answer in time, or can't work now. Whether a write was done is unknown; it may be asked for again.
    /// Commits never end so.
    #[error("the database is unavailable: {}", reason(cause))]
    Unavailable { cause: Arc<sqlx::Error> },
    /// What answers at the database's address is nothing that a host can work with.
    #[error("{reason}")]
    Unusable { reason: String },
    /// Someone else has the run now; what the caller knows of it is void.
    #[error("the run is owned by another host: held fence {}, current fence {}", held.0, current.0)]
    NotOwner { held: Fence, current: Fence },
    /// The answer was lost, and the transition was surely not applied and never will be. The caller still owns the run,
    /// under this fence, and may commit again.
    #[error("the transition was not committed; the run's fence is now {}", fence.0)]
    NotCommitted { fence: Fence },
    /// These keys changed after they were read: the step is to be run again.
    #[error("{} key(s) changed after they were read", keys.len())]
    Conflict { keys: Vec<Key> },
    /// Postgres, or the store before it, can't take this data, however often it is sent. Nothing else is to blame.
    #[error("refused: {reason}")]
    Refused { reason: String },
    /// The registry has changed since the generation that the caller resolved against: resolve again.
    #[error("the registry has moved to generation {current}")]
    RegistryMoved { current: i64 },
    #[error("there is no {what}")]
    NotFound { what: String },
    /// A version that is active, or that an unfinished run pins.
    #[error("{what} is in use: {by}")]
    InUse { what: String, by: String },
    /// Another definition of the tenant answers this path.
    #[error("`{path}` is already answered by `{definition}`")]
    PathTaken { path: String, definition: String },
    /// The host's lease ended and its runs were given to others: it has to register anew.
    #[error("the host was retired")]
    HostRetired,
    /// What is stored can't be read: damaged, or written by a newer host.
    #[error("stored data can't be read: {what}")]
    Corrupt { what: String },
}

impl Error {
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    /// What it means for what was written; none if it is no failure of a statement.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Unavailable { cause } => Some(Fault::of(cause)),
            _ => None,
        }
    }

    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match Fault::of(&error) {
            Fault::Data(reason) => Self::Refused { reason },
            Fault::Unreadable => Self::corrupt(error.to_string()),
            Fault::Again | Fault::Busy | Fault::Locked | Fault::Lost => {
                Self::Unavailable { cause: Arc::new(error) }
            }
        }
    }
}

/// Why a statement failed, in the words of Postgres or of the system.
fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refusal) => match refusal.code() {
            Some(code) => format!("{} ({code})", refusal.message()),
            None => refusal.message().to_owned(),
        },
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            "it does not answer in time".to_owned()
        }
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::PoolTimedOut => "all of this host's connections to it are busy".to_owned(),
        error => error.to_string(),
    }
}

/// What a failed statement means for what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing was written, and this data never will be.
    Data(String),
    /// Nothing was written; to be tried again soon.
    Again,
    /// Nothing was written; Postgres can't work now, or not on this.
    Busy,
    /// Nothing was written; somebody holds a lock for long.
    Locked,
    /// It may have been written, now or in a while.
    Lost,
    /// It was done, but the answer makes no sense.
    Unreadable,
}

impl Fault {
    /// Whether the connection can be asked again. One that owes an answer can't. A Postgres that can't work may be one that was
    /// replaced by another, to which a new connection leads.
    pub(super) fn leaves_connection(&self) -> bool {
        match self {
            Self::Data(_) | Self::Again | Self::Locked => true,
            Self::Busy | Self::Lost | Self::Unreadable => false,
        }
    }

    /// Classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub(super) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                match code.get(..2).unwrap_or_default() {
                    // Data exceptions, violated constraints, limits of the program (too deep, too large).
                    "22" | "23" | "54" => Self::Data(refusal.message().to_owned()),
                    // "Statement completion unknown".
                    "40" if code == "40003" => Self::Lost,
                    // Deadlocks and serialization failures.
                    "40" => Self::Again,
                    // Broken connections; shut down, crashed or starting.
                    "08" => Self::Lost,
                    "57" if code.starts_with("57P") => Self::Lost,
                    "55" if code == "55P03" => Self::Locked,
                    _ => Self::Busy,
                }
            }
            sqlx::Error::Encode(error) => Self::Data(error.to_string()),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Busy,
            sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::RowNotFound => Self::Unreadable,
            _ => Self::Lost,
        }
    }
}
