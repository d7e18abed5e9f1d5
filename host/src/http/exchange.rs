//! The state that a connection's wire and the service behind it share: whether a request is being answered.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

/// One for each connection. Both sides run in one task, so memory ordering doesn't matter.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    phase: AtomicU8,
    /// Whether the client may still send parts of a body that nobody reads.
    unread: AtomicBool,
    /// The share of the memory for large answers that this connection's answer holds. hyper may keep the whole answer
    /// long after it has dropped its body.
    room: Mutex<Option<OwnedSemaphorePermit>>,
}

/// No request is under way; at most a part of a request's head has arrived.
const IDLE: u8 = 0;
/// A request has arrived, and its answer isn't complete.
const BUSY: u8 = 1;
/// The whole answer is handed over, but the wire may not have taken all of it.
const ANSWERED: u8 = 2;

impl Exchange {
    pub(super) fn begin(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// Notes that the answer's body was read to its end, or dropped.
    pub(super) fn end(&self) {
        self.phase.store(ANSWERED, Ordering::Relaxed);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == IDLE
    }

    /// Notes that everything handed over is written. Returns whether this completes an answer.
    pub(super) fn flushed(&self) -> bool {
        let is_complete = self.phase.load(Ordering::Relaxed) == ANSWERED;
        if is_complete {
            self.set_room(None);
            self.phase.store(IDLE, Ordering::Relaxed);
        }
        is_complete
    }

    /// Keeps `room` until the answer is written or the connection ends.
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
