//! The results: a table for people, and the same as JSON in the last line for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::Lives;
use super::faults::Kind;
use super::inject::Done;
use super::load::Book;
use super::oracle::Findings;
use super::progress::Progress;
use super::takeover::Takeover;
use super::{Options, Times};

#[derive(Debug)]
pub struct Report {
    pub(super) options: Options,
    /// Whether the disk could be filled.
    pub(super) has_volume: bool,
    pub(super) times: Times,
    pub(super) book: Book,
    pub(super) done: Done,
    pub(super) lives: Lives,
    pub(super) progress: Progress,
    pub(super) findings: Findings,
}

impl Report {
    /// Returns the violations. There may be more than are listed here.
    pub fn violations(&self) -> &[String] {
        &self.findings.violations.told
    }

    /// Returns how many faults of this kind were injected.
    pub fn faults(&self, kind: Kind) -> u32 {
        self.done.faults.get(&kind).copied().unwrap_or(0)
    }

    /// Returns whether Postgres had a volume of its own, which can be filled.
    pub fn has_volume(&self) -> bool {
        self.has_volume
    }

    pub fn runs(&self) -> usize {
        self.book.accepted.len()
    }

    /// Returns the table, and the same as one line of JSON.
    pub fn lines(&self) -> Vec<String> {
        let all = self.json();
        let mut lines = Vec::new();
        for name in [
            "chaos",
            "faults",
            "takeover",
            "progress",
            "runs",
            "ends",
            "definitions",
            "clients",
            "violations",
        ] {
            rows(name, "", &all[name], &mut lines);
        }
        if !self.has_volume {
            lines.push("disk-full was left out: no volume can be mounted here (it takes root)".to_owned());
        }
        lines.extend(self.violations().iter().map(|what| format!("VIOLATION    {what}")));
        lines.push(all.to_string());
        lines
    }

    fn json(&self) -> Value {
        let Self { options, times, book, done, lives, progress, findings, .. } = self;
        let faults: BTreeMap<&str, u32> =
            Kind::ALL.iter().map(|kind| (kind.name(), self.faults(*kind))).collect();
        // A host without runs leaves nothing to take over.
        let all = done.takeovers.iter().filter(|takeover| takeover.runs > 0);
        let calm = all.clone().filter(|takeover| takeover.is_calm);
        json!({
            "chaos": {
                "seed": options.seed,
                "minutes": rounded(times.loaded.as_secs_f64() / 60.0),
                "hosts": options.hosts,
                "rate asked": options.rate,
                "seconds from the last fault to the last end": rounded(times.settled.as_secs_f64()),
            },
            "faults": faults,
            "takeover": {
                "all": percentiles(all),
                "postgres up": percentiles(calm),
            },
            "progress": {
                "seconds without a fault in force": rounded(progress.calm.as_secs_f64()),
                "longest pause between ends of runs in that time, in seconds":
                    rounded(progress.longest_pause.as_secs_f64()),
            },
            "runs": {
                "accepted": self.runs(),
                "per second": rounded(self.runs() as f64 / times.loaded.as_secs_f64()),
                "events": findings.events,
                "attempts begun again": findings.reruns,
                "failed by a lost host": findings.host_lost,
                "compensation failed by a lost host": findings.stuck_by_host_lost,
                "completed though cancelled": findings.completed_though_cancelled,
            },
            "ends": findings.ends,
            "definitions": findings.definitions,
            "clients": {
                "sent to two hosts at once": book.doubles,
                "answers lost, sent again": book.lost_answers,
                "answers 503, sent again": book.unavailable,
                "cancellations by answer": book.cancellations,
                "host processes": lives.started,
                "hosts that found no database and ended": lives.failed_starts,
                "hosts that didn't stop in time": lives.slow_stops,
                "postgres ended by itself": done.postgres_ended,
            },
            "violations": { "count": findings.violations.count },
        })
    }
}

/// Makes a line for each number and text, at any depth.
fn rows(section: &str, path: &str, value: &Value, lines: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) => {
            for (field, value) in fields {
                rows(section, &format!("{path} {field}"), value, lines);
            }
        }
        None => lines.push(format!("{section:<12}{path:<72} {value:>10}")),
    }
}

/// Returns percentiles of the times from the kill of a host, in milliseconds.
fn percentiles<'a>(takeovers: impl Iterator<Item = &'a Takeover> + Clone) -> Value {
    let of = |time: fn(&Takeover) -> Option<Duration>| {
        let known = takeovers.clone().filter_map(time);
        let mut times: Vec<_> =
            known.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).collect();
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        json!({ "p50_ms": at(50), "p99_ms": at(99), "max_ms": times.last() })
    };
    json!({
        "kills": takeovers.clone().count(),
        "runs": takeovers.clone().map(|takeover| takeover.runs).sum::<usize>(),
        "released": of(|takeover| takeover.released),
        "moved": of(|takeover| takeover.moved),
    })
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
