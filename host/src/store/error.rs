//! What can go wrong in the store, by what the caller can do about it.

use std::fmt;
use std::sync::Arc;

use aster_core::id::Fence;
use aster_core::keyvalue::Key;
use aster_runner::Fault;

#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Postgres didn't answer in time, or can't work now. Whether a write was done is unknown; it may be asked for again.
    /// Commits never end so.
    #[error("the database is unavailable: {cause}")]
    Unavailable { fault: Fault, cause: aster_runner::Cause },
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

    pub(super) fn unavailable(cause: Arc<Cause>) -> Self {
        Self::Unavailable { fault: fault(&cause.0), cause }
    }

    /// What it means for what was written. `None` means that it is no failure of a statement.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Unavailable { fault, .. } => Some(fault),
            _ => None,
        }
    }

    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match fault(&error) {
            Fault::Data(reason) => Self::Refused { reason },
            Fault::Unreadable => Self::corrupt(error.to_string()),
            Fault::Again | Fault::Busy | Fault::Locked | Fault::Lost => {
                Self::unavailable(Arc::new(Cause(error)))
            }
        }
    }
}

/// The runner can act on the same kinds of errors; it gets the others as they are.
impl From<Error> for aster_runner::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable { fault, cause } => Self::Unavailable { fault, cause },
            Error::NotOwner { held, current } => Self::NotOwner { held, current },
            Error::NotCommitted { fence } => Self::NotCommitted { fence },
            Error::Conflict { keys } => Self::Conflict { keys },
            Error::Refused { reason } => Self::Refused { reason },
            Error::RegistryMoved { current } => Self::RegistryMoved { current },
            Error::NotFound { what } => Self::NotFound { what },
            Error::HostRetired => Self::HostRetired,
            Error::Corrupt { what } => Self::Corrupt { what },
            other @ (Error::Unusable { .. } | Error::InUse { .. } | Error::PathTaken { .. }) => {
                Self::Other { cause: Arc::new(other), may_pass: false }
            }
        }
    }
}

/// An error of the runner or of the commit line, which the store may have given them before.
impl From<aster_runner::Error> for Error {
    fn from(error: aster_runner::Error) -> Self {
        use aster_runner::Error as Told;
        match error {
            Told::Unavailable { fault, cause } => Self::Unavailable { fault, cause },
            Told::NotOwner { held, current } => Self::NotOwner { held, current },
            Told::NotCommitted { fence } => Self::NotCommitted { fence },
            Told::Conflict { keys } => Self::Conflict { keys },
            Told::Refused { reason } => Self::Refused { reason },
            Told::RegistryMoved { current } => Self::RegistryMoved { current },
            Told::NotFound { what } => Self::NotFound { what },
            Told::HostRetired => Self::HostRetired,
            Told::Corrupt { what } => Self::Corrupt { what },
            Told::Other { cause, .. } => match cause.downcast_ref::<Self>() {
                Some(own) => own.clone(),
                None => Self::corrupt(cause.to_string()),
            },
        }
    }
}

/// Why a statement failed. Its text is the reason, in words that can be shown.
#[derive(Debug)]
pub(super) struct Cause(pub(super) sqlx::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&reason(&self.0))
    }
}

impl std::error::Error for Cause {}

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

/// Whether a connection can be asked again after a fault. One that owes an answer can't. A Postgres that can't work may be one
/// that was replaced by another, to which a new connection leads.
pub(super) fn leaves_connection(fault: &Fault) -> bool {
    match fault {
        Fault::Data(_) | Fault::Again | Fault::Locked => true,
        Fault::Busy | Fault::Lost | Fault::Unreadable => false,
    }
}

/// What a failed statement means for what it wrote, by the classes of
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(refusal) => {
            let code = refusal.code().unwrap_or_default();
            match code.get(..2).unwrap_or_default() {
                // Data exceptions, violated constraints, limits of the program (too deep, too large).
                "22" | "23" | "54" => Fault::Data(refusal.message().to_owned()),
                // "Statement completion unknown".
                "40" if code == "40003" => Fault::Lost,
                // Deadlocks and serialization failures.
                "40" => Fault::Again,
                // Broken connections; shut down, crashed or starting.
                "08" => Fault::Lost,
                "57" if code.starts_with("57P") => Fault::Lost,
                "55" if code == "55P03" => Fault::Locked,
                _ => Fault::Busy,
            }
        }
        sqlx::Error::Encode(error) => Fault::Data(error.to_string()),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Fault::Busy,
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => Fault::Unreadable,
        _ => Fault::Lost,
    }
}
