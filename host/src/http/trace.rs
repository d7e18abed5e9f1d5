//! The span of a request, so that each line logged within it names the request.

use std::time::Instant;

use aster_core::id::TenantId;
use aster_runner::cut;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, debug, error_span};
use uuid::Uuid;

use super::tenant::TENANT;

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client that the host keeps.
const MAX_ID_BYTES: usize = 128;

/// Answers a request in a span of its own, and tells the client the id under which the log has it.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = id_of(request.headers());
    // The span has the highest level, so that no filter separates a line from its request.
    let span = error_span!(
        "request",
        request.id = id.to_str().unwrap_or_default(),
        tenant.id = Empty,
        http.method = %request.method(),
        http.path = cut(request.uri().path()),
    );
    if let Some(tenant) = tenant_of(request.headers()) {
        span.record("tenant.id", display(tenant));
    }
    async {
        let mut response = next.run(request).await;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        debug!(
            http.status = response.status().as_u16(),
            duration_ms,
            "the host answered a request with status {}",
            response.status()
        );
        response.headers_mut().insert(REQUEST_ID.clone(), id);
        response
    }
    .instrument(span)
    .await
}

/// Returns the client's own id if it is short and plain, and a new one otherwise.
fn id_of(headers: &HeaderMap) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    let given = headers.get(&REQUEST_ID).filter(|id| {
        let id = id.as_bytes();
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(is_plain)
    });
    given.cloned().unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).expect("a UUID is plain ASCII")
    })
}

/// Returns `None` for the default tenant, and for an invalid name, which is refused elsewhere.
fn tenant_of(headers: &HeaderMap) -> Option<TenantId> {
    headers.get(TENANT)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_from_a_client_is_kept_if_it_is_plain_and_short() {
        let taken = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, HeaderValue::from_bytes(id).expect("a header takes it"));
            id_of(&headers).as_bytes() == id
        };
        let long = "x".repeat(MAX_ID_BYTES);
        for plain in ["7", "018f-ab.c:d/e+f=@g_h", &long] {
            assert!(taken(plain.as_bytes()), "{plain}");
        }
        for other in [&b""[..], b"a b", b"a\tb", b"a\"b", b"\xff", format!("{long}x").as_bytes()] {
            assert!(!taken(other), "{other:?}");
        }
        let (first, second) = (id_of(&HeaderMap::new()), id_of(&HeaderMap::new()));
        assert_ne!(first, second);
    }
}
