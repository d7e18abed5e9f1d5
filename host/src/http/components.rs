//! Components and their versions.

use aster_core::id::{Digest, TenantId};
use aster_core::name::kebab;
use aster_core::time::Timestamp;
use aster_core::wit::Exports;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::body::{Command, ComponentBytes};
use super::page::{Page, Paging};
use super::params::{FromQuery, NoQuery, Params, Path, Query, parse};
use super::problem::{Problem, ProblemBody, Result};
use super::tenant::{Tenant, User};
use crate::registry::Uploaded;
use crate::store;

const WASM: &str = "application/wasm";

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/components", get(list))
        .route("/api/components/{name}", get(show).put(upload))
        .route("/api/components/{name}/activate", post(activate))
        .route("/api/components/{name}/versions/{digest}", get(show_version).delete(delete_version))
}

/// A component in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComponentSummary {
    name: String,
    /// Version that new runs pin. Null until a version is activated.
    #[schema(value_type = Option<String>, example = "sha256:4bf5…")]
    active_digest: Option<Digest>,
}

/// A component with its versions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComponentDetail {
    name: String,
    #[schema(value_type = Option<String>)]
    active_digest: Option<Digest>,
    versions: Vec<VersionSummary>,
}

/// A version in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionSummary {
    /// SHA-256 of the uploaded bytes.
    #[schema(value_type = String)]
    digest: Digest,
    #[schema(value_type = String, format = DateTime)]
    uploaded_at: Timestamp,
    size_bytes: u64,
    active: bool,
}

/// A version in full.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionDetail {
    name: String,
    #[schema(value_type = String)]
    digest: Digest,
    #[schema(value_type = String, format = DateTime)]
    uploaded_at: Timestamp,
    size_bytes: u64,
    active: bool,
    functions: Vec<ExportedFunction>,
    /// The version's exports and imports, as WIT text.
    wit: String,
}

/// A function that a version exports, in WIT's spelling.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportedFunction {
    /// Interface that contains the function. Null at the top level.
    interface: Option<String>,
    name: String,
}

/// The result of an upload.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Upload {
    #[serde(flatten)]
    version: VersionDetail,
    /// False if this component already had a version with the same bytes.
    created: bool,
    /// Functions of the version that can't be called, each with the reason.
    warnings: Vec<String>,
}

/// The version to activate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Activation {
    #[schema(value_type = String)]
    digest: Digest,
}

#[derive(Debug)]
pub(crate) struct UploadQuery {
    activate: bool,
}

impl FromQuery for UploadQuery {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        Ok(Self { activate: params.flag("activate")?.unwrap_or(true) })
    }
}

/// Lists components
#[utoipa::path(
    get, path = "/api/components", tag = "components",
    params(
        ("limit" = Option<u32>, Query, description = "Most items on the page: 1 to 200, by default 50"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the previous page"),
    ),
    responses((status = 200, description = "A page, ordered by name", body = Page<ComponentSummary>)),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<ComponentSummary>>> {
    let found = context.app.store.list_components(&tenant, paging.after.as_deref(), paging.limit()).await?;
    let view = |(name, active_digest)| ComponentSummary { name, active_digest };
    Ok(Json(paging.page(found, |(name, _)| name.clone(), view)))
}

/// Shows a component with its versions
#[utoipa::path(
    get, path = "/api/components/{name}", tag = "components",
    params(("name" = String, Path, description = "The component's name, matched by its words: `paymentGateway` is `payment-gateway`")),
    responses(
        (status = 200, description = "The component", body = ComponentDetail),
        (status = 404, description = "No such component", body = ProblemBody),
    ),
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(name): Path<String>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Json<ComponentDetail>> {
    let component = find(&context, &tenant, &name).await?;
    let versions = component.versions.into_iter().map(|version| VersionSummary {
        digest: version.digest,
        uploaded_at: version.uploaded_at,
        size_bytes: version.size_bytes,
        active: component.active == Some(version.digest),
    });
    Ok(Json(ComponentDetail {
        name: component.name,
        active_digest: component.active,
        versions: versions.collect(),
    }))
}

/// Uploads a version
///
/// Uploading the same bytes twice makes one version. A new version becomes active at once, unless `activate=false`
/// stages it.
#[utoipa::path(
    put, path = "/api/components/{name}", tag = "components",
    params(
        ("name" = String, Path, description = "The component's name: letters, digits and `-`"),
        ("activate" = Option<bool>, Query, description = "`false` stages the version without activating it; by default `true`"),
    ),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "The component's bytes"),
    responses(
        (status = 201, description = "The version is new", body = Upload),
        (status = 200, description = "The version existed already", body = Upload),
        (status = 409, description = "Deployed definitions call functions that the version doesn't offer", body = ProblemBody),
        (status = 413, description = "The component is too large", body = ProblemBody),
        (status = 422, description = "The bytes are not a component that can run on this host", body = ProblemBody),
        (status = 503, description = "Too many components are being uploaded or wait for the compiler, or the database doesn't answer", body = ProblemBody),
    ),
)]
pub(crate) async fn upload(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Path(name): Path<String>,
    Query(query): Query<UploadQuery>,
    ComponentBytes(component): ComponentBytes,
) -> Result<Response> {
    let uploaded = context.app.registry.upload(&tenant, &name, component.bytes, query.activate).await?;
    tracing::info!(
        tenant.id = %tenant, user.id = user.as_str(), component.name = uploaded.name,
        component.digest = %uploaded.digest, component.active = uploaded.active,
        "a client uploaded a version of component {}{}", uploaded.name, if uploaded.active { ", which is now active" } else { "" }
    );
    let Uploaded { name, digest, size_bytes, uploaded_at, active, created, exports, wit, warnings } =
        uploaded;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/api/components/{name}/versions/{digest}");
    let functions = functions(&exports);
    let version = VersionDetail { name, digest, uploaded_at, size_bytes, active, functions, wit };
    let upload = Upload { version, created, warnings };
    Ok((status, [(header::LOCATION, location)], Json(upload)).into_response())
}

