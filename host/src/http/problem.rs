//! Errors over HTTP: every error of the host is an RFC 9457 problem document of one type.
//!
//! Each kind has a page in `docs/problems/`, which the host serves at the path in the problem's `type`. A 4xx says what
//! was wrong and what to do. A 5xx that is the host's fault hides its cause from the client. Every problem is logged
//! once, in this module.

use std::borrow::Cow;
use std::time::Instant;

use aster_core::saga::Refused;
use aster_runner::cut;
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::server::MAX_URI_BYTES;
use crate::logs::Throttle;
use crate::{operate, registry, store, submit};

/// The seconds after which a client may try again when the database doesn't answer or too many runs wait.
const RETRY_AFTER: &str = "2";
/// The same for when many components wait to be compiled.
const RETRY_COMPILER_AFTER: &str = "10";

/// A kind of problem, with its `type`, `title` and `status`.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The last part of `type`, which is also the name of the page.
    pub(crate) slug: &'static str,
    pub(crate) title: &'static str,
    pub(crate) status: StatusCode,
    /// The page, as Markdown.
    pub(crate) page: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $slug:literal $status:ident $title:literal;)*) => {
        $(pub(crate) static $name: Kind = Kind {
            slug: $slug,
            title: $title,
            status: StatusCode::$status,
            page: include_str!(concat!("../../../docs/problems/", $slug, ".md")),
        };)*

        /// All kinds, by status.
        pub(crate) static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    INVALID_PARAMETER = "invalid-parameter" BAD_REQUEST "A parameter, header or part of the path is not valid";
    INVALID_BODY = "invalid-body" BAD_REQUEST "The body can't be read";
    INVALID_NAME = "invalid-name" BAD_REQUEST "The name is not valid";
    INVALID_INPUT = "invalid-input" BAD_REQUEST "The input does not fit the workflow";
    INVALID_KEY = "invalid-key" BAD_REQUEST "The key is not valid";
    MALFORMED_REQUEST = "malformed-request" BAD_REQUEST "The request is malformed";
    NOT_FOUND = "not-found" NOT_FOUND "There is nothing here";
    METHOD_NOT_ALLOWED = "method-not-allowed" METHOD_NOT_ALLOWED "The path does not answer this method";
    REQUEST_TIMEOUT = "request-timeout" REQUEST_TIMEOUT "The request came too slowly";
    KEY_REUSED = "idempotency-key-reused" CONFLICT "The key is already used";
    BREAKS_DEFINITIONS = "breaks-definitions" CONFLICT "Deployed definitions need what this version lacks";
    NOT_READY = "not-ready" CONFLICT "The definition can't start now";
    IN_USE = "in-use" CONFLICT "Still in use";
    TRIGGER_TAKEN = "trigger-taken" CONFLICT "The trigger's path is taken";
    AMBIGUOUS_NAME = "ambiguous-name" CONFLICT "Several definitions have this name";
    RUN_OVER = "run-over" CONFLICT "The run is over";
    NOTHING_TO_REPAIR = "nothing-to-repair" CONFLICT "There is nothing to repair";
    TOO_LARGE = "too-large" PAYLOAD_TOO_LARGE "Too large";
    URI_TOO_LONG = "uri-too-long" URI_TOO_LONG "The path is too long";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "The body has the wrong type";
    INVALID_SOURCE = "invalid-source" UNPROCESSABLE_ENTITY "The source has errors";
    INVALID_COMPONENT = "invalid-component" UNPROCESSABLE_ENTITY "The component can't run here";
    HEADERS_TOO_LARGE = "headers-too-large" REQUEST_HEADER_FIELDS_TOO_LARGE "The headers are too large";
    INTERNAL = "internal" INTERNAL_SERVER_ERROR "The host failed";
    NOT_BUILT_YET = "not-built-yet" NOT_IMPLEMENTED "Not built yet";
    COMPILER_BUSY = "compiler-busy" SERVICE_UNAVAILABLE "The compiler is busy";
    OVERLOADED = "overloaded" SERVICE_UNAVAILABLE "Too many runs are waiting";
    BUSY = "busy" SERVICE_UNAVAILABLE "The host is busy";
    UNAVAILABLE = "unavailable" SERVICE_UNAVAILABLE "The database is unavailable";
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fault {
    /// Place in the body: a JSON pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pointer: Option<String>,
    /// Parameter of the query or the path, or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parameter: Option<Cow<'static, str>>,
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn at_pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    pub(crate) fn general(detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: None, detail: detail.into() }
    }
}

/// An error as the client sees it. It becomes the response when a handler returns it.
#[derive(Debug)]
pub(crate) struct Problem(Box<Content>);

