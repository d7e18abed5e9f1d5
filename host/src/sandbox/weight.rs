//! Which components' guests hold a thread for long without giving way.
//!
//! A guest gives way at its ticks only. Large values are converted, bulk instructions (`memory.fill`) carried out and memory that was
//! touched is given back without one. So a guest can be seen to hold its thread only afterwards, and what is known of one call
//! decides where the next ones of the same component begin.
//!
//! A component that has held a thread is heavy, and stays so until a number of its calls in a row were light; the number doubles each
//! time. So one that was heavy by chance comes back, and one that holds threads now and then does so ever more rarely.
//!
//! The wall clock says at no cost that a thread may have been held, and that of the processor (1.3 µs on some machines) whether it
//! was: the system may have given the processor to others meanwhile. So the second one is read only for components under suspicion.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a guest may compute among the host's tasks, all its polls together. Some hundred times what a small one takes, and
/// less than half a tick.
pub(super) const LIGHT: Duration = Duration::from_millis(2);
/// How many calls in a row must be light before a component that held a thread once is light again.
const FIRST_SENTENCE: u32 = 64;
const LONGEST_SENTENCE: u32 = 1 << 20;
/// For how many light polls a component stays under suspicion.
const SUSPICION: u32 = 10_000;

/// What is known of a component.
#[derive(Debug, Default)]
pub(super) struct Weight {
    /// How many polls must yet be light; 0 while there is no suspicion.
    suspicion: AtomicU32,
    /// How many calls must yet be light; 0 while the component is.
    left: AtomicU32,
    /// How many there were the last time.
    sentence: AtomicU32,
}

impl Weight {
    pub(super) fn is_heavy(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Takes note of how long a call of a heavy component held its thread at most. Calls that end at the same time may be counted as
    /// one, which does no harm.
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
    /// Only for a suspect.
    processor: Option<Duration>,
}

impl Watch {
    pub(super) fn start(weight: &Weight) -> Self {
        let is_suspect = weight.suspicion.load(Ordering::Relaxed) > 0;
        Self { began: Instant::now(), processor: is_suspect.then(processor_time) }
    }

    /// How long the guest computed, as far as that is known; what follows for the component is noted.
    ///
    /// A poll that was long by the wall clock alone counts for nothing: the system may have given the processor to another thread
    /// in the middle of it, and a small guest that moved for that would wait behind those that hold their thread.
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
                    // The system's doing, as it may have been before.
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

/// How long the calling thread has run.
#[cfg(target_os = "linux")]
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The wall clock does where there is no other.
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

    /// Calls of a heavy component, all light but the last.
    fn serve(weight: &Weight, calls: u32, last: Duration) {
        for _ in 1..calls {
            weight.has_held(Duration::from_micros(10));
            assert!(weight.is_heavy());
        }
        weight.has_held(last);
    }

    #[test]
    fn who_holds_a_thread_twice_is_heavy_until_many_calls_were_light() {
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
    fn who_holds_a_thread_while_heavy_begins_to_count_anew() {
        let weight = Weight::default();
        hold(&weight);
        hold(&weight);
        serve(&weight, FIRST_SENTENCE, 2 * LIGHT);
        serve(&weight, FIRST_SENTENCE, Duration::ZERO);
        assert!(!weight.is_heavy());
    }

    #[test]
    fn who_waits_for_the_processor_is_not_heavy() {
        let weight = Weight::default();
        for _ in 0..10 {
            let watch = Watch::start(&weight);
            std::thread::sleep(LIGHT * 2);
            assert!(watch.stop(&weight) < LIGHT);
        }
        assert!(!weight.is_heavy());
    }
}
