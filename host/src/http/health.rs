//! For those who watch over the host: does it live, can it work, and what has it done.

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

/// A database that takes longer to answer isn't ready for work.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes() -> Router<Context> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// How the host is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Says whether the process lives
///
/// It asks nobody: a host without its database lives.
#[utoipa::path(
    get, path = "/healthz", tag = "operation",
    responses((status = 200, description = "It does", body = Health)),
)]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether the host can work
///
/// It can if its database answers and its runs go on. If it can't, `detail` says why.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "The database doesn't answer, or nothing goes on", body = ProblemBody),
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
            // Probes ask again and again: nothing is logged each time.
            let problem = Problem::new(&problem::UNAVAILABLE, obstacle).untold();
            Err(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("2")))
        }
    }
}

/// Shows counters
///
/// Requests to triggers since the start of this process and runs by status, of all tenants.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "In Prometheus's text format", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(context): State<Context>) -> Response {
    let store = &context.app.store;
    // Apart: with many runs the count takes its time, and the database answers all the same.
    let (answers, counts) =
        tokio::join!(timeout(PATIENCE, store.ping()), timeout(PATIENCE, store.count_by_status(None)));
    let is_up = matches!(answers, Ok(Ok(())));
    let counts = counts.ok().and_then(Result::ok);
    let counts = counts.as_ref().map(|counts| counts.as_slice());
    let commits = Commits { made: store.counters(), put_aside: store.put_aside() };
    let text = context.metrics.render(commits, &context.app.measures, is_up, counts);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
