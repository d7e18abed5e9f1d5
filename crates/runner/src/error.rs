//! What the runner hears from its ports instead of an answer, by what it can do about it.

use std::sync::Arc;

use aster_core::id::Fence;
use aster_core::keyvalue::Key;

use crate::session::Unavailable;

/// What lies behind an error. The runner shows it, and looks no further.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database didn't answer in time, or can't work now. Whether a write was done is unknown; it may be asked for again.
    /// Commits never end so.
    #[error("the database is unavailable: {cause}")]
    Unavailable { fault: Fault, cause: Cause },
    /// Another host has the run now; what the caller knows of it is void.
    #[error("the run is owned by another host: held fence {}, current fence {}", held.0, current.0)]
    NotOwner { held: Fence, current: Fence },
    /// The answer was lost, and the transition was surely not applied and never will be. The caller still owns the run,
    /// under this fence, and may commit again.
    #[error("the transition was not committed; the run's fence is now {}", fence.0)]
    NotCommitted { fence: Fence },
    /// These keys changed after they were read: the step is to be run again.
    #[error("{} key(s) changed after they were read", keys.len())]
    Conflict { keys: Vec<Key> },
    /// This data can't be stored, however often it is sent. Nothing else is to blame.
    #[error("refused: {reason}")]
    Refused { reason: String },
    /// The registry has changed since the generation that the caller resolved against: resolve again.
    #[error("the registry has moved to generation {current}")]
    RegistryMoved { current: i64 },
    #[error("there is no {what}")]
    NotFound { what: String },
    /// The host's lease ended and its runs were given to others: it has to register anew.
    #[error("the host was retired")]
    HostRetired,
    /// What is stored can't be read: damaged, or written by a newer host.
    #[error("stored data can't be read: {what}")]
    Corrupt { what: String },
    /// Any other trouble of the host's own. It says nothing about the run or the step.
    #[error("{cause}")]
    Other {
        cause: Cause,
        /// Whether the same may succeed in a while.
        may_pass: bool,
    },
}

impl Error {
    /// Whether the same may succeed in a while.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Other { may_pass, .. } => *may_pass,
            _ => false,
        }
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        Self::Other { cause: Arc::new(error), may_pass: true }
    }
}

/// What a failed statement means for what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was written, and this data never will be.
    Data(String),
    /// Nothing was written; to be tried again soon.
    Again,
    /// Nothing was written; the database can't work now, or not on this.
    Busy,
    /// Nothing was written; another session holds a lock for long.
    Locked,
    /// It may have been written, now or in a while.
    Lost,
    /// It was done, but the answer makes no sense.
    Unreadable,
}
