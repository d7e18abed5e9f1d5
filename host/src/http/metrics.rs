//! What `/metrics` shows, in Prometheus's text format (version 0.0.4).
//!
//! Written by hand: two families don't need a registry. Histograms of steps come with a crate for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use aster_core::state::Status;

use crate::runner::Measures;
use crate::store::Counters;

/// What this process has counted since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By operation (`POST /api/orders`) and outcome. Only triggers that exist get here, so there are few.
    triggers: Mutex<BTreeMap<(String, String), u64>>,
}

impl Metrics {
    pub(crate) fn count_trigger(&self, operation: String, status: String) {
        // A count is right whatever panicked beside it.
        let mut triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        *triggers.entry((operation, status)).or_default() += 1;
    }

    /// `runs` are none where they couldn't be counted in time.
    pub(crate) fn render(
        &self,
        commits: &Counters,
        measures: &Measures,
        is_database_up: bool,
        runs: Option<&[(Status, u64)]>,
    ) -> String {
        let mut out = String::new();
        // Writing to a text can't fail.
        let _ = self.write(&mut out, commits, measures, is_database_up, runs);
        out
    }

    fn write(
        &self,
        out: &mut String,
        commits: &Counters,
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
        writeln!(
            out,
            "# HELP aster_commits_total What this host has committed for runs: acceptances, transitions."
        )?;
        writeln!(out, "# TYPE aster_commits_total counter")?;
        writeln!(out, "aster_commits_total{{kind=\"acceptance\"}} {}", commits.acceptances())?;
        writeln!(out, "aster_commits_total{{kind=\"transition\"}} {}", commits.transitions())?;
        writeln!(out, "# HELP aster_commit_batches_total Statements that carried the transitions.")?;
        writeln!(out, "# TYPE aster_commit_batches_total counter")?;
        writeln!(out, "aster_commit_batches_total {}", commits.batches())?;
        writeln!(
            out,
            "# HELP workflow_result_futures_cleaned_total Clients that waited for a run's end until their time to live was over."
        )?;
        writeln!(out, "# TYPE workflow_result_futures_cleaned_total counter")?;
        writeln!(out, "workflow_result_futures_cleaned_total {}", measures.expired_waiters())?;
        writeln!(
            out,
            "# HELP order_api_requests_total Requests to triggers. The status is the answer's own (SCHEDULED, ERROR), else HTTP's."
        )?;
        writeln!(out, "# TYPE order_api_requests_total counter")?;
        let triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        for ((operation, status), n) in triggers.iter() {
            let operation = escape(operation);
            writeln!(out, "order_api_requests_total{{operation=\"{operation}\",status=\"{status}\"}} {n}")?;
        }
        Ok(())
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_by_operation_and_status() {
        let metrics = Metrics::default();
        for status in ["SCHEDULED", "409", "SCHEDULED"] {
            metrics.count_trigger("POST /a\"b".to_owned(), status.to_owned());
        }
        insta::assert_snapshot!(metrics.render(&Counters::default(), &Measures::default(), true, Some(&[(Status::Ready, 0), (Status::Running, 2)])), @r#"
        # HELP aster_database_up Whether the database answers.
        # TYPE aster_database_up gauge
        aster_database_up 1
        # HELP aster_runs Runs by status.
        # TYPE aster_runs gauge
        aster_runs{status="READY"} 0
        aster_runs{status="RUNNING"} 2
        # HELP aster_commits_total What this host has committed for runs: acceptances, transitions.
        # TYPE aster_commits_total counter
        aster_commits_total{kind="acceptance"} 0
        aster_commits_total{kind="transition"} 0
        # HELP aster_commit_batches_total Statements that carried the transitions.
        # TYPE aster_commit_batches_total counter
        aster_commit_batches_total 0
        # HELP workflow_result_futures_cleaned_total Clients that waited for a run's end until their time to live was over.
        # TYPE workflow_result_futures_cleaned_total counter
        workflow_result_futures_cleaned_total 0
        # HELP order_api_requests_total Requests to triggers. The status is the answer's own (SCHEDULED, ERROR), else HTTP's.
        # TYPE order_api_requests_total counter
        order_api_requests_total{operation="POST /a\"b",status="409"} 1
        order_api_requests_total{operation="POST /a\"b",status="SCHEDULED"} 2
        "#);
        assert!(
            metrics
                .render(&Counters::default(), &Measures::default(), false, None)
                .contains("aster_database_up 0")
        );
        let uncounted = metrics.render(&Counters::default(), &Measures::default(), true, None);
        assert!(
            uncounted.contains("aster_database_up 1") && !uncounted.contains("aster_runs{"),
            "{uncounted}"
        );
    }
}
