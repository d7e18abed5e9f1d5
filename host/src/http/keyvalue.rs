//! Components' key-value data, for operators, for seeding and for tests.

use std::sync::Arc;

use aster_core::id::TenantId;
use aster_core::keyvalue::{Key, MAX_NAME_BYTES};
use aster_core::name::kebab;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::body::ValueBytes;
use super::components;
use super::page::{Page, Paging};
use super::params::{NoQuery, Path, Query};
use super::problem::{Problem, ProblemBody, Result};
use super::tenant::{Tenant, User};
use crate::store::ListedEntry;

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/components/{name}/keyvalue/{bucket}", get(list))
        .route("/api/components/{name}/keyvalue/{bucket}/", get(empty_key).put(empty_key).delete(empty_key))
        .route("/api/components/{name}/keyvalue/{bucket}/{*key}", get(read).put(write).delete(delete))
}

/// A key with its value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    key: String,
    /// The value's bytes, in base64 (RFC 4648 section 4, padded).
    value_base64: String,
    /// Version of the key. It grows with every change.
    version: i64,
}

/// The result of a write.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written {
    key: String,
    version: i64,
}

/// Lists a bucket
///
/// Entries are in the order of the keys' bytes. The list is not a consistent snapshot: writes may happen while it is
/// read.
#[utoipa::path(
    get, path = "/api/components/{name}/keyvalue/{bucket}", tag = "key-value",
    params(
        ("name" = String, Path), ("bucket" = String, Path),
        ("limit" = Option<u32>, Query, description = "Most items on the page: 1 to 200, by default 50"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the previous page"),
    ),
    responses(
        (status = 200, description = "A page; empty if nothing is stored in the bucket", body = Page<Entry>),
        (status = 404, description = "No such component", body = ProblemBody),
    ),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path((name, bucket)): Path<(String, String)>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Entry>>> {
    let component = kebab(&name);
    check_name("bucket", &bucket)?;
    components::find(&context, &tenant, &component).await?;
    let store = &context.app.store;
    let found =
        store.list_entries(&tenant, &component, &bucket, paging.after.as_deref(), paging.limit()).await?;
    let view = |found: ListedEntry| Entry {
        key: found.key.to_string(),
        value_base64: STANDARD.encode(&found.value),
        version: found.version.0,
    };
    Ok(Json(paging.page(found, |found| found.key.to_string(), view)))
}

/// Reads a value
///
/// The key is the rest of the path. It may contain `/`, as it is or as `%2F`. The header `ETag` is the key's version.
#[utoipa::path(
    get, path = "/api/components/{name}/keyvalue/{bucket}/{key}", tag = "key-value",
    params(("name" = String, Path), ("bucket" = String, Path), ("key" = String, Path)),
    responses(
        (status = 200, description = "The value's bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "No such component or key", body = ProblemBody),
    ),
)]
pub(crate) async fn read(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(place): Path<(String, String, String)>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Response> {
    let key = key(&context, &tenant, place).await?;
    let entry = context.app.store.load_entry(&key).await?;
    let value = entry.value.ok_or_else(|| Problem::not_found("key", &key.key))?;
    let etag = format!("\"{}\"", entry.version.0);
    // A browser must not take a stored value for a page of this host.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::ETAG, etag.as_str()),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    Ok((headers, value).into_response())
}

/// Writes a value
///
/// Overwrites the value. A step in flight that has read the key runs again.
#[utoipa::path(
    put, path = "/api/components/{name}/keyvalue/{bucket}/{key}", tag = "key-value",
    params(("name" = String, Path), ("bucket" = String, Path), ("key" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The value's bytes"),
    responses(
        (status = 200, description = "The value is stored", body = Written),
        (status = 404, description = "No such component", body = ProblemBody),
        (status = 413, description = "The value is too large", body = ProblemBody),
    ),
)]
pub(crate) async fn write(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Path(place): Path<(String, String, String)>,
    Query(NoQuery): Query<NoQuery>,
    ValueBytes(value): ValueBytes,
) -> Result<Json<Written>> {
    let key = key(&context, &tenant, place).await?;
    let version = context.app.store.put_entry(&key, &value).await?;
    log_change(&key, &user, "wrote");
    Ok(Json(Written { key: key.key.to_string(), version: version.0 }))
}

/// Deletes a value
#[utoipa::path(
    delete, path = "/api/components/{name}/keyvalue/{bucket}/{key}", tag = "key-value",
    params(("name" = String, Path), ("bucket" = String, Path), ("key" = String, Path)),
    responses(
        (status = 204, description = "The value is deleted, or there was none"),
        (status = 404, description = "No such component", body = ProblemBody),
    ),
)]
pub(crate) async fn delete(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Path(place): Path<(String, String, String)>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<StatusCode> {
    let key = key(&context, &tenant, place).await?;
    if context.app.store.delete_entry(&key).await? {
        log_change(&key, &user, "deleted");
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn empty_key() -> Problem {
    Problem::parameter("key", "expected at least one character")
}

/// Makes the key that a path names. The component must exist.
async fn key(
    context: &Context,
    tenant: &TenantId,
    (name, bucket, key): (String, String, String),
) -> Result<Key> {
    let component = kebab(&name);
    check_name("bucket", &bucket)?;
    check_name("key", &key)?;
    components::find(context, tenant, &component).await?;
    Ok(Key {
        tenant: tenant.clone(),
        component: Arc::from(component),
        bucket: Arc::from(bucket),
        key: Arc::from(key),
    })
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    let fault = match name {
        "" => "expected at least one character".to_owned(),
        name if name.len() > MAX_NAME_BYTES => {
            format!("{} bytes long; expected at most {MAX_NAME_BYTES}", name.len())
        }
        name if name.contains('\0') => "contains a NUL character".to_owned(),
        _ => return Ok(()),
    };
    Err(Problem::parameter(what, fault))
}

fn log_change(key: &Key, user: &User, done: &str) {
    tracing::info!(
        tenant.id = %key.tenant, user.id = user.as_str(), component.name = &*key.component,
        keyvalue.bucket = &*key.bucket, keyvalue.key = &*key.key,
        "{done} entry {} in bucket {} of component {}", key.key, key.bucket, key.component
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_empty_has_no_nul_and_is_at_most_512_bytes_long() {
        for good in ["a", "req-1/supplier-a", "ключ", &"k".repeat(MAX_NAME_BYTES)] {
            assert!(check_name("key", good).is_ok(), "{good}");
        }
        for bad in ["", "a\0", &"k".repeat(MAX_NAME_BYTES + 1)] {
            assert!(check_name("key", bad).is_err(), "{bad}");
        }
    }
}
