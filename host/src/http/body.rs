//! Extractors for the bodies of requests. They check a body's type and size, and refuse content that can't be stored.

use std::sync::Arc;

use aster_core::eval::MAX_DEPTH;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::intake::{Intake, Uploaded};
use super::json::{self, Content};
use super::problem::{self, Fault, Problem, Result};

/// The largest source text or small command.
const MAX_TEXT_BYTES: u64 = aster_dsl::limits::SOURCE as u64;

/// A workflow's input as JSON. An empty body is null.
#[derive(Debug)]
pub(crate) struct Input(pub(crate) Value);

/// A command as JSON. Unknown fields are refused.
#[derive(Debug)]
pub(crate) struct Command<T>(pub(crate) T);

/// The text of a source file.
#[derive(Debug)]
pub(crate) struct Source(pub(crate) String);

/// The bytes of a component.
#[derive(Debug)]
pub(crate) struct ComponentBytes(pub(crate) Uploaded);

/// The bytes of a key-value entry.
#[derive(Debug)]
pub(crate) struct ValueBytes(pub(crate) Bytes);

impl<S> FromRequest<S> for Input
where
    S: Send + Sync,
    Arc<Intake>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        refuse_other_than_json(request.headers())?;
        let bytes = Arc::<Intake>::from_ref(state).read_value(request, "an input").await?;
        input_of(&bytes).map(Self)
    }
}

/// Parses an input; an empty body is null.
fn input_of(bytes: &[u8]) -> Result<Value> {
    if is_blank(bytes) {
        return Ok(Value::Null);
    }
    json::parse(bytes).map_err(not_taken)
}

impl<S, T> FromRequest<S> for Command<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    Arc<Intake>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        refuse_other_than_json(request.headers())?;
        let bytes = Arc::<Intake>::from_ref(state).read(request, MAX_TEXT_BYTES, "a command").await?;
        // An empty body is an object without fields, for commands whose fields are all optional.
        let bytes = if is_blank(&bytes) { b"{}" } else { &*bytes };
        json::parse(bytes).map_err(not_taken)?;
        // The second parse is for the error message: serde_json names the line of a field that doesn't fit.
        serde_json::from_slice(bytes).map(Self).map_err(not_json)
    }
}

impl<S> FromRequest<S> for Source
where
    S: Send + Sync,
    Arc<Intake>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let given = MediaType::of(request.headers())?;
        given.refuse_other_than_utf8()?;
        if given.is_json() || given.is_form() {
            return Err(given.is_not("the text of the source file, as `text/plain`"));
        }
        let bytes = Arc::<Intake>::from_ref(state).read(request, MAX_TEXT_BYTES, "a source file").await?;
        let text = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::new(
                &problem::INVALID_BODY,
                format!("the source is not UTF-8: the first invalid byte is at offset {at}"),
            )
        })?;
        match text.find('\0') {
            None => Ok(Self(text)),
            Some(at) => Err(Problem::new(
                &problem::INVALID_BODY,
                format!("the source contains a NUL character, at byte offset {at}"),
            )),
        }
    }
}

impl<S> FromRequest<S> for ComponentBytes
where
    S: Send + Sync,
    Arc<Intake>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let given = MediaType::of(request.headers())?;
        if given.is_json() || given.is_form() {
            return Err(given.is_not("the bytes of the component, as `application/wasm`"));
        }
        Arc::<Intake>::from_ref(state).upload(request).await.map(Self)
    }
}

impl<S> FromRequest<S> for ValueBytes
where
    S: Send + Sync,
    Arc<Intake>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        // A value is stored as it comes, whatever its type.
        MediaType::of(request.headers())?;
        Arc::<Intake>::from_ref(state).read_value(request, "a value").await.map(Self)
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::new(&problem::INVALID_BODY, format!("the body is not the expected JSON: {error}"))
        .with("line", error.line())
        .with("column", error.column())
}

fn not_taken(fault: json::Fault) -> Problem {
    let (pointer, what) = match fault {
        json::Fault::Syntax(error) => return not_json(error),
        json::Fault::Content { pointer, what } => (pointer, what),
    };
    let (detail, short) = match what {
        Content::Duplicate => {
            (format!("the field at `{pointer}` is given more than once"), "given more than once".to_owned())
        }
        Content::Nul => (
            format!("the text at `{pointer}` contains a NUL character (\\u0000), which can't be stored"),
            "contains a NUL character".to_owned(),
        ),
        Content::TooDeep => (
            format!("the body is nested deeper than {MAX_DEPTH} levels"),
            format!("nested deeper than {MAX_DEPTH} levels"),
        ),
    };
    Problem::new(&problem::INVALID_BODY, detail).with_errors(vec![Fault::at_pointer(pointer, short)])
}

/// The media type of a body, from the header `Content-Type`: its name in lower case, and the parameter `charset`.
/// Without the header, the name is empty.
#[derive(Debug)]
struct MediaType {
    name: String,
    charset: Option<String>,
}

impl MediaType {
    /// Refuses a body that is compressed or otherwise encoded: no handler takes one.
    fn of(headers: &HeaderMap) -> Result<Self> {
        for coding in headers.get_all(header::CONTENT_ENCODING) {
            let coding = coding.to_str().unwrap_or("?");
            let mut codings = coding.split(',').map(str::trim).filter(|coding| !coding.is_empty());
            if !codings.all(|coding| coding.eq_ignore_ascii_case("identity")) {
                let detail = format!("the body is encoded as `{coding}`; expected a body without encoding");
                return Err(Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, detail)
                    .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
            }
        }
        let given = super::tenant::single(headers, "Content-Type")?.unwrap_or_default();
        let mut parts = given.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let charset = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
        });
        Ok(Self { name, charset })
    }

    fn is_json(&self) -> bool {
        self.name == "application/json"
            || (self.name.starts_with("application/") && self.name.ends_with("+json"))
    }

    fn is_form(&self) -> bool {
        self.name.starts_with("multipart/")
    }

    /// Refuses text in another charset. Text is UTF-8 here, as it is in JSON itself (RFC 8259 section 8.1).
    fn refuse_other_than_utf8(&self) -> Result<()> {
        match &self.charset {
            Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => {
                let detail = format!("the body's text is in `{charset}`; expected UTF-8");
                Err(Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, detail))
            }
            _ => Ok(()),
        }
    }

    fn is_not(&self, expected: &str) -> Problem {
        let detail = format!("the body is `{}`; expected {expected}", self.name);
        Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, detail)
    }
}

fn refuse_other_than_json(headers: &HeaderMap) -> Result<()> {
    let given = MediaType::of(headers)?;
    if !given.name.is_empty() && !given.is_json() {
        return Err(given.is_not("JSON, with `Content-Type: application/json`"));
    }
    given.refuse_other_than_utf8()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_is_a_null_input() {
        assert_eq!(input_of(b" \n").expect("nothing is null"), Value::Null);
        assert!(input_of(b"{").is_err());
    }
}
