//! What operators do to runs: cancelling them, and repairing failed compensations.

use std::borrow::Cow;

use aster_core::event::{Author, Failure};
use aster_core::id::{Digest, WorkflowId};
use aster_core::state::Outcome;
use aster_core::time::Timestamp;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::body::Command;
use super::cursor::Scope;
use super::page::Page;
use super::params::{FromQuery, NoQuery, Params, Path, Query, invalid_cursor, parse};
use super::problem::{self, Fault, Problem, ProblemBody, Result};
use super::runs::{RunError, RunState};
use super::tenant::{Tenant, User};
use crate::operate::{self, Act, Components, Done, RepairFilter};

/// The longest reason. Reasons are stored in events.
const MAX_REASON_BYTES: usize = 4_000;

const DEFAULT_REPAIRS: u32 = 100;
const MAX_REPAIRS: u32 = 1_000;

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/workflows/repair", post(repair))
        .route("/api/workflows/{id}/cancel", post(cancel))
        .route("/api/workflows/{id}/compensations", get(compensations))
        .route("/api/workflows/{id}/compensations/{step}/retry", post(retry))
        .route("/api/workflows/{id}/compensations/{step}/skip", post(skip))
        .route("/api/workflows/{id}/compensations/{step}/settle", post(settle))
}

/// The compensation of a step of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compensation {
    step: String,
    /// `pending`, `running`, `done`, `failed`, `skipped` or `settled`.
    #[schema(example = "failed")]
    state: Cow<'static, str>,
    /// Number of attempts that have begun.
    attempts: u32,
    /// When the next attempt begins, if one is scheduled.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// Error of the newest attempt that failed.
    #[schema(value_type = Option<RunError>)]
    error: Option<Failure>,
    /// Component that the newest attempt called last.
    component: Option<String>,
    #[schema(value_type = Option<String>, example = "sha256:…")]
    digest: Option<Digest>,
    /// What became of the step itself: `completed`, `none` (it had no effect) or `unknown`.
    #[schema(value_type = String, example = "completed")]
    forward_outcome: Outcome,
}

/// Why a run is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cancel {
    #[serde(default)]
    reason: Option<String>,
}

/// How a compensation is retried.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Retry {
    /// `pinned` (the default) uses the component versions that the run pinned, `active` those that are active now.
    #[serde(default)]
    component: WhichComponents,
    #[serde(default)]
    reason: Option<String>,
}

/// Why a compensation is skipped, or how it was done by hand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Reason {
    reason: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WhichComponents {
    #[default]
    Pinned,
    Active,
}

/// An act to perform on every failed compensation that matches the filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Repair {
    act: WhichAct,
    /// Only for `retry`.
    #[serde(default)]
    component: Option<WhichComponents>,
    /// Required for `skip` and `settle`.
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    filter: Filter,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WhichAct {
    Retry,
    Skip,
    Settle,
}

/// Which compensations to repair. An absent field matches all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Filter {
    /// Full name, or the function's name if it is unique.
    #[serde(default)]
    definition: Option<String>,
    #[serde(default)]
    step: Option<String>,
    /// A part of the error's message, or its whole code.
    #[serde(default)]
    error: Option<String>,
}

/// The acts that were ordered, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Repaired {
    /// True if nothing was ordered.
    dry_run: bool,
    items: Vec<RepairedItem>,
    /// Cursor for the next call. Null if there is nothing more to repair.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RepairedItem {
    #[schema(value_type = String, format = "uuid")]
    workflow_id: WorkflowId,
    definition: String,
    /// The compensation before the act.
    compensation: Compensation,
    /// Why the act was not ordered for this compensation. Absent if it was, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl Filter {
    /// Returns the scope of the part of a list that this filter matches.
    fn scope(&self, all: Scope) -> Scope {
        let parts = [("definition", &self.definition), ("step", &self.step), ("error", &self.error)];
        let given = parts.into_iter().filter_map(|(name, value)| Some([name, value.as_deref()?]));
        all.and(given.flatten())
    }
}

#[derive(Debug)]
pub(crate) struct RepairQuery {
    dry_run: bool,
    limit: usize,
    cursor: Option<String>,
    /// The scope of all that can be repaired. The filter is in the body.
    scope: Scope,
}

impl FromQuery for RepairQuery {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        Ok(Self {
            dry_run: params.flag("dryRun")?.unwrap_or(false),
            limit: params.limit(DEFAULT_REPAIRS, MAX_REPAIRS)? as usize,
            cursor: params.cursor()?,
            scope: params.scope(),
        })
    }
}

