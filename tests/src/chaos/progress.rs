//! Checks that the cluster makes progress: while no fault is in force, runs keep ending.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::bell::Bell;
use super::cluster::LEASE;
use super::sql::Sql;

/// The time between two observations.
const POLL: Duration = Duration::from_millis(100);
/// The time limit for one observation. A database that has a fault may take longer.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest allowed pause between two ends of runs while no fault is in force.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A span of time from one instant to another.
type Span = (Instant, Instant);

/// The observations while clients sent runs.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The instants at which more runs had ended than before.
    ends: Mutex<Vec<Instant>>,
    /// The spans in which nothing is known, because the database didn't answer.
    blind: Mutex<Vec<Span>>,
}

/// The progress of the cluster while no fault was in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The total time in which no fault was in force.
    pub(crate) calm: Duration,
    pub(crate) longest_pause: Duration,
}

impl Watch {
    /// Observes until the bell rings.
    pub(crate) fn keep(&self, sql: &Sql, end: &Bell) {
        let mut ended = 0;
        while !end.wait(POLL) {
            let asked_at = Instant::now();
            match sql.ask(ANSWER, count_ended) {
                Ok(now) if now > ended => {
                    ended = now;
                    push(&self.ends, Instant::now());
                }
                Ok(_) => {}
                Err(_) => push(&self.blind, (asked_at, Instant::now())),
            }
        }
    }

    /// `faults` are the spans of all faults, each from its beginning until it was undone.
    pub(crate) fn progress(&self, begin: Instant, end: Instant, faults: &[Span]) -> Progress {
        let blind = self.blind.lock().unwrap_or_else(PoisonError::into_inner);
        let in_force = faults.iter().map(|(from, to)| (*from, *to + LEASE + LEASE / 5));
        let mut troubled: Vec<Span> = in_force.chain(blind.iter().copied()).collect();
        troubled.sort_unstable();
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut progress = Progress::default();
        for (from, to) in gaps(begin, end, &troubled) {
            progress.calm += to - from;
            let within = ends.iter().copied().filter(|at| (from..to).contains(at));
            let mut last = from;
            for at in within.chain([to]) {
                progress.longest_pause = progress.longest_pause.max(at - last);
                last = at;
            }
        }
        progress
    }
}

/// Returns the gaps between `spans`, which are sorted.
fn gaps(begin: Instant, end: Instant, spans: &[Span]) -> Vec<Span> {
    let mut found = Vec::new();
    let mut free_from = begin;
    for (from, to) in spans {
        if *from > free_from {
            found.push((free_from, (*from).min(end)));
        }
        free_from = free_from.max(*to);
    }
    found.push((free_from, end));
    found.retain(|(from, to)| from < to);
    found
}

async fn count_ended(connection: &mut sqlx::PgConnection) -> Result<i64> {
    let ended = sqlx::query_scalar(
        "select coalesce(sum(n), 0)::bigint from run_count
        where status in ('COMPLETED', 'FAILED', 'COMPENSATED', 'COMPENSATION_FAILED')",
    );
    Ok(ended.fetch_one(connection).await?)
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_count_only_while_no_fault_is_in_force() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let watch = Watch::default();
        let in_force = (LEASE + LEASE / 5).as_secs_f64();
        // There is a fault from 10 to 20, and nothing is known from 40 to 50.
        *watch.blind.lock().unwrap() = vec![(at(40), at(50))];
        *watch.ends.lock().unwrap() = vec![at(3), at(4), at(30), at(39), at(52), at(59)];
        let progress = watch.progress(begin, at(60), &[(at(10), at(20))]);
        assert_eq!(progress.calm.as_secs_f64(), 60.0 - (10.0 + in_force) - 10.0);
        assert_eq!(progress.longest_pause, Duration::from_secs(9));
        let never = watch.progress(begin, at(60), &[(at(0), at(60))]);
        assert_eq!((never.calm, never.longest_pause), Default::default());
    }
}
