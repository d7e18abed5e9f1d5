//! Finds the components whose guests hold a thread for long without yielding.
//!
//! A guest yields only at its ticks. Converting large values, bulk instructions (`memory.fill`) and returning memory
//! that was touched all take time without one. So the host notices only afterwards that a guest held its thread, and
//! uses that to decide where the next calls of the same component begin.
//!
//! A component that has held a thread is heavy, until a number of its calls in a row were light. The number doubles
//! each time. So a component that was heavy by chance becomes light again, and one that holds threads now and then does
//! so ever more rarely.
//!
//! The wall clock says at no cost that a thread may have been held. The processor's clock (1.3 µs on some machines)
//! says whether it was: the system may have given the processor to another thread meanwhile. So the processor's clock
//! is read only for components under suspicion.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a guest may compute among the host's tasks, over all its polls. This is about a hundred times what a small
/// guest takes, and less than half a tick.
pub(super) const LIGHT: Duration = Duration::from_millis(2);
/// How many calls in a row must be light before a component that held a thread once counts as light.
const FIRST_SENTENCE: u32 = 64;
const LONGEST_SENTENCE: u32 = 1 << 20;
/// For how many light polls a component stays under suspicion.
const SUSPICION: u32 = 10_000;

/// What is known about the weight of a component.
#[derive(Debug, Default)]
pub(super) struct Weight {
    /// How many more polls must be light before the suspicion ends; 0 if there is none.
    suspicion: AtomicU32,
    /// How many more calls must be light before the component is; 0 if it is.
    left: AtomicU32,
    /// The last number of calls that had to be light.
    sentence: AtomicU32,
}

impl Weight {
    pub(super) fn is_heavy(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Notes how long a call of a heavy component held its thread at most. Calls that end at the same time may be
    /// counted as one, which does no harm.
    pub(super) fn has_held(&self, longest: Duration) {
        let left = self.left.load(Ordering::Relaxed);
        let left =
            if longest > LIGHT { self.sentence.load(Ordering::Relaxed) } else { left.saturating_sub(1) };
        self.left.store(left, Ordering::Relaxed);
    }

    fn condemn(&self) {
        let sentence = self.sentence.load(Ordering::Relaxed);
        let sentence = sentence.saturating_mul(2).clamp(FIRST_SENTENCE, LONGEST_SENTENCE);
        self.sentence.store(sentence, Ordering::Relaxed);
        self.left.store(sentence, Ordering::Relaxed);
    }
}

/// Measures one poll of a light component's guest.
pub(super) struct Watch {
    began: Instant,
    /// The processor's time at the beginning, for a suspect only.
    processor: Option<Duration>,
}

impl Watch {
    pub(super) fn start(weight: &Weight) -> Self {
        let is_suspect = weight.suspicion.load(Ordering::Relaxed) > 0;
        Self { began: Instant::now(), processor: is_suspect.then(processor_time) }
    }

    /// Returns how long the guest computed, as far as that is known, and updates the component's weight.
    ///
    /// A poll that was long by the wall clock alone doesn't count. The system may have given the processor to another
    /// thread in the middle of it, and a small guest that moved for that would wait behind those that hold their
    /// thread.
    pub(super) fn stop(self, weight: &Weight) -> Duration {
        let elapsed = self.began.elapsed();
        let is_long = elapsed > LIGHT;
        match self.processor {
            None if is_long => {
                weight.suspicion.store(SUSPICION, Ordering::Relaxed);
                Duration::ZERO
            }
            None => elapsed,
            Some(began) if is_long => {
                let computed = processor_time().saturating_sub(began);
                if computed > LIGHT {
                    weight.condemn();
                } else {
                    // The system caused the delay, and may have caused the one before.
                    weight.suspicion.store(0, Ordering::Relaxed);
                }
                computed
            }
            Some(_) => {
                let left = weight.suspicion.load(Ordering::Relaxed);
                weight.suspicion.store(left.saturating_sub(1), Ordering::Relaxed);
                elapsed
            }
        }
    }
}

/// Returns how long the calling thread has run.
#[cfg(target_os = "linux")]
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The wall clock serves where there is no other.
#[cfg(not(target_os = "linux"))]
pub(super) fn processor_time() -> Duration {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGAN.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(weight: &Weight) {
        let watch = Watch::start(weight);
        let began = processor_time();
        while processor_time() - began <= LIGHT {
            std::hint::spin_loop();
        }
        watch.stop(weight);
    }

    /// Makes calls of a heavy component, all light but the last.
    fn serve(weight: &Weight, calls: u32, last: Duration) {
        for _ in 1..calls {
            weight.has_held(Duration::from_micros(10));
            assert!(weight.is_heavy());
        }
        weight.has_held(last);
    }

    #[test]
    fn a_component_that_holds_a_thread_twice_is_heavy_until_many_calls_were_light() {
        let weight = Weight::default();
        hold(&weight);
        assert!(!weight.is_heavy(), "once may be the system's doing");
        Watch::start(&weight).stop(&weight);
        for sentence in [FIRST_SENTENCE, 2 * FIRST_SENTENCE] {
            hold(&weight);
            serve(&weight, sentence, Duration::ZERO);
            assert!(!weight.is_heavy());
        }
    }

    #[test]
    fn a_heavy_component_that_holds_a_thread_starts_counting_again() {
        let weight = Weight::default();
        hold(&weight);
        hold(&weight);
        serve(&weight, FIRST_SENTENCE, 2 * LIGHT);
        serve(&weight, FIRST_SENTENCE, Duration::ZERO);
        assert!(!weight.is_heavy());
    }

    #[test]
    fn a_component_that_waits_for_the_processor_is_not_heavy() {
        let weight = Weight::default();
        for _ in 0..10 {
            let watch = Watch::start(&weight);
            std::thread::sleep(LIGHT * 2);
            assert!(watch.stop(&weight) < LIGHT);
        }
        assert!(!weight.is_heavy());
    }
}
