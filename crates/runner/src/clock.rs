//! The database's clock, as a host knows it between two readings.

use std::sync::RwLock;

use aster_core::time::Timestamp;
use tokio::time::Instant;

/// A reading of the database's clock and the monotonic instant of it. Hosts whose own clocks differ agree by this one.
#[derive(Debug)]
pub(crate) struct Clock(RwLock<(Timestamp, Instant)>);

impl Clock {
    /// `read_at` is when the answer came: so that the clock is rather slow than fast, by the answer's way.
    pub(crate) fn new(reading: Timestamp, read_at: Instant) -> Self {
        Self(RwLock::new((reading, read_at)))
    }

    pub(crate) fn set(&self, reading: Timestamp, read_at: Instant) {
        *self.0.write().expect("nothing panics while it is held") = (reading, read_at);
    }

    pub(crate) fn now(&self) -> Timestamp {
        let (reading, read_at) = *self.0.read().expect("nothing panics while it is held");
        reading.plus_millis(u64::try_from(read_at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