#[derive(Debug)]
struct Content {
    kind: &'static Kind,
    detail: String,
    errors: Vec<Fault>,
    /// Members of the answer beyond those of RFC 9457.
    extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The cause, which the client isn't told. It is logged when the response is made.
    cause: Option<anyhow::Error>,
    /// Whether the log omits this problem.
    untold: bool,
}

/// How many refused requests are logged a second, so that clients can't fill the log.
static REFUSALS: Throttle = Throttle::new(100);
/// The same for requests that can't be answered now.
static OUTAGES: Throttle = Throttle::new(5);
/// The same for requests at which the host failed.
static FAILURES: Throttle = Throttle::new(20);

pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            extra: Map::new(),
            headers: Vec::new(),
            cause: None,
            untold: false,
        }))
    }

    /// Makes the problem for an invalid parameter of the query or the path, or an invalid header.
    pub(crate) fn parameter(name: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        let fault = Fault { pointer: None, parameter: Some(name.clone()), detail: detail.clone() };
        Self::new(&INVALID_PARAMETER, format!("`{name}`: {detail}")).with_errors(vec![fault])
    }

    pub(crate) fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::new(&NOT_FOUND, format!("no {kind} `{name}`"))
    }

    /// Makes the problem for a failure of the host. The client isn't told its cause.
    pub(crate) fn internal(cause: impl Into<anyhow::Error>) -> Self {
        let mut problem = Self::new(
            &INTERNAL,
            "the host failed to answer this request; its log has the reason under the response's `X-Request-Id`",
        );
        problem.0.cause = Some(cause.into());
        problem
    }

    pub(crate) fn not_built_yet(what: &str) -> Self {
        Self::new(&NOT_BUILT_YET, format!("{what} is not built yet; nothing was done"))
    }

    pub(crate) fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.0.errors = errors;
        self
    }

    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(member.to_owned(), value.into());
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Omits the problem from the log, because the client asks again and again.
    pub(crate) fn untold(mut self) -> Self {
        self.0.untold = true;
        self
    }

    pub(crate) fn kind(&self) -> &'static Kind {
        self.0.kind
    }

    fn retry_later(self) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))
    }

    /// Returns the bytes of the whole answer, for a connection on which no service answers. It is the connection's last
    /// answer.
    pub(super) fn to_http(&self) -> Vec<u8> {
        let Content { kind, headers, .. } = &*self.0;
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut head = format!(
            "HTTP/1.1 {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n",
            kind.status,
            body.len()
        )
        .into_bytes();
        for (name, value) in headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(&body);
        head
    }

    fn body(&self) -> ProblemBody<'_> {
        let Content { kind, detail, errors, extra, .. } = &*self.0;
        ProblemBody {
            kind: format!("/problems/{}", kind.slug),
            title: kind.title,
            status: kind.status.as_u16(),
            detail,
            errors,
            extra,
        }
    }
}

const PROBLEM_JSON: &str = "application/problem+json";

/// Makes the problem for a host that is busy with other clients' requests.
pub(super) fn busy(detail: impl Into<String>) -> Problem {
    Problem::new(&BUSY, detail).retry_later()
}

pub(super) fn uri_too_long() -> Problem {
    Problem::new(&URI_TOO_LONG, format!("the path with its query has at most {MAX_URI_BYTES} bytes"))
}

impl Content {
    /// Logs the problem: at INFO if the client made a mistake, at WARN if the request can't be answered now, at ERROR
    /// if the host failed.
    fn tell(&self) {
        let Self { kind: Kind { slug, status, .. }, detail, errors, cause, untold, .. } = self;
        if *untold {
            return;
        }
        let http_status = status.as_u16();
        match cause {
            Some(cause) if *slug != UNAVAILABLE.slug => {
                let Some(before) = FAILURES.pass(Instant::now()) else { return };
                tracing::error!(
                    problem.kind = slug,
                    http.status = http_status,
                    error.message = format!("{cause:#}"),
                    log.held_back = before,
                    "the host failed to answer a request ({status}): {cause:#}"
                );
            }
            cause if status.is_server_error() => {
                let Some(before) = OUTAGES.pass(Instant::now()) else { return };
                let why = cause.as_ref().map_or_else(|| detail.clone(), |cause| format!("{cause:#}"));
                tracing::warn!(
                    problem.kind = slug,
                    http.status = http_status,
                    error.message = why,
                    log.held_back = before,
                    "the host can't answer a request now ({status}): {why}"
                );
            }
            _ => {
                let Some(before) = REFUSALS.pass(Instant::now()) else { return };
                let first =
                    errors.first().map(|fault| cut(&fault.detail)).filter(|first| !detail.contains(first));
                let first = first.map(|first| format!(": {first}")).unwrap_or_default();
                let detail = cut(detail);
                tracing::info!(
                    problem.kind = slug,
                    http.status = http_status,
                    problem.detail = detail,
                    problem.errors = errors.len(),
                    log.held_back = before,
                    "the host refused a request ({status}, {slug}): {detail}{first}"
                );
            }
        }
    }
}

