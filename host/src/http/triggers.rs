//! Triggers: the paths that definitions answer, as in `trigger: POST "/api/orders" keyed by order.orderId.`
//!
//! A trigger may have any path that no other route has. So this module is the router's fallback, and it also answers
//! that nothing is found.

use std::time::SystemTime;

use aster_core::eval;
use aster_core::id::{TenantId, WorkflowId};
use aster_core::plan::Plan;
use aster_core::time::Timestamp;
use axum::Json;
use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Context;
use super::body::Input;
use super::params::{NoQuery, Query};
use super::problem::{self, Problem, Result};
use super::runs::{RunEvent, link_to_next, load_events};
use super::tenant::{Tenant, single};
use crate::registry::Error as RegistryError;
use crate::store::Definition;
use crate::submit::{Error as SubmitError, Submission, Submitted};

/// More events than any sensible run has.
const MAX_EVENTS: usize = 10_000;

/// The answer to a `POST` on a trigger.
#[derive(Debug)]
struct Scheduled<'a> {
    /// The name of the key in the answer, which is the last name in `keyed by`.
    key_field: &'a str,
    key: Option<&'a str>,
    workflow_id: Option<WorkflowId>,
    status: &'static str,
    timestamp: Timestamp,
    message: String,
    /// The failed run that had the key before. Absent if there was none.
    previous: Option<WorkflowId>,
}

impl Serialize for Scheduled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.key_field, &self.key)?;
        map.serialize_entry("workflowId", &self.workflow_id)?;
        map.serialize_entry("status", self.status)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("message", &self.message)?;
        if let Some(previous) = self.previous {
            map.serialize_entry("previousWorkflowId", &previous)?;
        }
        map.end()
    }
}

/// The answer to a `GET` on `<trigger>/<key>/status`.
#[derive(Debug)]
struct RunStatus<'a> {
    key_field: &'a str,
    key: &'a str,
    workflow_id: WorkflowId,
    status: &'static str,
    cause: Option<&'static str>,
    events: Vec<RunEvent>,
    last_updated: Timestamp,
}

impl Serialize for RunStatus<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry(self.key_field, self.key)?;
        map.serialize_entry("workflowId", &self.workflow_id)?;
        map.serialize_entry("status", self.status)?;
        map.serialize_entry("cause", &self.cause)?;
        map.serialize_entry("events", &self.events)?;
        map.serialize_entry("lastUpdated", &self.last_updated)?;
        map.end()
    }
}

/// Answers requests for which there is no route: a trigger, the status of a trigger's run, or a problem.
pub(crate) async fn answer(State(context): State<Context>, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let nothing = |path: &str| {
        let path: String = path.chars().take(200).collect();
        Problem::new(
            &problem::NOT_FOUND,
            format!("nothing answers the path `{path}`; `/docs` lists all paths"),
        )
    };
    let Ok(Asked { path, what }) = Asked::of(&parts.method, parts.uri.path()) else {
        return Err(nothing(parts.uri.path()));
    };
    let Tenant(tenant) = Tenant::from_request_parts(&mut parts, &context).await?;
    let Some(name) = context.app.registry.trigger(&tenant, &path).await? else {
        return Err(nothing(parts.uri.path()));
    };
    let (operation, answer) = match what {
        What::Start => {
            let request = Request::from_parts(parts, body);
            (format!("POST {path}"), start(&context, tenant, name, request).await)
        }
        What::Other => {
            let problem = super::method_not_allowed(parts.method).await;
            return Err(problem.with_header(header::ALLOW, HeaderValue::from_static("POST")));
        }
        What::Status(key) => {
            let query = Query::<NoQuery>::from_request_parts(&mut parts, &context).await;
            let answer = match query {
                Ok(_) => status(&context, &tenant, &name, &key).await,
                Err(problem) => Err(problem),
            };
            (format!("GET {path}/{{key}}/status"), answer)
        }
    };
    let (outcome, response) = match answer {
        Ok((outcome, response)) => (outcome.to_owned(), Ok(response)),
        Err(problem) => (problem.kind().status.as_u16().to_string(), Err(problem)),
    };
    context.metrics.count_trigger(operation, outcome);
    response
}

/// The trigger that a request may mean.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// The path of the trigger, percent-decoded.
    path: String,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Start,
    /// The status of the newest run with this key.
    Status(String),
    /// Something that a trigger doesn't answer.
    Other,
}

impl Asked {
    fn of(method: &Method, raw: &str) -> Result<Self, ()> {
        if *method == Method::POST {
            return Ok(Self { path: decode(raw)?, what: What::Start });
        }
        let status = raw.strip_suffix("/status").and_then(|rest| rest.rsplit_once('/'));
        match status.filter(|_| matches!(*method, Method::GET | Method::HEAD)) {
            Some((path, key)) => Ok(Self { path: decode(path)?, what: What::Status(decode(key)?) }),
            None => Ok(Self { path: decode(raw)?, what: What::Other }),
        }
    }
}

