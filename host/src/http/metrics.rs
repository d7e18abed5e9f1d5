//! The answer of `/metrics`, in Prometheus's text format (version 0.0.4).
//!
//! It is written by hand, because so few metrics need no registry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aster_core::state::Status;
use aster_runner::{Distribution, Measured, Measures};

use crate::store::Counters;

/// What this process has counted since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// The number of requests by operation (`POST /api/orders`) and outcome. Only triggers that exist are counted, so
    /// there are few.
    triggers: Mutex<BTreeMap<(String, String), u64>>,
    pub(crate) connections: Arc<Connections>,
}

/// Counts of clients' connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicU64,
    refused: AtomicU64,
    too_slow: [AtomicU64; Slow::ALL.len()],
}

/// What a client was too slow in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slow {
    /// Sending the head of a request.
    Head,
    /// Sending the body of a request.
    Body,
    /// Reading an answer.
    Answer,
}

impl Slow {
    const ALL: [Self; 3] = [Self::Head, Self::Body, Self::Answer];

    fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Answer => "answer",
        }
    }
}

impl Connections {
    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn open(&self) -> impl Drop + use<'_> {
        struct Open<'a>(&'a AtomicU64);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_too_slow(&self, slow: Slow) {
        self.too_slow[slow as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# HELP aster_http_connections Client connections that are open.")?;
        writeln!(out, "# TYPE aster_http_connections gauge")?;
        writeln!(out, "aster_http_connections {}", self.open.load(Ordering::Relaxed))?;
        writeln!(
            out,
            "# HELP aster_http_connections_refused_total Connections that were refused because too many were open."
        )?;
        writeln!(out, "# TYPE aster_http_connections_refused_total counter")?;
        writeln!(out, "aster_http_connections_refused_total {}", self.refused.load(Ordering::Relaxed))?;
        writeln!(
            out,
            "# HELP aster_http_too_slow_total Connections that were closed because the client was too slow, by what it was too slow in."
        )?;
        writeln!(out, "# TYPE aster_http_too_slow_total counter")?;
        for slow in Slow::ALL {
            let n = self.too_slow[slow as usize].load(Ordering::Relaxed);
            writeln!(out, "aster_http_too_slow_total{{in=\"{}\"}} {n}", slow.as_str())?;
        }
        Ok(())
    }
}

/// The commits of this host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commits<'a> {
    pub(crate) made: &'a Counters,
    pub(crate) put_aside: usize,
}

impl Metrics {
    pub(crate) fn count_trigger(&self, operation: String, status: String) {
        // The counts are consistent even if a thread panicked while it held the lock.
        let mut triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        *triggers.entry((operation, status)).or_default() += 1;
    }

    /// Renders all metrics. `runs` is `None` if they couldn't be counted in time.
    pub(crate) fn render(
        &self,
        commits: Commits<'_>,
        measures: &Measures,
        is_database_up: bool,
        runs: Option<&[(Status, u64)]>,
    ) -> String {
        let mut out = String::new();
        // Writing to a `String` can't fail.
        let _ = self.write(&mut out, commits, measures, is_database_up, runs);
        out
    }

