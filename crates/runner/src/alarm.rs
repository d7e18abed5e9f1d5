//! When the claim loop looks next.

use std::sync::Mutex;
use std::time::Duration;

use aster_core::time::Timestamp;
use tokio::sync::Notify;

use crate::shared::UNPOISONED;

/// Rings when it is set to an earlier instant than before, so that the claim loop looks at that one.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// The earliest instant at which this host knows that a run is due.
    next: Mutex<Option<Timestamp>>,
    rung: Notify,
}

impl Alarm {
    /// Lets the claim loop look at `at`.
    pub(crate) fn set(&self, at: Timestamp) {
        let mut next = self.next.lock().expect(UNPOISONED);
        if next.is_none_or(|next| at < next) {
            *next = Some(at);
            self.rung.notify_one();
        }
    }

    /// How long the claim loop, which has just looked at what is due `now`, may wait: until the next instant that is known
    /// here, at most for `longest`.
    pub(crate) fn pause(&self, now: Timestamp, longest: Duration) -> Duration {
        let mut next = self.next.lock().expect(UNPOISONED);
        *next = next.filter(|next| *next > now);
        next.map_or(longest, |next| next.since(now).min(longest))
    }

    /// Waits until it is set to an earlier instant, unless it was since the last call.
    pub(crate) async fn rings(&self) {
        self.rung.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LONGEST: Duration = Duration::from_millis(500);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn it_rings_for_an_earlier_instant_only() {
        let alarm = Alarm::default();
        let rings = || alarm.rings().now_or_never().is_some();
        assert!(!rings());
        alarm.set(at(1_000));
        assert!(rings() && !rings());
        alarm.set(at(1_000));
        alarm.set(at(1_001));
        assert!(!rings());
        alarm.set(at(999));
        assert!(rings());
    }

    #[test]
    fn the_pause_ends_at_the_next_instant_that_is_not_over() {
        let alarm = Alarm::default();
        assert_eq!(alarm.pause(at(0), LONGEST), LONGEST);
        alarm.set(at(1_000));
        assert_eq!(alarm.pause(at(0), LONGEST), LONGEST);
        assert_eq!(alarm.pause(at(900), LONGEST), Duration::from_millis(100));
        assert_eq!(alarm.pause(at(1_000), LONGEST), LONGEST);
        // It was looked at, and is forgotten: a later instant is the earliest one again.
        alarm.set(at(1_200));
        assert_eq!(alarm.pause(at(1_000), LONGEST), Duration::from_millis(200));
    }
}
