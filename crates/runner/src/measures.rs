//! What this host's runner has counted and measured since its start, for its metrics.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use aster_core::event::{Cost, FailureCode};

use crate::shared::UNPOISONED;

/// Upper bounds of durations, in microseconds.
const DURATIONS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Upper bounds of fuel.
const FUEL: [u64; 8] =
    [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];

/// More would be more than a metric's reader takes: the attempts of all others are one.
const MAX_COMPONENTS: usize = 200;

/// Stands for the components beyond [`MAX_COMPONENTS`]; none can be called so.
const OTHERS: &str = "_others";

#[derive(Debug, Default)]
pub struct Measures {
    expired_waiters: AtomicU64,
    commits: AtomicU64,
    stalls: AtomicU64,
    /// Why the host stands still.
    stalled: RwLock<Option<String>>,
    /// By the component that was called last; empty where the body called none.
    steps: RwLock<BTreeMap<String, Arc<[Attempts; 3]>>>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    /// The component answered `err`.
    Error,
    /// It trapped, exceeded a limit, or its value was of no use.
    Failed,
}

/// Of one component and outcome.
#[derive(Debug, Default)]
struct Attempts {
    micros: Histogram<{ DURATIONS.len() }>,
    fuel: Histogram<{ FUEL.len() }>,
}

/// The attempts of one component with one outcome, as they were measured until now.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub component: String,
    pub outcome: Outcome,
    /// In seconds.
    pub duration: Distribution,
    pub fuel: Distribution,
}

/// How values are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds, each with how many values don't exceed it.
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
    pub count: u64,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Completed, Self::Error, Self::Failed];

    fn of(failure: Option<FailureCode>) -> Self {
        match failure {
            None => Self::Completed,
            Some(FailureCode::Error | FailureCode::TransientError) => Self::Error,
            Some(_) => Self::Failed,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Failed => "failed",
        }
    }
}

impl Measures {
    /// Clients that waited for a run's end until their time to live was over.
    pub fn expired_waiters(&self) -> u64 {
        self.expired_waiters.load(Ordering::Relaxed)
    }

    /// How often the host stood still and handed all its runs over.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Why nothing goes on, although runs are due. `None` means that the host works, or has nothing to do.
    pub fn stalled(&self) -> Option<String> {
        self.stalled.read().expect(UNPOISONED).clone()
    }

    pub(crate) fn add_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_stalled(&self, reason: Option<String>) {
        *self.stalled.write().expect(UNPOISONED) = reason;
    }

    /// Acceptances and transitions that were committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn add_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Attempts at steps and compensations, by component and outcome; only what there was.
    pub fn steps(&self) -> Vec<Measured> {
        let steps = self.steps.read().expect(UNPOISONED);
        let by_outcome = steps.iter().flat_map(|(component, attempts)| {
            Outcome::ALL.into_iter().zip(attempts.iter()).map(move |(outcome, attempts)| Measured {
                component: component.clone(),
                outcome,
                duration: attempts.micros.distribution(&DURATIONS, 1e6),
                fuel: attempts.fuel.distribution(&FUEL, 1.0),
            })
        });
        by_outcome.filter(|measured| measured.duration.count > 0).collect()
    }

    /// Measures an attempt that ran to its end, whatever becomes of its outcome.
    pub(crate) fn record(&self, cost: &Cost, failure: Option<FailureCode>) {
        let attempts = self.of_component(cost.component.as_deref().unwrap_or_default());
        let attempts = &attempts[Outcome::of(failure) as usize];
        attempts.micros.record(&DURATIONS, cost.duration_micros);
        attempts.fuel.record(&FUEL, cost.fuel_used);
    }

    pub(crate) fn add_expired_waiters(&self, waiters: usize) {
        self.expired_waiters.fetch_add(u64::try_from(waiters).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn of_component(&self, component: &str) -> Arc<[Attempts; 3]> {
        if let Some(known) = self.steps.read().expect(UNPOISONED).get(component) {
            return Arc::clone(known);
        }
        let mut steps = self.steps.write().expect(UNPOISONED);
        let is_room = steps.len() < MAX_COMPONENTS || steps.contains_key(component);
        let component = if is_room { component } else { OTHERS };
        Arc::clone(steps.entry(component.to_owned()).or_default())
    }
}

/// Counts of values by the smallest bound that they don't exceed.
#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn record(&self, bounds: &[u64; N], value: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.counts.get(bucket).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// In units of which each is worth `unit` of the counted ones. The count is the buckets' own, so that they agree while others
    /// count on.
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
    fn distribution(&self, bounds: &[u64; N], unit: f64) -> Distribution {
        let mut count = 0;
        let buckets = bounds.iter().zip(&self.counts).map(|(bound, values)| {
            count += values.load(Ordering::Relaxed);
            (*bound as f64 / unit, count)
        });
        let buckets = buckets.collect();
        count += self.beyond.load(Ordering::Relaxed);
        Distribution { buckets, sum: self.sum.load(Ordering::Relaxed) as f64 / unit, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(component: Option<&str>, duration_micros: u64, fuel_used: u64) -> Cost {
        Cost { component: component.map(str::to_owned), duration_micros, fuel_used, ..Cost::default() }
    }

    #[test]
    fn attempts_are_measured_by_component_and_outcome() {
        let measures = Measures::default();
        assert_eq!(measures.steps(), []);
        measures.record(&cost(Some("payment"), 500, 999), None);
        measures.record(&cost(Some("payment"), 501, 1_001), None);
        measures.record(&cost(Some("payment"), 90_000_000, 0), Some(FailureCode::Timeout));
        measures.record(&cost(Some("payment"), 1_000, 0), Some(FailureCode::Error));
        measures.record(&cost(None, 3, 0), None);
        let steps = measures.steps();
        let names: Vec<_> = steps.iter().map(|step| (step.component.as_str(), step.outcome)).collect();
        let outcomes = [Outcome::Completed, Outcome::Error, Outcome::Failed];
        assert_eq!(names[0], ("", Outcome::Completed));
        assert_eq!(names[1..], outcomes.map(|outcome| ("payment", outcome)));

        let Distribution { buckets, sum, count } = &steps[1].duration;
        assert_eq!(buckets[..3], [(0.0005, 1), (0.001, 2), (0.0025, 2)]);
        assert_eq!((*sum, *count), (0.001_001, 2));
        assert_eq!(steps[1].fuel.buckets[..2], [(1_000.0, 1), (10_000.0, 2)]);
        // Beyond the last bound.
        let late = &steps[3].duration;
        assert_eq!((late.buckets.last(), late.sum, late.count), (Some(&(60.0, 0)), 90.0, 1));
    }

    #[test]
    fn components_beyond_the_limit_are_measured_together() {
        let measures = Measures::default();
        for n in 0..MAX_COMPONENTS + 10 {
            measures.record(&cost(Some(&format!("component-{n}")), 1, 1), None);
        }
        let steps = measures.steps();
        assert_eq!(steps.len(), MAX_COMPONENTS + 1);
        let others = steps.iter().find(|step| step.component == OTHERS).expect("there are others");
        assert_eq!(others.duration.count, 10);
        // One that is known goes on by its name.
        measures.record(&cost(Some("component-7"), 1, 1), None);
        let steps = measures.steps();
        assert!(steps.iter().any(|step| step.component == "component-7" && step.fuel.count == 2));
    }
}