/// Makes a version the active one
///
/// New runs pin it at once, on every host. Runs in flight keep the version that they began with.
#[utoipa::path(
    post, path = "/api/components/{name}/activate", tag = "components",
    params(("name" = String, Path)),
    request_body = Activation,
    responses(
        (status = 204, description = "The version is active"),
        (status = 404, description = "No such component or version", body = ProblemBody),
        (status = 409, description = "Deployed definitions call functions that the version doesn't offer", body = ProblemBody),
    ),
)]
pub(crate) async fn activate(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Path(name): Path<String>,
    Query(NoQuery): Query<NoQuery>,
    Command(activation): Command<Activation>,
) -> Result<StatusCode> {
    context.app.registry.activate(&tenant, &name, activation.digest).await?;
    tracing::info!(
        tenant.id = %tenant, user.id = user.as_str(), component.name = name,
        component.digest = %activation.digest, "a client activated version {} of component {name}", activation.digest
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a version
///
/// With `Accept: application/wasm`, the answer is the version's bytes.
#[utoipa::path(
    get, path = "/api/components/{name}/versions/{digest}", tag = "components",
    params(
        ("name" = String, Path),
        ("digest" = String, Path, description = "The version's digest: `sha256:` and 64 hex digits"),
    ),
    responses(
        (status = 200, description = "The version", content((VersionDetail = "application/json"), (Vec<u8> = "application/wasm"))),
        (status = 404, description = "No such component or version", body = ProblemBody),
    ),
)]
pub(crate) async fn show_version(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path((name, digest)): Path<(String, String)>,
    Query(NoQuery): Query<NoQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let digest = parse::<Digest>("digest", &digest)?;
    let component = find(&context, &tenant, &name).await?;
    let missing = || Problem::not_found("version", digest);
    let version =
        component.versions.into_iter().find(|version| version.digest == digest).ok_or_else(missing)?;
    if wants_bytes(&headers) {
        let bytes = context.app.store.load_component_bytes(digest).await?.ok_or_else(missing)?;
        let etag = format!("\"{digest}\"");
        return Ok(([(header::CONTENT_TYPE, WASM), (header::ETAG, etag.as_str())], bytes).into_response());
    }
    let offer = context.app.store.load_offer(&tenant, &component.name, digest).await?.ok_or_else(missing)?;
    let detail = VersionDetail {
        digest,
        uploaded_at: version.uploaded_at,
        size_bytes: version.size_bytes,
        active: component.active == Some(digest),
        functions: functions(&offer.exports),
        wit: offer.wit,
        name: component.name,
    };
    let vary = [(header::VARY, HeaderValue::from_static("accept"))];
    Ok((vary, Json(detail)).into_response())
}

/// Deletes a version
///
/// A version that is active, or that an unfinished run pins, can't be deleted.
#[utoipa::path(
    delete, path = "/api/components/{name}/versions/{digest}", tag = "components",
    params(("name" = String, Path), ("digest" = String, Path)),
    responses(
        (status = 204, description = "The version is deleted"),
        (status = 404, description = "No such component or version", body = ProblemBody),
        (status = 409, description = "The version is active, or an unfinished run pins it", body = ProblemBody),
    ),
)]
pub(crate) async fn delete_version(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Path((name, digest)): Path<(String, String)>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<StatusCode> {
    let digest = parse::<Digest>("digest", &digest)?;
    context.app.registry.delete_version(&tenant, &name, digest).await?;
    tracing::info!(
        tenant.id = %tenant, user.id = user.as_str(), component.name = name,
        component.digest = %digest, "a client deleted version {digest} of component {name}"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Finds the component whose name has the same words.
pub(crate) async fn find(context: &Context, tenant: &TenantId, name: &str) -> Result<store::Component> {
    let component = context.app.store.get_component(tenant, &kebab(name)).await?;
    component.ok_or_else(|| Problem::not_found("component", name))
}

fn functions(exports: &Exports) -> Vec<ExportedFunction> {
    let view = |function: &aster_core::wit::Function| ExportedFunction {
        interface: function.interface.clone(),
        name: function.name.clone(),
    };
    exports.functions.iter().map(view).collect()
}

/// Returns whether the client asks for WebAssembly by name.
fn wants_bytes(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        range.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(WASM))
    })
}