/// The body of every error: an RFC 9457 problem document of type `application/problem+json`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// `/problems/<slug>`, the path of a page that says what the problem means and what to do.
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    /// What is wrong with this request.
    detail: &'a str,
    /// The faults, if there are several or if they have a place.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Fault],
    #[serde(flatten)]
    #[schema(value_type = Object, additional_properties)]
    extra: &'a Map<String, Value>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.0.tell();
        let mut response = (self.0.kind.status, Json(self.body())).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response.headers_mut().extend(self.0.headers);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if matches!(error, store::Error::Unavailable { .. }) {
            let detail = match error.fault() {
                Some(aster_runner::Fault::Locked) => {
                    "another session of the database holds a lock that this request needs; nothing was recorded"
                }
                Some(aster_runner::Fault::Busy) => "the database is busy; nothing was recorded",
                _ => "the database does not answer; the request may or may not have been recorded",
            };
            let mut problem = Self::new(&UNAVAILABLE, detail);
            problem.0.cause = Some(error.into());
            return problem.retry_later();
        }
        match error {
            store::Error::NotFound { .. } => Self::new(&NOT_FOUND, error.to_string()),
            error => Self::internal(error),
        }
    }
}

impl From<registry::Error> for Problem {
    fn from(error: registry::Error) -> Self {
        use registry::Error;
        let detail = error.to_string();
        match error {
            Error::InvalidName(_) => Self::new(&INVALID_NAME, detail),
            Error::InvalidComponent(_) => Self::new(&INVALID_COMPONENT, detail),
            Error::Busy(_) => Self::new(&COMPILER_BUSY, detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static(RETRY_COMPILER_AFTER)),
            Error::TooLarge { limit, .. } => Self::new(&TOO_LARGE, detail).with("limitBytes", limit),
            Error::Breaks(list) => Self::new(&BREAKS_DEFINITIONS, detail)
                .with_errors(list.into_iter().map(Fault::general).collect()),
            Error::Diagnostics(list) => match serde_json::to_value(&list) {
                Ok(list) => Self::new(&INVALID_SOURCE, detail).with("diagnostics", list),
                Err(error) => Self::internal(error),
            },
            Error::TriggerTaken { .. } => Self::new(&TRIGGER_TAKEN, detail),
            Error::NotFound { .. } => Self::new(&NOT_FOUND, detail),
            Error::Ambiguous { candidates, .. } => {
                Self::new(&AMBIGUOUS_NAME, detail).with("candidates", candidates)
            }
            Error::NotReady(_) => Self::new(&NOT_READY, detail),
            Error::InUse(_) => Self::new(&IN_USE, detail),
            Error::Sandbox(error) => Self::internal(error),
            Error::Store(error) => error.into(),
        }
    }
}

impl From<submit::Error> for Problem {
    fn from(error: submit::Error) -> Self {
        use submit::Error;
        let detail = error.to_string();
        match error {
            Error::Registry(error) => error.into(),
            Error::Input(mismatches) => {
                let faults = mismatches.iter().map(|found| {
                    Fault::at_pointer(found.pointer.clone(), format!("`{}`: {}", found.path, found.message))
                });
                Self::new(&INVALID_INPUT, detail).with_errors(faults.collect())
            }
            Error::Key(_) => Self::new(&INVALID_KEY, detail),
            Error::KeyReused { workflow_id, status, .. } => Self::new(&KEY_REUSED, detail)
                .with("workflowId", workflow_id.to_string())
                .with("workflowStatus", status.as_str()),
            Error::Overloaded => {
                Self::new(&OVERLOADED, format!("{detail}; nothing was recorded")).retry_later()
            }
            Error::Store(error) => error.into(),
        }
    }
}

impl From<operate::Error> for Problem {
    fn from(error: operate::Error) -> Self {
        use operate::Error;
        let detail = error.to_string();
        match error {
            Error::NotFound(_) => Self::new(&NOT_FOUND, detail),
            Error::Refused(refused) => match refused {
                Refused::Over(status) => Self::new(&RUN_OVER, detail).with("workflowStatus", status.as_str()),
                Refused::NothingToUndo(_) => Self::new(&NOT_FOUND, detail),
                Refused::NotUndoing(status) => {
                    Self::new(&NOTHING_TO_REPAIR, detail).with("workflowStatus", status.as_str())
                }
                Refused::Already { state, .. } => {
                    Self::new(&NOTHING_TO_REPAIR, detail).with("compensationState", state)
                }
                Refused::LateResult(_) => Self::internal(anyhow::anyhow!(detail)),
            },
            Error::Registry(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Turns a panic in a handler into a problem.
pub(crate) fn of_panic(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Problem::internal(anyhow::anyhow!("a handler panicked: {text}")).into_response()
}
