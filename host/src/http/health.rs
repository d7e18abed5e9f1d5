//! Calls for monitoring: whether the host is alive, whether it can work, and what it has done.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Context;
use super::metrics::Commits;
use super::problem::{self, Problem, ProblemBody, Result};

/// How long `/readyz` and `/metrics` wait for the database. One that takes longer isn't ready.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes() -> Router<Context> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// The state of the host.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Says whether the process is alive
///
/// The state of the database doesn't matter for this.
#[utoipa::path(
    get, path = "/healthz", tag = "operation",
    responses((status = 200, description = "The process is alive", body = Health)),
)]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether the host is ready
///
/// A host is ready if its database answers and its runs make progress. If it isn't, `detail` says why.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, description = "The host is ready", body = Health),
        (status = 503, description = "The database doesn't answer, or runs make no progress", body = ProblemBody),
    ),
)]
pub(crate) async fn ready(State(context): State<Context>) -> Result<Json<Health>> {
    let obstacle = match context.app.store.ping_within(PATIENCE / 2).await {
        Ok(()) => context.app.measures.stalled(),
        Err(error) => Some(error.to_string()),
    };
    match obstacle {
        None => Ok(Json(Health { status: "ready" })),
        Some(obstacle) => {
            // Nothing is logged, because probes ask again and again.
            let problem = Problem::new(&problem::UNAVAILABLE, obstacle).untold();
            Err(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("2")))
        }
    }
}

/// Shows the metrics
///
/// Connections, commits, steps, triggers and other counts of this process, and the runs of all tenants by status.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "In Prometheus's text format", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(context): State<Context>) -> Response {
    let store = &context.app.store;
    // The two questions are asked separately: with many runs the count takes long, although the database answers.
    let (answers, counts) =
        tokio::join!(timeout(PATIENCE, store.ping()), timeout(PATIENCE, store.count_by_status(None)));
    let is_up = matches!(answers, Ok(Ok(())));
    let counts = counts.ok().and_then(Result::ok);
    let counts = counts.as_ref().map(|counts| counts.as_slice());
    let commits = Commits { made: store.counters(), put_aside: store.put_aside() };
    let text = context.metrics.render(commits, &context.app.measures, is_up, counts);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