/// Cancels a run
///
/// The run fails with cause CANCEL, and its steps are undone, as after a timeout. Cancelling a run that is being undone
/// changes nothing.
#[utoipa::path(
    post, path = "/api/workflows/{id}/cancel", tag = "runs",
    params(("id" = String, Path, description = "The run's `workflowId`")),
    request_body(content = Cancel, content_type = "application/json"),
    responses(
        (status = 200, description = "The run has failed and is being undone, or is already over", body = RunState),
        (status = 202, description = "The run will fail: its host is busy, or another host is taking it over", body = RunState),
        (status = 404, description = "No such run", body = ProblemBody),
        (status = 409, description = "The run is over", body = ProblemBody),
    ),
)]
pub(crate) async fn cancel(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Path(id): Path<String>,
    Query(NoQuery): Query<NoQuery>,
    Command(Cancel { reason }): Command<Cancel>,
) -> Result<Response> {
    let id = parse::<WorkflowId>("workflowId", &id)?;
    let author = author(user, reason)?;
    let done = context.app.operator.cancel(&tenant, id, author).await?;
    Ok(answer(done, RunState::from))
}

/// Lists a run's compensations
///
/// The compensations are in the order in which they run, the last started step first. For a run that has not failed,
/// they are those that a failure would run. For a run that completed, the list is empty.
#[utoipa::path(
    get, path = "/api/workflows/{id}/compensations", tag = "runs",
    params(("id" = String, Path, description = "The run's `workflowId`")),
    responses(
        (status = 200, description = "All compensations of the run", body = Page<Compensation>),
        (status = 404, description = "No such run", body = ProblemBody),
    ),
)]
pub(crate) async fn compensations(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Json<Page<Compensation>>> {
    let id = parse::<WorkflowId>("workflowId", &id)?;
    let all = context.app.operator.compensations(&tenant, id).await?;
    Ok(Json(Page::whole(all.into_iter().map(Compensation::from).collect())))
}

/// Retries a compensation
///
/// The compensation is tried again at once, with a new budget of attempts. The run continues, and ends COMPENSATED when
/// nothing is left to repair.
#[utoipa::path(
    post, path = "/api/workflows/{id}/compensations/{step}/retry", tag = "runs",
    params(
        ("id" = String, Path, description = "The run's `workflowId`"),
        ("step" = String, Path, description = "The step that the compensation undoes"),
    ),
    request_body(content = Retry, content_type = "application/json"),
    responses(
        (status = 200, description = "The retry has begun; the compensation's current state", body = Compensation),
        (status = 202, description = "The retry will begin; the compensation's current state", body = Compensation),
        (status = 404, description = "No such run or compensation", body = ProblemBody),
        (status = 409, description = "The compensation can't be retried now, or the active components can't be called", body = ProblemBody),
    ),
)]
pub(crate) async fn retry(
    State(context): State<Context>,
    tenant: Tenant,
    user: User,
    Path(place): Path<(String, String)>,
    Query(NoQuery): Query<NoQuery>,
    Command(Retry { component, reason }): Command<Retry>,
) -> Result<Response> {
    act(&context, tenant, place, Act::Retry(component.into()), author(user, reason)?).await
}

/// Skips a compensation
///
/// The effects of the step stay.
#[utoipa::path(
    post, path = "/api/workflows/{id}/compensations/{step}/skip", tag = "runs",
    params(
        ("id" = String, Path, description = "The run's `workflowId`"),
        ("step" = String, Path, description = "The step that the compensation undoes"),
    ),
    request_body(content = Reason, content_type = "application/json"),
    responses(
        (status = 200, description = "The compensation is skipped; its current state", body = Compensation),
        (status = 202, description = "The compensation will be skipped; its current state", body = Compensation),
        (status = 404, description = "No such run or compensation", body = ProblemBody),
        (status = 409, description = "The compensation is already done, skipped or settled", body = ProblemBody),
    ),
)]
pub(crate) async fn skip(
    State(context): State<Context>,
    tenant: Tenant,
    user: User,
    Path(place): Path<(String, String)>,
    Query(NoQuery): Query<NoQuery>,
    Command(Reason { reason }): Command<Reason>,
) -> Result<Response> {
    act(&context, tenant, place, Act::Skip, author(user, Some(reason))?).await
}

/// Records that a compensation was done by hand
#[utoipa::path(
    post, path = "/api/workflows/{id}/compensations/{step}/settle", tag = "runs",
    params(
        ("id" = String, Path, description = "The run's `workflowId`"),
        ("step" = String, Path, description = "The step that the compensation undoes"),
    ),
    request_body(content = Reason, content_type = "application/json"),
    responses(
        (status = 200, description = "The compensation is settled; its current state", body = Compensation),
        (status = 202, description = "The compensation will be settled; its current state", body = Compensation),
        (status = 404, description = "No such run or compensation", body = ProblemBody),
        (status = 409, description = "The compensation is already done, skipped or settled", body = ProblemBody),
    ),
)]
pub(crate) async fn settle(
    State(context): State<Context>,
    tenant: Tenant,
    user: User,
    Path(place): Path<(String, String)>,
    Query(NoQuery): Query<NoQuery>,
    Command(Reason { reason }): Command<Reason>,
) -> Result<Response> {
    act(&context, tenant, place, Act::Settle, author(user, Some(reason))?).await
}