fn decode(raw: &str) -> Result<String, ()> {
    let text = percent_decode_str(raw).decode_utf8().map_err(drop)?;
    if text.is_empty() || text.contains('\0') { Err(()) } else { Ok(text.into_owned()) }
}

async fn start(
    context: &Context,
    tenant: TenantId,
    name: String,
    request: Request,
) -> Result<(&'static str, Response)> {
    let (mut parts, body) = request.into_parts();
    Query::<NoQuery>::from_request_parts(&mut parts, context).await?;
    let key = single(&parts.headers, "Idempotency-Key")?.map(str::to_owned);
    let Input(input) = Input::from_request(Request::from_parts(parts, body), context).await?;
    let submission = Submission {
        tenant: tenant.clone(),
        definition: name.clone(),
        input: input.clone(),
        key,
        watch: false,
    };
    match context.app.submitter.submit(submission).await {
        Ok(submitted) => Ok(("SCHEDULED", scheduled(&submitted))),
        Err(SubmitError::Registry(RegistryError::NotReady(reason))) => {
            let definition = find(context, &tenant, &name).await?;
            Ok(("ERROR", not_ready(&definition.current.plan, &input, reason)))
        }
        Err(error) => Err(error.into()),
    }
}

fn scheduled(submitted: &Submitted) -> Response {
    let message = match (submitted.created, submitted.previous) {
        (true, None) => "the run is accepted".to_owned(),
        (true, Some(previous)) => {
            format!("the run is accepted; it takes the key from {previous}, which failed")
        }
        (false, None) => "the run was accepted earlier".to_owned(),
        (false, Some(previous)) => {
            format!("the run was accepted earlier; it took the key from {previous}, which failed")
        }
    };
    let answer = Scheduled {
        key_field: submitted.key_field.as_deref().unwrap_or("key"),
        key: submitted.key.as_deref(),
        workflow_id: Some(submitted.workflow_id),
        status: "SCHEDULED",
        timestamp: submitted.accepted_at,
        message,
        previous: submitted.previous,
    };
    let location = [(header::LOCATION, format!("/api/workflows/{}", submitted.workflow_id))];
    (StatusCode::OK, location, Json(answer)).into_response()
}

/// Answers that the definition can't start now. Nothing is recorded, so the client may send the same request again
/// later.
fn not_ready(plan: &Plan, input: &Value, reason: String) -> Response {
    let key = plan.trigger.as_ref().and_then(|trigger| {
        match eval::pure(&trigger.key, eval::Env::of_input(plan, input)).ok()? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    });
    let answer = Scheduled {
        key_field: key_field(plan),
        key: key.as_deref(),
        workflow_id: None,
        status: "ERROR",
        // Nothing was accepted, so there is no instant of the database's clock to show.
        timestamp: chrono::DateTime::<chrono::Utc>::from(SystemTime::now()).into(),
        message: reason,
        previous: None,
    };
    Json(answer).into_response()
}

async fn status(
    context: &Context,
    tenant: &TenantId,
    name: &str,
    key: &str,
) -> Result<(&'static str, Response)> {
    let definition = find(context, tenant, name).await?;
    let run = context.app.store.run_by_key(tenant, &definition.name, key).await?;
    let run = run.ok_or_else(|| Problem::not_found("run with key", key))?;
    let events = load_events(context, &run, 0, MAX_EVENTS).await?;
    let link = link_to_next(&run, &events);
    let answer = RunStatus {
        key_field: key_field(&definition.current.plan),
        key,
        workflow_id: run.workflow_id,
        status: run.status.as_str(),
        cause: run.cause.map(|cause| cause.as_str()),
        events: events.items,
        last_updated: run.updated_at,
    };
    Ok(("200", (link, Json(answer)).into_response()))
}

async fn find(context: &Context, tenant: &TenantId, name: &str) -> Result<Definition> {
    super::definitions::find(context, tenant, name).await
}

fn key_field(plan: &Plan) -> &str {
    plan.trigger.as_ref().map_or("key", |trigger| trigger.key_field.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_means_a_trigger_or_the_status_of_a_key() {
        let check = |method: Method, raw: &str, path: &str, what: What| {
            assert_eq!(Asked::of(&method, raw), Ok(Asked { path: path.to_owned(), what }), "{method} {raw}");
        };
        let status = |key: &str| What::Status(key.to_owned());
        check(Method::POST, "/api/orders", "/api/orders", What::Start);
        check(Method::POST, "/api/b%C3%BCcher", "/api/bücher", What::Start);
        check(Method::GET, "/api/orders/ORD-1/status", "/api/orders", status("ORD-1"));
        check(Method::GET, "/api/orders/a%2Fb%20c/status", "/api/orders", status("a/b c"));
        check(Method::GET, "/api/orders", "/api/orders", What::Other);
        check(Method::DELETE, "/api/orders", "/api/orders", What::Other);
        for raw in ["/api/orders//status", "/x/status", "/api/orders/%FF/status"] {
            assert_eq!(Asked::of(&Method::GET, raw), Err(()), "{raw}");
        }
    }
}
