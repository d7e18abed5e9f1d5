//! Runs: starting them and looking at them.

use std::time::Duration;

use aster_core::event::Cause;
use aster_core::id::{TenantId, WorkflowId};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_runner::{End, Waited};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Context;
use super::body::Input;
use super::page::{Page, Paging};
use super::params::{FromQuery, NoQuery, Params, Path, Query, invalid_cursor, parse};
use super::problem::{Problem, ProblemBody, Result};
use super::tenant::{Tenant, single};
use crate::store::{JsonText, Listed, RecordedEvent, Run, RunFilter};
use crate::submit::{Submission, Submitted};

const DEFAULT_EVENTS: u32 = 1_000;
const MAX_EVENTS: u32 = 10_000;
const DEFAULT_IDS: u32 = 100;
const MAX_IDS: u32 = 10_000;

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/definitions/{name}/runs", post(start))
        .route("/api/workflows", get(list))
        .route("/api/workflows/metrics", get(counts))
        .route("/api/workflows/by-status/{status}", get(by_status))
        .route("/api/workflows/{id}", get(show))
        .route("/api/workflows/{id}/events", get(events))
        .route(
            "/api/workflows/{id}/events/stream",
            get(async || Problem::not_built_yet("the stream of events")),
        )
}

/// The current state of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunState {
    #[schema(value_type = String, format = "uuid")]
    workflow_id: WorkflowId,
    /// Full name, `module.function`.
    definition: String,
    /// Key from `keyed by`, or from the `Idempotency-Key` that started the run.
    key: Option<String>,
    /// The failed run that had the key before. Absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    previous_workflow_id: Option<WorkflowId>,
    #[schema(value_type = String, example = "COMPLETED")]
    status: Status,
    /// Why the run failed: STEP, TIMEOUT or CANCEL. Null if it didn't.
    #[schema(value_type = Option<String>)]
    cause: Option<Cause>,
    #[schema(value_type = Value)]
    input: JsonText,
    /// Value of the last step. Null unless the run is COMPLETED.
    #[schema(value_type = Value)]
    result: Option<JsonText>,
    /// The failure. Null if nothing failed.
    #[schema(value_type = Option<RunError>)]
    error: Option<JsonText>,
    /// When the run was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// When the run's timeout passes.
    #[schema(value_type = String, format = DateTime)]
    deadline: Timestamp,
}

/// Why a run failed, or the first failure while it was undone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunError {
    #[schema(value_type = String, example = "ERROR")]
    code: aster_core::event::FailureCode,
    message: String,
    /// Payload of the component's `err`, if it is more than a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
}

/// The answer to a start.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Started {
    #[schema(value_type = String, format = "uuid")]
    workflow_id: WorkflowId,
    definition: String,
    key: Option<String>,
    #[schema(value_type = String, example = "RUNNING")]
    status: Status,
    /// False if the key and the input belong to an earlier run, which is then the answer.
    created: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The failed run that had the key before. Absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    previous_workflow_id: Option<WorkflowId>,
}

/// An event of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunEvent {
    /// Gapless from 1.
    sequence: u64,
    #[schema(value_type = String, format = "uuid")]
    workflow_id: WorkflowId,
    #[schema(example = "STEP_COMPLETED")]
    event_type: String,
    /// Depends on the event's type. `v` is the version of the payload.
    #[schema(value_type = Object)]
    payload: JsonText,
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Timestamp,
}

/// The number of runs in each status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Counts {
    ready: u64,
    running: u64,
    completed: u64,
    failed: u64,
    compensating: u64,
    compensated: u64,
    compensation_failed: u64,
}

#[derive(Debug)]
pub(crate) struct ListQuery {
    filter: RunFilter,
    pub(super) paging: Paging,
}

impl FromQuery for ListQuery {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        let status = params.parsed("status")?;
        let definition = params.take("definition")?;
        let cause = params.take("cause")?.map(|text| parse_cause(&text)).transpose()?;
        let paging = Paging::from_query(params)?;
        let before =
            paging.after.as_deref().map(|id| id.parse().map_err(|_| invalid_cursor())).transpose()?;
        Ok(Self { filter: RunFilter { status, definition, cause, before }, paging })
    }
}

#[derive(Debug)]
pub(crate) struct EventsQuery {
    from_sequence: u64,
    limit: usize,
}

