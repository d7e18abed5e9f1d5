//! The values that pass between whoever drives runs and whatever keeps them.
//!
//! A journal keeps runs with their logs, says which host owns each of them, and changes a run only by a
//! [`Transition`](crate::transition::Transition). The host's journal is its database, a simulation's is a model of it.

use crate::event::Event;
use crate::id::{Fence, HostId, ReleaseId, TenantId, WorkflowId};
use crate::state::{Accepted, Status};
use crate::time::Timestamp;
use crate::transition::RunRecord;

/// A run to be accepted.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// A new UUIDv7. Sending it again is the same acceptance.
    pub workflow_id: WorkflowId,
    pub tenant: TenantId,
    /// The full name.
    pub definition: String,
    pub release: ReleaseId,
    /// Of the registry, when `release` was resolved.
    pub generation: i64,
    pub key: Option<String>,
    /// JSON text.
    pub input: String,
    /// SHA-256 of the input as canonical JSON.
    pub input_digest: [u8; 32],
    pub accepted_at: Timestamp,
    pub deadline: Timestamp,
    /// `None` means that the run is READY, and the host that claims it first starts it.
    pub start: Option<Start>,
}

/// The first transition of a run, made in the same commit as its acceptance.
#[derive(Clone, Debug)]
pub struct Start {
    pub host: HostId,
    pub events: Vec<Event>,
    pub run: RunRecord,
}

impl NewRun {
    /// The fence under which a run that was started with its acceptance goes on.
    pub const FIRST_FENCE: Fence = Fence(1);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    New {
        /// The failed run from which it took the key.
        previous: Option<WorkflowId>,
    },
    /// The key's run has the same input: it is the answer.
    Existing {
        workflow_id: WorkflowId,
        status: Status,
        accepted_at: Timestamp,
        /// The failed run from which that one took the key.
        previous: Option<WorkflowId>,
    },
    /// The key's run has other input, and isn't one that failed with everything undone.
    KeyReused { workflow_id: WorkflowId, status: Status },
}

/// What came of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// How many runs were due, at most as many as were asked for. More than were claimed if another host took some of them at
    /// the same time: then there may be others.
    pub seen: usize,
    pub runs: Vec<ClaimedRun>,
}

/// A run that is the host's now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedRun {
    pub workflow_id: WorkflowId,
    pub fence: Fence,
    /// Whether a host that drove it was found dead since its newest event. A run that waited, or that a host handed over in
    /// order, has lost none.
    pub host_lost: bool,
}

/// All that replay needs of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    pub tenant: TenantId,
    pub key: Option<String>,
    pub accepted: Accepted,
    /// From the first to the newest when the run was read.
    pub events: Vec<Event>,
    /// Whether people want something of it. It is read after all else, so that the host that has claimed the run misses nothing.
    pub ordered: bool,
}

/// What became of an order that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Whether it will be carried out, unless the run ends or changes before; false if the run's status is none for it.
    pub taken: bool,
    pub status: Status,
}

/// A transition that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Under which the run goes on: raised if the answer was lost and had to be settled.
    pub fence: Fence,
}

/// Where a run stands in its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub fence: Fence,
    pub owner: Option<HostId>,
    /// The sequence of the newest event that is durable.
    pub last_sequence: u64,
}

/// A transition whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostAnswer {
    /// The host that sent it.
    pub host: HostId,
    /// The fence under which it was sent.
    pub held: Fence,
    /// The run's last sequence before the transition, and with it.
    pub last_sequence: u64,
    pub new_sequence: u64,
    /// Whether the host keeps the run.
    pub stays: bool,
}

/// What became of a transition whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Committed(Committed),
    /// It was not committed and never will be. The host still owns the run, under this fence.
    NotCommitted {
        fence: Fence,
    },
    /// The run is another host's, or nobody's, or this host's anew: the run no longer tells, or says that nothing was committed.
    NotOwner {
        current: Fence,
    },
}