    fn write(
        &self,
        out: &mut String,
        commits: Commits<'_>,
        measures: &Measures,
        is_database_up: bool,
        runs: Option<&[(Status, u64)]>,
    ) -> std::fmt::Result {
        writeln!(out, "# HELP aster_database_up Whether the database answers.")?;
        writeln!(out, "# TYPE aster_database_up gauge")?;
        writeln!(out, "aster_database_up {}", u8::from(is_database_up))?;
        if let Some(runs) = runs {
            writeln!(out, "# HELP aster_runs Runs by status.")?;
            writeln!(out, "# TYPE aster_runs gauge")?;
            for (status, n) in runs {
                writeln!(out, "aster_runs{{status=\"{status}\"}} {n}")?;
            }
        }
        writeln!(out, "# HELP aster_commits_total Commits that this host has made for runs, by kind.")?;
        writeln!(out, "# TYPE aster_commits_total counter")?;
        writeln!(out, "aster_commits_total{{kind=\"acceptance\"}} {}", commits.made.acceptances())?;
        writeln!(out, "aster_commits_total{{kind=\"transition\"}} {}", commits.made.transitions())?;
        writeln!(out, "# HELP aster_commit_batches_total Statements that committed the transitions.")?;
        writeln!(out, "# TYPE aster_commit_batches_total counter")?;
        writeln!(out, "aster_commit_batches_total {}", commits.made.batches())?;
        writeln!(
            out,
            "# HELP aster_commits_put_aside Commits that wait because another session of the database holds a lock that they need."
        )?;
        writeln!(out, "# TYPE aster_commits_put_aside gauge")?;
        writeln!(out, "aster_commits_put_aside {}", commits.put_aside)?;
        writeln!(
            out,
            "# HELP aster_log_lines_lost_total Log lines that were dropped because nobody read stderr in time."
        )?;
        writeln!(out, "# TYPE aster_log_lines_lost_total counter")?;
        writeln!(out, "aster_log_lines_lost_total {}", crate::logs::lost_lines())?;
        let steps = measures.steps();
        writeln!(
            out,
            "# HELP aster_step_duration_seconds Durations of attempts at steps and compensations, by the component that they called last."
        )?;
        writeln!(out, "# TYPE aster_step_duration_seconds histogram")?;
        for step in &steps {
            write_histogram(out, "aster_step_duration_seconds", step, &step.duration)?;
        }
        writeln!(
            out,
            "# HELP aster_step_fuel Fuel that attempts at steps and compensations used, by the component that they called last."
        )?;
        writeln!(out, "# TYPE aster_step_fuel histogram")?;
        for step in &steps {
            write_histogram(out, "aster_step_fuel", step, &step.fuel)?;
        }
        writeln!(
            out,
            "# HELP workflow_result_futures_cleaned_total Clients that waited for a run to end until their time to live was over."
        )?;
        writeln!(out, "# TYPE workflow_result_futures_cleaned_total counter")?;
        writeln!(out, "workflow_result_futures_cleaned_total {}", measures.expired_waiters())?;
        writeln!(
            out,
            "# HELP aster_stalls_total Times that the host committed nothing although runs were due, and handed all its runs over."
        )?;
        writeln!(out, "# TYPE aster_stalls_total counter")?;
        writeln!(out, "aster_stalls_total {}", measures.stalls())?;
        writeln!(
            out,
            "# HELP order_api_requests_total Requests to triggers. The status is the answer's own (SCHEDULED, ERROR), or otherwise the HTTP status."
        )?;
        writeln!(out, "# TYPE order_api_requests_total counter")?;
        self.write_triggers(out)?;
        self.connections.write(out)
    }

    fn write_triggers(&self, out: &mut String) -> std::fmt::Result {
        let triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        for ((operation, status), n) in triggers.iter() {
            let operation = escape(operation);
            writeln!(out, "order_api_requests_total{{operation=\"{operation}\",status=\"{status}\"}} {n}")?;
        }
        Ok(())
    }
}

