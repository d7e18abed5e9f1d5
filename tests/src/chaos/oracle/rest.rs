//! Checks that every host reports the same runs as the database.

use anyhow::{Context, Result};
use serde_json::Value;
use uuid::Uuid;

use super::{Findings, Runs};
use crate::chaos::cluster::Cluster;
use crate::chaos::sql::Sql;

/// The number of runs that each host is asked for.
const SAMPLE: usize = 50;

pub(super) fn examine(cluster: &Cluster, sql: &Sql, runs: &Runs, findings: &mut Findings) -> Result<()> {
    let sample: Vec<Uuid> = runs.keys().copied().take(SAMPLE).collect();
    let rows: Vec<(Uuid, String, i64)> = sql.ask(super::PATIENCE, async |connection| {
        let rows = sqlx::query_as(
            "select workflow_id, status, last_sequence from workflow_run where workflow_id = any ($1)",
        );
        Ok(rows.bind(&sample).fetch_all(connection).await?)
    })?;
    for host in 0..cluster.len() {
        for (workflow_id, status, last_sequence) in &rows {
            let state = get(cluster, host, &format!("/api/workflows/{workflow_id}"))?;
            if state["status"] != **status {
                let what = format!("{workflow_id}: host {host} says {}, but it is {status}", state["status"]);
                findings.violations.add(what);
            }
            let events = get(cluster, host, &format!("/api/workflows/{workflow_id}/events"))?;
            let told = events.as_array().map_or(0, Vec::len);
            if i64::try_from(told).ok() != Some(*last_sequence) {
                let what = format!("{workflow_id}: host {host} returns {told} of {last_sequence} events");
                findings.violations.add(what);
            }
        }
        let metrics = get(cluster, host, "/api/workflows/metrics")?;
        for status in
            ["READY", "RUNNING", "COMPLETED", "FAILED", "COMPENSATING", "COMPENSATED", "COMPENSATION_FAILED"]
        {
            let of_status = findings.ends.iter().filter(|(end, _)| end.split(' ').next() == Some(status));
            let count: u64 = of_status.map(|(_, count)| count).sum();
            if metrics[status] != count {
                let what =
                    format!("host {host} counts {} runs as {status}, but there are {count}", metrics[status]);
                findings.violations.add(what);
            }
        }
    }
    Ok(())
}

fn get(cluster: &Cluster, host: usize, path: &str) -> Result<Value> {
    let answer = cluster.client(host).request("GET", path, &[], &[]);
    let answer = answer.with_context(|| format!("host {host} doesn't answer `{path}`"))?;
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("host {host} doesn't answer `{path}` with JSON"))
}
