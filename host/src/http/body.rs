//! The bodies of requests: read up to a limit, of the right type, and free of what can't be stored.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use aster_core::eval::{MAX_DEPTH, is_too_deep};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Limits;

use super::problem::{self, Fault, Problem, Result};

/// A source text, or a small command.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// How much of a body that is refused anyway is still taken off the connection, and for how long. A client that doesn't
/// wait for `100 Continue` reads the answer only after it has sent everything, and would see a broken connection instead.
const MAX_DRAIN_BYTES: usize = 256 << 20;
const MAX_DRAIN: Duration = Duration::from_secs(10);

/// A workflow's input: JSON, or nothing, which is null.
#[derive(Debug)]
pub(crate) struct Input(pub(crate) Value);

/// A command as JSON, every field known.
#[derive(Debug)]
pub(crate) struct Command<T>(pub(crate) T);

/// The text of a source file.
#[derive(Debug)]
pub(crate) struct Source(pub(crate) String);

/// The bytes of a component.
#[derive(Debug)]
pub(crate) struct ComponentBytes(pub(crate) Bytes);

/// The bytes of a key-value entry.
#[derive(Debug)]
pub(crate) struct ValueBytes(pub(crate) Bytes);

impl<S> FromRequest<S> for Input
where
    S: Send + Sync,
    Arc<Limits>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let limits = Arc::<Limits>::from_ref(state);
        refuse_other_than_json(request.headers())?;
        let bytes = read(request, limits.value_bytes, "an input").await?;
        input_of(&bytes).map(Self)
    }
}

/// Null for an empty body. What is stored must be readable: no NUL, and not too deep.
pub(crate) fn input_of(bytes: &[u8]) -> Result<Value> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let value = parse_json(bytes)?;
    if is_too_deep(&value) {
        let detail = format!("the input is nested deeper than {MAX_DEPTH} levels");
        return Err(Problem::new(&problem::INVALID_BODY, detail));
    }
    let mut pointer = String::new();
    match find_nul(&value, &mut pointer) {
        false => Ok(value),
        true => Err(Problem::new(
            &problem::INVALID_BODY,
            format!("the text at `{pointer}` contains a NUL character (\\u0000), which can't be stored"),
        )
        .with_errors(vec![Fault::at_pointer(pointer, "contains a NUL character")])),
    }
}

impl<S, T> FromRequest<S> for Command<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        refuse_other_than_json(request.headers())?;
        let bytes = read(request, MAX_TEXT_BYTES, "a command").await?;
        // Where every field may be left out, so may all.
        let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
        parse_json(if is_empty { b"{}" } else { &bytes }).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for Source {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let given = media_type(request.headers())?;
        if given.as_deref().is_some_and(|given| is_json(given) || given.starts_with("multipart/")) {
            return Err(wrong_type(given, "the text of the source file itself, as `text/plain`"));
        }
        let bytes = read(request, MAX_TEXT_BYTES, "a source file").await?;
        let text = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::new(
                &problem::INVALID_BODY,
                format!("the source is not UTF-8: see the byte at offset {at}"),
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
    Arc<Limits>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let limits = Arc::<Limits>::from_ref(state);
        let given = media_type(request.headers())?;
        if given.as_deref().is_some_and(|given| is_json(given) || given.starts_with("multipart/")) {
            return Err(wrong_type(given, "the bytes of the component themselves, as `application/wasm`"));
        }
        read(request, limits.component_bytes, "a component").await.map(Self)
    }
}

impl<S> FromRequest<S> for ValueBytes
where
    S: Send + Sync,
    Arc<Limits>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let limits = Arc::<Limits>::from_ref(state);
        read(request, limits.value_bytes, "a value").await.map(Self)
    }
}

/// The whole body, if it has at most `limit` bytes; what is longer is refused before it is held in memory.
async fn read(request: Request, limit: u64, what: &str) -> Result<Bytes> {
    let too_large = || {
        Problem::new(&problem::TOO_LARGE, format!("the body is too large: {what} has at most {limit} bytes"))
            .with("limitBytes", limit)
    };
    let (parts, body) = request.into_parts();
    let declared =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: u64| declared > limit) {
        if !parts.headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(too_large());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    to_bytes(body, limit).await.map_err(|error| {
        let over = error.source().is_some_and(|source| source.to_string().contains("length limit exceeded"));
        match over {
            true => too_large(),
            false => Problem::new(&problem::INVALID_BODY, "the body ended before it was complete"),
        }
    })
}

async fn drain(body: Body) {
    let mut stream = body.into_data_stream();
    let mut left = MAX_DRAIN_BYTES;
    let all = async {
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Over time: the answer is sent all the same.
    let _ = tokio::time::timeout(MAX_DRAIN, all).await;
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(
            &problem::INVALID_BODY,
            format!("the body is not the JSON that is expected here: {error}"),
        )
        .with("line", error.line())
        .with("column", error.column())
    })
}

/// Whether a text or a field's name contains NUL; then `pointer` leads there.
fn find_nul(value: &Value, pointer: &mut String) -> bool {
    let length = pointer.len();
    match value {
        Value::String(text) => return text.contains('\0'),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                if find_nul(item, pointer) {
                    return true;
                }
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1").replace('\0', "\u{fffd}"));
                if name.contains('\0') || find_nul(value, pointer) {
                    return true;
                }
                pointer.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    false
}

/// Of `Content-Type`, in lower case and without its parameters.
fn media_type(headers: &HeaderMap) -> Result<Option<String>> {
    let given = super::tenant::single(headers, "Content-Type")?;
    Ok(given.map(|given| given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()))
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

fn refuse_other_than_json(headers: &HeaderMap) -> Result<()> {
    match media_type(headers)? {
        Some(given) if !is_json(&given) => {
            Err(wrong_type(Some(given), "JSON, with `Content-Type: application/json`"))
        }
        _ => Ok(()),
    }
}

fn wrong_type(given: Option<String>, expected: &str) -> Problem {
    let given = given.unwrap_or_default();
    Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, format!("the body is `{given}`; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nul_in_a_text_or_a_name_is_refused_with_a_pointer_to_it() {
        let check = |input: Value, pointer: &str| {
            let problem = input_of(input.to_string().as_bytes()).expect_err("it has a NUL");
            assert!(format!("{problem:?}").contains(&format!("{pointer:?}")), "{problem:?}");
        };
        check(json!("a\0"), "");
        check(json!({"a": [1, "x", {"b/c": "\0"}]}), "/a/2/b~1c");
        check(json!({"x\0": 1}), "/x\u{fffd}");
        assert_eq!(input_of(br#"{"a": "\\u0000"}"#).expect("that is a backslash"), json!({"a": "\\u0000"}));
    }

    #[test]
    fn an_empty_body_is_a_null_input() {
        assert_eq!(input_of(b" \n").expect("nothing is null"), Value::Null);
        assert!(input_of(b"{").is_err());
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(input_of(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(input_of(nested(MAX_DEPTH + 1).as_bytes()).is_err());
    }
}