impl FromQuery for EventsQuery {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        let from_sequence = match params.take("fromSeq")? {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                Problem::parameter("fromSeq", format!("`{text}` is not a sequence: expected 0 or more"))
            })?,
        };
        Ok(Self { from_sequence, limit: params.limit(DEFAULT_EVENTS, MAX_EVENTS)? as usize })
    }
}

#[derive(Debug)]
pub(crate) struct IdsQuery {
    limit: usize,
}

impl FromQuery for IdsQuery {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        Ok(Self { limit: params.limit(DEFAULT_IDS, MAX_IDS)? as usize })
    }
}

/// Starts a run
///
/// The body is the workflow's input: the value of its parameter if it has one, an object with a field for each if it
/// has several, and empty if it has none. The same key with the same input always names the same run.
#[utoipa::path(
    post, path = "/api/definitions/{name}/runs", tag = "runs",
    params(
        ("name" = String, Path, description = "The full name, or the function's name if it is unique"),
        ("Idempotency-Key" = Option<String>, Header, description = "At most 512 bytes; a definition with `keyed by` takes its key from the input instead"),
        ("Prefer" = Option<String>, Header, description = "`wait=10` waits up to 10 seconds for the run to end"),
    ),
    request_body(content = Value, content_type = "application/json"),
    responses(
        (status = 202, description = "The run is accepted and durable", body = Started),
        (status = 200, description = "The run ended within the wait", body = RunState),
        (status = 400, description = "The input doesn't fit, or the key is invalid", body = ProblemBody),
        (status = 404, description = "No such definition", body = ProblemBody),
        (status = 409, description = "The key was used with other input, or the definition can't start now", body = ProblemBody),
        (status = 413, description = "The input is too large", body = ProblemBody),
        (status = 503, description = "The host has no free slot and too many runs wait, or the database doesn't answer", body = ProblemBody),
    ),
)]
pub(crate) async fn start(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(definition): Path<String>,
    Query(NoQuery): Query<NoQuery>,
    headers: HeaderMap,
    Input(input): Input,
) -> Result<Response> {
    let wait = preferred_wait(&headers)?;
    let key = single(&headers, "Idempotency-Key")?.map(str::to_owned);
    let submission = Submission { tenant, definition, input, key, watch: wait.is_some() };
    let mut submitted = context.app.submitter.submit(submission).await?;
    let location = [(header::LOCATION, format!("/api/workflows/{}", submitted.workflow_id))];
    if let Some(limit) = wait
        && let Some(run) = over_within(&context, &mut submitted, limit).await
    {
        let applied = HeaderValue::from_str(&format!("wait={}", limit.as_secs()));
        let applied = applied.map_err(Problem::internal)?;
        let applied = [(HeaderName::from_static("preference-applied"), applied)];
        return Ok((location, applied, Json(run)).into_response());
    }
    Ok((StatusCode::ACCEPTED, location, Json(Started::from(submitted))).into_response())
}

/// Returns the run if it ends in time. The run is accepted already, so an error while waiting is no error of the
/// request.
async fn over_within(context: &Context, submitted: &mut Submitted, limit: Duration) -> Option<RunState> {
    let workflow_id = submitted.workflow_id;
    let watch = submitted.watch.take();
    let over = match context.app.submitter.wait_until_over(workflow_id, watch, limit).await {
        Ok(Waited::Over(Some(end))) => {
            RunState::ended(submitted, &end).map(Some).map_err(anyhow::Error::from)
        }
        Ok(Waited::Over(None)) => {
            let run = context.app.store.load_run(workflow_id).await;
            run.map(|run| run.map(RunState::from)).map_err(anyhow::Error::from)
        }
        Ok(Waited::NotOver) => Ok(None),
        Err(error) => Err(error.into()),
    };
    over.unwrap_or_else(|error| {
        tracing::warn!(run.id = %workflow_id, "the host can't wait for the end of run {workflow_id}: {error:#}");
        None
    })
}