impl LostAnswer {
    /// Says what became of the transition. `position` is where its run stands after the run's fence was raised by one, if the
    /// host still owned the run under the fence `held`: so nothing that was sent under that fence can arrive any more. The
    /// question may be repeated.
    ///
    /// With a fence one above `held`, there are three cases. The fence was raised for this question or an earlier one: the run
    /// is still the host's. The transition in question gave the run up: it is nobody's. The run was released because the host
    /// was taken for dead: it is nobody's either, and the log says that nothing was committed. Nothing else can have been
    /// written under `held`, so the log's end tells. A run that was claimed or adopted since has a higher fence.
    pub fn settle(self, position: Position) -> Settled {
        let Position { fence, owner, last_sequence } = position;
        let is_owned = owner == Some(self.host);
        if fence.0 > self.held.0 + 1 || (owner.is_some() && !is_owned) {
            return Settled::NotOwner { current: fence };
        }
        // A hand-back without events leaves the log alone and takes the owner away.
        let has_events = self.new_sequence > self.last_sequence;
        let is_applied = match has_events {
            true => last_sequence >= self.new_sequence,
            false => self.stays || !is_owned,
        };
        match is_applied {
            true => Settled::Committed(Committed { fence }),
            false if is_owned => Settled::NotCommitted { fence },
            false => Settled::NotOwner { current: fence },
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HERE: HostId = HostId(Uuid::from_u128(1));
    const THERE: HostId = HostId(Uuid::from_u128(2));

    /// Sent under fence 4, when the log ended at 7.
    fn sent(events: u64, stays: bool) -> LostAnswer {
        LostAnswer { host: HERE, held: Fence(4), last_sequence: 7, new_sequence: 7 + events, stays }
    }

    fn check(sent: LostAnswer, fence: i64, owner: Option<HostId>, last_sequence: u64, expected: Settled) {
        let position = Position { fence: Fence(fence), owner, last_sequence };
        assert_eq!(sent.settle(position), expected, "{sent:?}, {position:?}");
    }

    fn committed(fence: i64) -> Settled {
        Settled::Committed(Committed { fence: Fence(fence) })
    }

    fn not_owner(fence: i64) -> Settled {
        Settled::NotOwner { current: Fence(fence) }
    }

    const NOT_COMMITTED: Settled = Settled::NotCommitted { fence: Fence(5) };

    #[test]
    fn the_logs_end_tells_what_became_of_events() {
        check(sent(2, true), 5, Some(HERE), 9, committed(5));
        check(sent(2, true), 5, Some(HERE), 7, NOT_COMMITTED);
        // It gave the run up, or it didn't and the fence was raised by the question.
        check(sent(2, false), 5, None, 9, committed(5));
        check(sent(2, false), 5, Some(HERE), 7, NOT_COMMITTED);
        // The host was taken for dead, before or after.
        check(sent(2, true), 5, None, 7, not_owner(5));
        check(sent(2, true), 5, None, 9, committed(5));
    }

    #[test]
    fn the_owner_tells_what_became_of_a_run_that_is_given_up_without_events() {
        check(sent(0, false), 5, None, 7, committed(5));
        check(sent(0, false), 5, Some(HERE), 7, NOT_COMMITTED);
        check(sent(0, true), 5, Some(HERE), 7, committed(5));
    }

    #[test]
    fn a_run_that_was_taken_since_tells_nothing() {
        for events in [0, 2] {
            for stays in [false, true] {
                for last_sequence in [7, 9] {
                    check(sent(events, stays), 5, Some(THERE), last_sequence, not_owner(5));
                    check(sent(events, stays), 6, Some(THERE), last_sequence, not_owner(6));
                    // Its own host has claimed or adopted it.
                    check(sent(events, stays), 6, Some(HERE), last_sequence, not_owner(6));
                    check(sent(events, stays), 6, None, last_sequence, not_owner(6));
                }
            }
        }
    }
}
