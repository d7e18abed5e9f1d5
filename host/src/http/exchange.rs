//! What a connection's wire and the service behind it tell each other: whether a request is being answered.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

/// One for each connection. Both sides run in one task, so no order of memory matters.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    phase: AtomicU8,
    /// The client may still send of a body that nobody reads.
    unread: AtomicBool,
    /// What a large answer takes of the memory for all of them. hyper may hold the whole of it when its body is long given up.
    room: Mutex<Option<OwnedSemaphorePermit>>,
}

/// No request is under way, or only a part of its head has come.
const IDLE: u8 = 0;
/// A request has come, and its answer isn't complete.
const BUSY: u8 = 1;
/// The whole answer is handed over; the wire may not have taken all of it.
const ANSWERED: u8 = 2;

impl Exchange {
    pub(super) fn begin(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// The answer's body was given to its end, or given up.
    pub(super) fn end(&self) {
        self.phase.store(ANSWERED, Ordering::Relaxed);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == IDLE
    }

    /// All that was handed over is written. Whether an answer is complete with that.
    pub(super) fn flushed(&self) -> bool {
        let is_complete = self.phase.load(Ordering::Relaxed) == ANSWERED;
        if is_complete {
            self.set_room(None);
            self.phase.store(IDLE, Ordering::Relaxed);
        }
        is_complete
    }

    /// Kept until the answer is written, or the connection ends.
    pub(super) fn set_room(&self, room: Option<OwnedSemaphorePermit>) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }

    pub(super) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }
}