/// Lists runs
///
/// The newest runs come first.
#[utoipa::path(
    get, path = "/api/workflows", tag = "runs",
    params(
        ("status" = Option<String>, Query, description = "Only runs in this status: READY, RUNNING, COMPLETED, FAILED, COMPENSATING, COMPENSATED or COMPENSATION_FAILED"),
        ("definition" = Option<String>, Query, description = "The full name, or the function's name if it is unique"),
        ("cause" = Option<String>, Query, description = "Only runs that failed for this cause: STEP, TIMEOUT or CANCEL"),
        ("limit" = Option<u32>, Query, description = "Most items on the page: 1 to 200, by default 50"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the previous page"),
    ),
    responses((status = 200, description = "A page", body = Page<RunState>)),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<RunState>>> {
    let ListQuery { mut filter, paging } = query;
    if let Some(name) = filter.definition.take() {
        filter.definition = Some(super::definitions::find(&context, &tenant, &name).await?.name);
    }
    let found = context.app.store.list_runs(&tenant, &filter, paging.limit()).await?;
    Ok(Json(paging.page(found, |run| run.workflow_id.to_string(), RunState::from)))
}

/// Shows a run
#[utoipa::path(
    get, path = "/api/workflows/{id}", tag = "runs",
    params(("id" = String, Path, description = "The run's `workflowId`")),
    responses(
        (status = 200, description = "The run's current state", body = RunState),
        (status = 404, description = "No such run", body = ProblemBody),
    ),
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Json<RunState>> {
    Ok(Json(find(&context, &tenant, &id).await?.into()))
}

/// Shows a run's events
#[utoipa::path(
    get, path = "/api/workflows/{id}/events", tag = "runs",
    params(
        ("id" = String, Path, description = "The run's `workflowId`"),
        ("fromSeq" = Option<u64>, Query, description = "The first sequence to return; by default 0"),
        ("limit" = Option<u32>, Query, description = "Most events in the answer: 1 to 10000, by default 1000"),
    ),
    responses(
        (status = 200, description = "The events in the order of their sequence; none if the run is READY. The answer has at most 8 MiB of payloads, and the header `Link` names the remaining events", body = [RunEvent]),
        (status = 404, description = "No such run", body = ProblemBody),
    ),
)]
pub(crate) async fn events(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response> {
    let run = find(&context, &tenant, &id).await?;
    let events = load_events(&context, &run, query.from_sequence, query.limit).await?;
    Ok((link_to_next(&run, &events), Json(events.items)).into_response())
}

/// Lists ids by status
///
/// The newest runs come first.
#[utoipa::path(
    get, path = "/api/workflows/by-status/{status}", tag = "runs",
    params(
        ("status" = String, Path, description = "The status: READY, RUNNING, COMPLETED, FAILED, COMPENSATING, COMPENSATED or COMPENSATION_FAILED"),
        ("limit" = Option<u32>, Query, description = "Most ids in the answer: 1 to 10000, by default 100"),
    ),
    responses((status = 200, description = "The runs' `workflowId`s", body = [String])),
)]
pub(crate) async fn by_status(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(status): Path<String>,
    Query(query): Query<IdsQuery>,
) -> Result<Json<Vec<WorkflowId>>> {
    let status = parse::<Status>("status", &status)?;
    Ok(Json(context.app.store.run_ids_by_status(&tenant, status, query.limit).await?))
}

