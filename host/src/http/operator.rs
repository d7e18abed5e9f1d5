//! What operators do to runs: cancelling them, and repairing compensations that failed.

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

/// Of a reason: it travels in an event.
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

/// The undo of one step of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compensation {
    step: String,
    /// `pending`, `running`, `done`, `failed`, `skipped` or `settled`.
    #[schema(example = "failed")]
    state: Cow<'static, str>,
    /// How many have begun.
    attempts: u32,
    /// When the next one begins, if it waits for it.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// Of the newest attempt that failed.
    #[schema(value_type = Option<RunError>)]
    error: Option<Failure>,
    /// Which component its newest attempt called last.
    component: Option<String>,
    #[schema(value_type = Option<String>, example = "sha256:…")]
    digest: Option<Digest>,
    /// What came of the step itself: `completed`, `none` (it had no effect) or `unknown`.
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

/// With what a compensation is tried again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Retry {
    /// `pinned` (the default): the versions with which the run was accepted. `active`: those that are active now.
    #[serde(default)]
    component: WhichComponents,
    #[serde(default)]
    reason: Option<String>,
}

/// Why a compensation is let go, or how it was done.
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

/// The same act for every failed compensation that the filter finds.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Repair {
    act: WhichAct,
    /// For `retry`.
    #[serde(default)]
    component: Option<WhichComponents>,
    /// Needed for `skip` and `settle`.
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

/// What is left out doesn't matter.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Filter {
    /// The full name, or the function's own where that is unique.
    #[serde(default)]
    definition: Option<String>,
    #[serde(default)]
    step: Option<String>,
    /// A part of the error's message, or its whole code.
    #[serde(default)]
    error: Option<String>,
}

/// What was ordered, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Repaired {
    /// Whether nothing was done.
    dry_run: bool,
    items: Vec<RepairedItem>,
    /// For the next call, if there may be more; null if not.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RepairedItem {
    #[schema(value_type = String, format = "uuid")]
    workflow_id: WorkflowId,
    definition: String,
    /// As it stood before.
    compensation: Compensation,
    /// Why nothing was ordered for it; absent where something was, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl Filter {
    /// The list of what it finds in a list.
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
    /// Of all that could be repaired; the filter stands in the body.
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
/// The run fails with cause CANCEL, and what it has done is undone: the way of a timeout. A run that is undoing already goes
/// on with that; doing it again changes nothing.
#[utoipa::path(
    post, path = "/api/workflows/{id}/cancel", tag = "runs",
    params(("id" = String, Path, description = "the `workflowId`")),
    request_body(content = Cancel, content_type = "application/json"),
    responses(
        (status = 200, description = "It has failed and is being undone, or is over by now", body = RunState),
        (status = 202, description = "It will: its host is busy, or another one takes it over", body = RunState),
        (status = 404, description = "No such run", body = ProblemBody),
        (status = 409, description = "It is over", body = ProblemBody),
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
/// In the order in which they run, the last started first; of a run that has not failed, what would be undone if it did. None
/// where the run completed.
#[utoipa::path(
    get, path = "/api/workflows/{id}/compensations", tag = "runs",
    params(("id" = String, Path, description = "the `workflowId`")),
    responses(
        (status = 200, description = "All of them", body = Page<Compensation>),
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

/// Tries a compensation again
///
/// At once, with a new budget of attempts. The run goes on, and ends COMPENSATED when nothing is left.
#[utoipa::path(
    post, path = "/api/workflows/{id}/compensations/{step}/retry", tag = "runs",
    params(
        ("id" = String, Path, description = "the `workflowId`"),
        ("step" = String, Path, description = "the step whose compensation it is"),
    ),
    request_body(content = Retry, content_type = "application/json"),
    responses(
        (status = 200, description = "It has begun: the compensation as it stands", body = Compensation),
        (status = 202, description = "It will begin", body = Compensation),
        (status = 404, description = "No such run or compensation", body = ProblemBody),
        (status = 409, description = "It makes no sense for it now, or the active components can't be called", body = ProblemBody),
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

/// Lets a compensation go
///
/// What the step did stays.
#[utoipa::path(
    post, path = "/api/workflows/{id}/compensations/{step}/skip", tag = "runs",
    params(
        ("id" = String, Path, description = "the `workflowId`"),
        ("step" = String, Path, description = "the step whose compensation it is"),
    ),
    request_body(content = Reason, content_type = "application/json"),
    responses(
        (status = 200, description = "The compensation as it stands", body = Compensation),
        (status = 202, description = "It will be", body = Compensation),
        (status = 404, description = "No such run or compensation", body = ProblemBody),
        (status = 409, description = "It is done, skipped or settled already", body = ProblemBody),
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

/// Says that a compensation was done by hand
#[utoipa::path(
    post, path = "/api/workflows/{id}/compensations/{step}/settle", tag = "runs",
    params(
        ("id" = String, Path, description = "the `workflowId`"),
        ("step" = String, Path, description = "the step whose compensation it is"),
    ),
    request_body(content = Reason, content_type = "application/json"),
    responses(
        (status = 200, description = "The compensation as it stands", body = Compensation),
        (status = 202, description = "It will be", body = Compensation),
        (status = 404, description = "No such run or compensation", body = ProblemBody),
        (status = 409, description = "It is done, skipped or settled already", body = ProblemBody),
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
/// The same act for every failed compensation of COMPENSATION_FAILED runs that the filter finds, the newest runs first. The
/// runs go on by and by.
#[utoipa::path(
    post, path = "/api/workflows/repair", tag = "runs",
    params(
        ("dryRun" = Option<bool>, Query, description = "only tell what would be done; default false"),
        ("limit" = Option<u32>, Query, description = "about how many compensations at once, 1 to 1000; default 100"),
        ("cursor" = Option<String>, Query, description = "the `nextCursor` of the call before"),
    ),
    request_body(content = Repair, content_type = "application/json"),
    responses((status = 200, description = "What was ordered, or would be", body = Repaired)),
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
            return Err(invalid("/component", "belongs to `retry`: the other acts call no component"));
        }
        (_, None) if reason.is_none() => return Err(invalid("/reason", "is missing: say why")),
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
        Some(reason) if reason.trim().is_empty() => "is empty: say why",
        Some(reason) if reason.contains('\0') => "contains a NUL character",
        Some(reason) if reason.len() > MAX_REASON_BYTES => "has more than 4000 bytes",
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
