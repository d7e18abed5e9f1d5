//! Bugs to be planted, one at a time: a simulation that can't fail shows nothing.

use aster_core::event::Event;
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, Transition};

/// A mistake, in the database's part or in the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A commit goes through whoever owns the run and wherever its log ends.
    FenceIsIgnored,
    /// A commit goes through although what was read has changed.
    StaleReadsAreTaken,
    /// A commit whose answer was lost is sent again instead of settled, under the same fence.
    LostAnswersAreSentAgain,
    /// A host is taken for dead while its lease still runs.
    LeaseIsIgnored,
    /// The same key starts another run.
    KeysAreForgotten,
    /// What an attempt read isn't told to the commit.
    ReadsAreNotTold,
    /// What a step wrote isn't told to the commit.
    WritesAreNotTold,
    /// A run that waits for a retry is never woken.
    WakeUpsAreForgotten,
    /// The compensations are run first to last.
    CompensationsAreTurnedRound,
    /// The last compensation is forgotten.
    OneCompensationIsForgotten,
    /// A completed step is recorded twice.
    CompletionsAreRepeated,
    /// A run that is given back just when an order comes isn't woken.
    StrayOrdersAreLeft,
    /// Now and then nobody tells a driver what became of its commit: only the watchdog can notice.
    AnswersAreForgotten,
    /// What depends on a refused commit stays in line and is read by others, until it is noticed in its turn.
    RefusalsLeaveFollowers,
}

impl Bug {
    pub const ALL: [Self; 14] = [
        Self::FenceIsIgnored,
        Self::StaleReadsAreTaken,
        Self::LostAnswersAreSentAgain,
        Self::LeaseIsIgnored,
        Self::KeysAreForgotten,
        Self::ReadsAreNotTold,
        Self::WritesAreNotTold,
        Self::WakeUpsAreForgotten,
        Self::CompensationsAreTurnedRound,
        Self::OneCompensationIsForgotten,
        Self::CompletionsAreRepeated,
        Self::StrayOrdersAreLeft,
        Self::AnswersAreForgotten,
        Self::RefusalsLeaveFollowers,
    ];
}

/// The transition as an engine with the bug would make it.
pub(super) fn spoil(bug: Option<Bug>, mut transition: Transition) -> Transition {
    match bug {
        Some(Bug::ReadsAreNotTold) => transition.effects.reads.clear(),
        Some(Bug::WritesAreNotTold) => transition.effects.writes.clear(),
        Some(Bug::WakeUpsAreForgotten) => {
            if let Driver::ClaimableAt(at) = &mut transition.run.driver {
                *at = Timestamp::from_millis(i64::MAX);
            }
        }
        Some(Bug::CompensationsAreTurnedRound) => change(&mut transition, |undone| undone.reverse()),
        Some(Bug::OneCompensationIsForgotten) => change(&mut transition, |undone| drop(undone.pop())),
        Some(Bug::CompletionsAreRepeated) => {
            let is_completion = |event: &&Event| matches!(event, Event::StepCompleted { .. });
            let completed = transition.events.iter().find(is_completion).cloned();
            transition.events.splice(0..0, completed);
        }
        _ => {}
    }
    transition
}

fn change(transition: &mut Transition, how: impl Fn(&mut Vec<aster_core::plan::StepName>)) {
    for event in &mut transition.events {
        if let Event::WorkflowFailed { compensations, .. } = event {
            how(compensations);
        }
    }
}