/// Repairs many runs
///
/// Performs one act on every failed compensation of COMPENSATION_FAILED runs that matches the filter, in the newest
/// runs first. The call doesn't wait for the runs to end.
#[utoipa::path(
    post, path = "/api/workflows/repair", tag = "runs",
    params(
        ("dryRun" = Option<bool>, Query, description = "`true` only lists what would be done; by default `false`"),
        ("limit" = Option<u32>, Query, description = "About how many compensations to repair in this call: 1 to 1000, by default 100"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the previous call"),
    ),
    request_body(content = Repair, content_type = "application/json"),
    responses((status = 200, description = "The acts that were ordered, or would be", body = Repaired)),
)]
pub(crate) async fn repair(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Query(query): Query<RepairQuery>,
    Command(command): Command<Repair>,
) -> Result<Json<Repaired>> {
    let Repair { act, component, reason, filter } = command;
    let act = match (act, component) {
        (WhichAct::Retry, component) => Act::Retry(component.unwrap_or_default().into()),
        (_, Some(_)) => {
            return Err(invalid("/component", "is only for `retry`: the other acts call no component"));
        }
        (_, None) if reason.is_none() => {
            return Err(invalid("/reason", "is missing: expected a text that says why"));
        }
        (WhichAct::Skip, None) => Act::Skip,
        (WhichAct::Settle, None) => Act::Settle,
    };
    let author = author(user, reason)?;
    let definition = match &filter.definition {
        Some(name) => Some(super::definitions::find(&context, &tenant, name).await?.name),
        None => None,
    };
    let scope = filter.scope(query.scope);
    let before = query.cursor.map(|cursor| {
        let id = scope.after(&cursor).and_then(|id| id.parse().ok());
        id.ok_or_else(invalid_cursor)
    });
    let before = before.transpose()?;
    let filter = RepairFilter { definition, step: filter.step, error: filter.error, before };
    let act = (!query.dry_run).then_some((act, author));
    let repairs = context.app.operator.repair_all(&tenant, filter, query.limit, act).await?;
    let items = repairs.found.into_iter().map(|found| RepairedItem {
        workflow_id: found.workflow_id,
        definition: found.definition,
        compensation: found.compensation.into(),
        refused: found.refused,
    });
    Ok(Json(Repaired {
        dry_run: query.dry_run,
        items: items.collect(),
        next_cursor: repairs.next.map(|id| scope.cursor(&id.to_string())),
    }))
}

async fn act(
    context: &Context,
    Tenant(tenant): Tenant,
    (id, step): (String, String),
    act: Act,
    author: Author,
) -> Result<Response> {
    let id = parse::<WorkflowId>("workflowId", &id)?;
    let done = context.app.operator.repair(&tenant, id, &step, act, author).await?;
    Ok(answer(done, Compensation::from))
}

fn answer<T, S: Serialize>(done: Done<T>, shown: impl Fn(T) -> S) -> Response {
    match done {
        Done::Now(as_it_stands) => Json(shown(as_it_stands)).into_response(),
        Done::Soon(as_it_stands) => (StatusCode::ACCEPTED, Json(shown(as_it_stands))).into_response(),
    }
}

fn author(User(by): User, reason: Option<String>) -> Result<Author> {
    let fault = match &reason {
        Some(reason) if reason.trim().is_empty() => "is empty: expected a text that says why",
        Some(reason) if reason.contains('\0') => "contains a NUL character",
        Some(reason) if reason.len() > MAX_REASON_BYTES => "is too long: expected at most 4000 bytes",
        _ => return Ok(Author { by, reason, order_id: None }),
    };
    Err(invalid("/reason", fault))
}

fn invalid(pointer: &str, fault: &str) -> Problem {
    let name = pointer.trim_start_matches('/');
    Problem::new(&problem::INVALID_BODY, format!("`{name}` {fault}"))
        .with_errors(vec![Fault::at_pointer(pointer, fault)])
}

impl From<WhichComponents> for Components {
    fn from(which: WhichComponents) -> Self {
        match which {
            WhichComponents::Pinned => Self::Pinned,
            WhichComponents::Active => Self::Active,
        }
    }
}

impl From<operate::Compensation> for Compensation {
    fn from(compensation: operate::Compensation) -> Self {
        let next_attempt_at = compensation.next_attempt_at();
        let operate::Compensation { undo, forward } = compensation;
        let (component, digest) = undo.component.clone().unzip();
        Self {
            step: undo.step.to_string(),
            state: undo.state_name().into(),
            attempts: undo.attempts,
            next_attempt_at,
            error: undo.error,
            component,
            digest,
            forward_outcome: forward,
        }
    }
}
