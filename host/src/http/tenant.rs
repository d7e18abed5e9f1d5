//! Extractors for the tenant of a request and the user who acts for it.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use aster_core::id::TenantId;

use super::problem::{Problem, Result};

pub(super) const TENANT: &str = "X-Tenant-Id";
const USER: &str = "X-User-Id";
const MAX_USER_BYTES: usize = 200;

/// The tenant of a request, from `X-Tenant-Id`. Without that header it is `default`.
#[derive(Clone, Debug)]
pub(crate) struct Tenant(pub(crate) TenantId);

/// The user who acts, from `X-User-Id`. Without that header the user has no name.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) Option<String>);

impl User {
    /// Returns the name for logs.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("-")
    }
}

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match single(&parts.headers, TENANT)? {
            None => Ok(Self(TenantId::default())),
            Some(text) => match text.parse() {
                Ok(tenant) => Ok(Self(tenant)),
                Err(error) => Err(Problem::parameter(TENANT, format!("{error}"))),
            },
        }
    }
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match single(&parts.headers, USER)? {
            None => Ok(Self(None)),
            Some(text) if (1..=MAX_USER_BYTES).contains(&text.len()) => Ok(Self(Some(text.to_owned()))),
            Some(_) => Err(Problem::parameter(USER, format!("expected 1 to {MAX_USER_BYTES} characters"))),
        }
    }
}

/// Returns the tenant's name as the request has it, valid or not.
pub(crate) fn tenant_of(headers: &HeaderMap) -> &str {
    let given = headers.get(TENANT).and_then(|value| value.to_str().ok());
    // This is the same as `TenantId::default()`.
    given.unwrap_or("default")
}

/// Returns the value of a header that may occur only once. Bytes beyond ASCII are read as UTF-8.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::parameter(name, "given more than once"));
    }
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Problem::parameter(name, "expected text in UTF-8")),
    }
}