/// Counts runs by status
#[utoipa::path(
    get, path = "/api/workflows/metrics", tag = "runs",
    responses((status = 200, description = "The number of runs in each of the seven statuses", body = Counts)),
)]
pub(crate) async fn counts(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Json<Counts>> {
    let counts = context.app.store.count_by_status(Some(&tenant)).await?;
    let of = |wanted| counts.iter().filter(|(status, _)| *status == wanted).map(|(_, n)| n).sum();
    Ok(Json(Counts {
        ready: of(Status::Ready),
        running: of(Status::Running),
        completed: of(Status::Completed),
        failed: of(Status::Failed),
        compensating: of(Status::Compensating),
        compensated: of(Status::Compensated),
        compensation_failed: of(Status::CompensationFailed),
    }))
}

/// Finds a run of this tenant.
async fn find(context: &Context, tenant: &TenantId, id: &str) -> Result<Run> {
    let workflow_id = parse::<WorkflowId>("workflowId", id)?;
    let run = context.app.store.load_run(workflow_id).await?.filter(|run| run.tenant == *tenant);
    run.ok_or_else(|| Problem::not_found("run", workflow_id))
}

pub(crate) async fn load_events(
    context: &Context,
    run: &Run,
    from_sequence: u64,
    limit: usize,
) -> Result<Listed<RunEvent>> {
    let events = context.app.store.load_events(run.workflow_id, from_sequence, limit).await?;
    if events.items.is_empty() && from_sequence <= run.last_sequence && run.last_sequence > 0 {
        // The run was deleted just now, because its retention was over.
        return Err(Problem::not_found("run", run.workflow_id));
    }
    Ok(events.map(RunEvent::from))
}

/// Returns a `Link` header (RFC 8288) to the events after these, if there are any.
pub(crate) fn link_to_next(run: &Run, events: &Listed<RunEvent>) -> Option<[(HeaderName, String); 1]> {
    let last = events.items.last().filter(|_| events.more)?;
    let next =
        format!("</api/workflows/{}/events?fromSeq={}>; rel=\"next\"", run.workflow_id, last.sequence + 1);
    Some([(header::LINK, next)])
}

impl From<RecordedEvent> for RunEvent {
    fn from(recorded: RecordedEvent) -> Self {
        let RecordedEvent { workflow_id, sequence, event_type, payload, occurred_at } = recorded;
        let payload = payload.with_safe_integers();
        Self { sequence, workflow_id, event_type, payload, occurred_at }
    }
}

impl From<Run> for RunState {
    fn from(run: Run) -> Self {
        Self {
            workflow_id: run.workflow_id,
            definition: run.definition,
            key: run.key,
            previous_workflow_id: run.previous,
            status: run.status,
            cause: run.cause,
            input: run.input.with_safe_integers(),
            result: run.result.map(JsonText::with_safe_integers),
            error: run.error.map(JsonText::with_safe_integers),
            created_at: run.accepted_at,
            updated_at: run.updated_at,
            deadline: run.deadline,
        }
    }
}

impl RunState {
    /// Makes the state of a run that this host accepted and drove to its end. It is the same that the database would
    /// return.
    fn ended(submitted: &Submitted, end: &End) -> Result<Self, serde_json::Error> {
        let Submitted { workflow_id, definition, key, previous, accepted_at, input, deadline, .. } =
            submitted;
        Ok(Self {
            workflow_id: *workflow_id,
            definition: definition.clone(),
            key: key.clone(),
            previous_workflow_id: *previous,
            status: end.run.status,
            cause: end.run.cause,
            input: JsonText::new(input)?.with_safe_integers(),
            result: end.run.result.as_ref().map(JsonText::new).transpose()?.map(JsonText::with_safe_integers),
            error: end.run.error.as_ref().map(JsonText::new).transpose()?.map(JsonText::with_safe_integers),
            created_at: *accepted_at,
            updated_at: end.at,
            deadline: *deadline,
        })
    }
}

impl From<Submitted> for Started {
    fn from(submitted: Submitted) -> Self {
        Self {
            workflow_id: submitted.workflow_id,
            definition: submitted.definition,
            key: submitted.key,
            status: submitted.status,
            created: submitted.created,
            created_at: submitted.accepted_at,
            previous_workflow_id: submitted.previous,
        }
    }
}

fn parse_cause(text: &str) -> Result<Cause> {
    let all = [Cause::Step, Cause::Timeout, Cause::Cancel];
    let found = all.into_iter().find(|cause| cause.as_str() == text);
    found.ok_or_else(|| {
        Problem::parameter("cause", format!("`{text}` is not a cause: expected STEP, TIMEOUT or CANCEL"))
    })
}

/// Reads `wait` from the header `Prefer` (RFC 7240). The runner limits the wait. Other preferences are ignored, as the
/// RFC allows.
fn preferred_wait(headers: &HeaderMap) -> Result<Option<Duration>> {
    for value in headers.get_all("prefer") {
        for preference in value.to_str().unwrap_or_default().split(',') {
            let preference = preference.split(';').next().unwrap_or_default();
            let Some((name, wait)) = preference.split_once('=') else { continue };
            if !name.trim().eq_ignore_ascii_case("wait") {
                continue;
            }
            let seconds = wait.trim().trim_matches('"').parse().map_err(|_| {
                Problem::parameter("Prefer", "`wait` is not a whole number of seconds, as in `wait=10`")
            })?;
            return Ok(Some(Duration::from_secs(seconds)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_wait_is_found_among_other_preferences() {
        let wait = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", HeaderValue::from_static(value));
            preferred_wait(&headers).ok()
        };
        assert_eq!(wait("respond-async"), Some(None));
        assert_eq!(wait("respond-async, Wait = 10"), Some(Some(Duration::from_secs(10))));
        assert_eq!(wait("wait=99999999"), Some(Some(Duration::from_secs(99_999_999))));
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("wait=-1"), None);
    }
}