fn write_histogram(out: &mut String, name: &str, step: &Measured, values: &Distribution) -> std::fmt::Result {
    let labels = format!("component=\"{}\",outcome=\"{}\"", escape(&step.component), step.outcome.as_str());
    for (bound, n) in &values.buckets {
        writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {n}")?;
    }
    writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", values.count)?;
    writeln!(out, "{name}_sum{{{labels}}} {}", values.sum)?;
    writeln!(out, "{name}_count{{{labels}}} {}", values.count)
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aster_runner::Outcome;

    #[test]
    fn requests_are_counted_by_operation_and_status() {
        let metrics = Metrics::default();
        for status in ["SCHEDULED", "409", "SCHEDULED"] {
            metrics.count_trigger("POST /a\"b".to_owned(), status.to_owned());
        }
        let counters = Counters::default();
        let commits = Commits { made: &counters, put_aside: 3 };
        insta::assert_snapshot!(metrics.render(commits, &Measures::default(), true, Some(&[(Status::Ready, 0), (Status::Running, 2)])), @r#"
        # HELP aster_database_up Whether the database answers.
        # TYPE aster_database_up gauge
        aster_database_up 1
        # HELP aster_runs Runs by status.
        # TYPE aster_runs gauge
        aster_runs{status="READY"} 0
        aster_runs{status="RUNNING"} 2
        # HELP aster_commits_total Commits that this host has made for runs, by kind.
        # TYPE aster_commits_total counter
        aster_commits_total{kind="acceptance"} 0
        aster_commits_total{kind="transition"} 0
        # HELP aster_commit_batches_total Statements that committed the transitions.
        # TYPE aster_commit_batches_total counter
        aster_commit_batches_total 0
        # HELP aster_commits_put_aside Commits that wait because another session of the database holds a lock that they need.
        # TYPE aster_commits_put_aside gauge
        aster_commits_put_aside 3
        # HELP aster_log_lines_lost_total Log lines that were dropped because nobody read stderr in time.
        # TYPE aster_log_lines_lost_total counter
        aster_log_lines_lost_total 0
        # HELP aster_step_duration_seconds Durations of attempts at steps and compensations, by the component that they called last.
        # TYPE aster_step_duration_seconds histogram
        # HELP aster_step_fuel Fuel that attempts at steps and compensations used, by the component that they called last.
        # TYPE aster_step_fuel histogram
        # HELP workflow_result_futures_cleaned_total Clients that waited for a run to end until their time to live was over.
        # TYPE workflow_result_futures_cleaned_total counter
        workflow_result_futures_cleaned_total 0
        # HELP aster_stalls_total Times that the host committed nothing although runs were due, and handed all its runs over.
        # TYPE aster_stalls_total counter
        aster_stalls_total 0
        # HELP order_api_requests_total Requests to triggers. The status is the answer's own (SCHEDULED, ERROR), or otherwise the HTTP status.
        # TYPE order_api_requests_total counter
        order_api_requests_total{operation="POST /a\"b",status="409"} 1
        order_api_requests_total{operation="POST /a\"b",status="SCHEDULED"} 2
        # HELP aster_http_connections Client connections that are open.
        # TYPE aster_http_connections gauge
        aster_http_connections 0
        # HELP aster_http_connections_refused_total Connections that were refused because too many were open.
        # TYPE aster_http_connections_refused_total counter
        aster_http_connections_refused_total 0
        # HELP aster_http_too_slow_total Connections that were closed because the client was too slow, by what it was too slow in.
        # TYPE aster_http_too_slow_total counter
        aster_http_too_slow_total{in="head"} 0
        aster_http_too_slow_total{in="body"} 0
        aster_http_too_slow_total{in="answer"} 0
        "#);
        assert!(metrics.render(commits, &Measures::default(), false, None).contains("aster_database_up 0"));
        let uncounted = metrics.render(commits, &Measures::default(), true, None);
        assert!(
            uncounted.contains("aster_database_up 1") && !uncounted.contains("aster_runs{"),
            "{uncounted}"
        );
    }

    #[test]
    fn histograms_are_shown_with_all_their_buckets() {
        let values = Distribution { buckets: vec![(0.0005, 1), (1.0, 3), (1e10, 3)], sum: 0.75, count: 4 };
        let step = Measured {
            component: "payment".to_owned(),
            outcome: Outcome::Error,
            duration: values.clone(),
            fuel: values.clone(),
        };
        let mut out = String::new();
        write_histogram(&mut out, "x", &step, &values).unwrap();
        insta::assert_snapshot!(out, @r#"
        x_bucket{component="payment",outcome="error",le="0.0005"} 1
        x_bucket{component="payment",outcome="error",le="1"} 3
        x_bucket{component="payment",outcome="error",le="10000000000"} 3
        x_bucket{component="payment",outcome="error",le="+Inf"} 4
        x_sum{component="payment",outcome="error"} 0.75
        x_count{component="payment",outcome="error"} 4
        "#);
    }
}
