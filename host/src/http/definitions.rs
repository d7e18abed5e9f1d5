//! Definitions: deploying and checking source files, and showing what is deployed.

use aster_core::id::{Digest, TenantId};
use aster_core::plan::{Call, Plan, Type};
use aster_core::time::Timestamp;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Context;
use super::body::Source;
use super::page::{Page, Paging};
use super::params::{FromQuery, NoQuery, Params, Path, Query};
use super::problem::{self, Problem, ProblemBody, Result};
use super::tenant::{Tenant, User};
use crate::registry::DeployedDefinition;
use crate::store::{Definition, ListedDefinition};

/// The file name in diagnostics if the client gives none.
const DEFAULT_FILE: &str = "workflow.aster";
const MAX_FILE_BYTES: usize = 200;

pub(crate) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/definitions", get(list).post(deploy))
        .route("/api/definitions/check", post(check))
        .route("/api/definitions/{name}", get(show))
        .route("/api/definitions/{name}/graph", get(graph))
}

/// An error or a warning about a source text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object, example = json!({
    "file": "order.aster", "code": "E029", "severity": "error",
    "message": "`chrage_payment` is not a step of this workflow", "help": "did you mean `charge_payment`?",
    "span": {"start": 512, "end": 526}, "label": "named here", "line": 31, "column": 37, "endLine": 31, "endColumn": 51,
}))]
pub(crate) struct Diagnostic(aster_dsl::Diagnostic);

/// The result of a deployment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    definitions: Vec<Deployed>,
    /// The warnings about the file.
    diagnostics: Vec<Diagnostic>,
}

/// One function of a deployed file.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployed {
    /// Full name, `module.function`.
    name: String,
    /// SHA-256 of the source, which identifies the definition's version.
    #[schema(value_type = String)]
    digest: Digest,
    triggers: Vec<Trigger>,
    /// False if this source was already deployed.
    created: bool,
}

/// A request that starts a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trigger {
    method: &'static str,
    path: String,
}

/// The result of a check.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    /// Whether the source can be deployed now.
    ok: bool,
    diagnostics: Vec<Diagnostic>,
}

/// A definition in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DefinitionSummary {
    /// Full name, `module.function`.
    name: String,
    #[schema(value_type = String)]
    digest: Digest,
    #[schema(value_type = String, format = DateTime)]
    deployed_at: Timestamp,
    triggers: Vec<Trigger>,
}

/// A definition with its current source.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DefinitionDetail {
    /// Full name, `module.function`.
    name: String,
    #[schema(value_type = String)]
    digest: Digest,
    #[schema(value_type = String, format = DateTime)]
    deployed_at: Timestamp,
    triggers: Vec<Trigger>,
    parameters: Vec<Parameter>,
    file: String,
    /// Text of the whole file.
    source: String,
    /// The versions, newest first.
    versions: Vec<DefinitionVersion>,
}

/// A parameter of the workflow.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Parameter {
    name: String,
    /// Type as the source spells it, for example `List of Item`.
    #[serde(rename = "type")]
    ty: String,
}

/// A version of a definition.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DefinitionVersion {
    #[schema(value_type = String)]
    digest: Digest,
    #[schema(value_type = String, format = DateTime)]
    deployed_at: Timestamp,
    current: bool,
}

/// The steps of a definition and their dependencies.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Graph {
    name: String,
    #[schema(value_type = String)]
    digest: Digest,
    /// In the order of their declaration. The value of the last step is the result.
    steps: Vec<GraphStep>,
}

/// A step of the graph.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GraphStep {
    name: String,
    /// Line of the step in the source.
    line: u32,
    depends_on: Vec<String>,
    /// Whether a condition may skip the step.
    conditional: bool,
    calls: Vec<GraphCall>,
    /// Undoes the step. Null if nothing does.
    compensation: Option<GraphCompensation>,
}

/// The compensation of a step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GraphCompensation {
    line: u32,
    calls: Vec<GraphCall>,
}

/// A call of a component's function.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GraphCall {
    /// Name under which the component is registered.
    component: String,
    function: String,
    line: u32,
}

#[derive(Debug)]
pub(crate) struct FileQuery {
    file: String,
}

impl FromQuery for FileQuery {
    fn from_query(params: &mut Params<'_>) -> Result<Self> {
        match params.take("file")? {
            None => Ok(Self { file: DEFAULT_FILE.to_owned() }),
            Some(file) if !(1..=MAX_FILE_BYTES).contains(&file.len()) || file.contains(char::is_control) => {
                let expected = format!("expected 1 to {MAX_FILE_BYTES} bytes without control characters");
                Err(Problem::parameter("file", expected))
            }
            Some(file) => Ok(Self { file }),
        }
    }
}

/// Deploys a source file
///
/// Either all of the file's functions are deployed, each under its full name `module.function`, or none is. Runs in
/// flight keep the version that they began with.
#[utoipa::path(
    post, path = "/api/definitions", tag = "definitions",
    params(("file" = Option<String>, Query, description = "The file's name in diagnostics; by default `workflow.aster`")),
    request_body(content = String, content_type = "text/plain", description = "The text of the file"),
    responses(
        (status = 201, description = "At least one definition is new", body = Deployment),
        (status = 200, description = "All of the file was deployed already", body = Deployment),
        (status = 409, description = "Another definition has the path of a trigger", body = ProblemBody),
        (status = 422, description = "The source has errors; `diagnostics` lists them", body = ProblemBody),
    ),
)]
pub(crate) async fn deploy(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    user: User,
    Query(query): Query<FileQuery>,
    Source(source): Source,
) -> Result<Response> {
    let deployed = context.app.registry.deploy(&tenant, &query.file, &source).await?;
    for definition in &deployed.definitions {
        tracing::info!(
            tenant.id = %tenant, user.id = user.as_str(), definition.name = definition.name,
            definition.digest = %definition.digest, definition.created = definition.created,
            "a client deployed definition {}", definition.name
        );
    }
    let created = deployed.definitions.iter().any(|definition| definition.created);
    let view = |definition: DeployedDefinition| Deployed {
        name: definition.name,
        digest: definition.digest,
        triggers: triggers(definition.trigger),
        created: definition.created,
    };
    let deployment = Deployment {
        definitions: deployed.definitions.into_iter().map(view).collect(),
        diagnostics: deployed.diagnostics.into_iter().map(Diagnostic).collect(),
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(deployment)).into_response())
}

/// Checks a source file
///
/// Checks the file against the active components as a deployment does, and deploys nothing.
#[utoipa::path(
    post, path = "/api/definitions/check", tag = "definitions",
    params(("file" = Option<String>, Query, description = "The file's name in diagnostics; by default `workflow.aster`")),
    request_body(content = String, content_type = "text/plain", description = "The text of the file"),
    responses((status = 200, description = "The diagnostics, including errors", body = Check)),
)]
pub(crate) async fn check(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Query(query): Query<FileQuery>,
    Source(source): Source,
) -> Result<Json<Check>> {
    let diagnostics = context.app.registry.check(&tenant, &query.file, &source).await?;
    let ok = diagnostics.iter().all(|found| found.severity != aster_dsl::Severity::Error);
    Ok(Json(Check { ok, diagnostics: diagnostics.into_iter().map(Diagnostic).collect() }))
}

/// Lists definitions
#[utoipa::path(
    get, path = "/api/definitions", tag = "definitions",
    params(
        ("limit" = Option<u32>, Query, description = "Most items on the page: 1 to 200, by default 50"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the previous page"),
    ),
    responses((status = 200, description = "A page, ordered by full name", body = Page<DefinitionSummary>)),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<DefinitionSummary>>> {
    let found = context.app.store.list_definitions(&tenant, paging.after.as_deref(), paging.limit()).await?;
    let view = |found: ListedDefinition| DefinitionSummary {
        name: found.name,
        digest: found.digest,
        deployed_at: found.deployed_at,
        triggers: triggers(found.trigger_path),
    };
    Ok(Json(paging.page(found, |found| found.name.clone(), view)))
}

/// Shows a definition
#[utoipa::path(
    get, path = "/api/definitions/{name}", tag = "definitions",
    params(("name" = String, Path, description = "The full name, or the function's name if it is unique")),
    responses(
        (status = 200, description = "The definition with its current source", body = DefinitionDetail),
        (status = 404, description = "No such definition", body = ProblemBody),
        (status = 409, description = "Several definitions have this name; `candidates` lists them", body = ProblemBody),
    ),
)]
pub(crate) async fn show(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(name): Path<String>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Json<DefinitionDetail>> {
    let found = find(&context, &tenant, &name).await?;
    let digest = found.current.digest;
    let parameters = found.current.plan.parameters.into_iter();
    let parameters = parameters.map(|parameter| Parameter { ty: spell(&parameter.ty), name: parameter.name });
    let version = |(version, deployed_at)| DefinitionVersion {
        digest: version,
        deployed_at,
        current: version == digest,
    };
    Ok(Json(DefinitionDetail {
        name: found.name,
        digest,
        deployed_at: found.deployed_at,
        triggers: triggers(found.trigger_path),
        parameters: parameters.collect(),
        file: found.current.file_name,
        source: found.current.source,
        versions: found.versions.into_iter().map(version).collect(),
    }))
}

/// Shows a definition as a graph
#[utoipa::path(
    get, path = "/api/definitions/{name}/graph", tag = "definitions",
    params(("name" = String, Path, description = "The full name, or the function's name if it is unique")),
    responses(
        (status = 200, description = "The steps and their dependencies", body = Graph),
        (status = 404, description = "No such definition", body = ProblemBody),
    ),
)]
pub(crate) async fn graph(
    State(context): State<Context>,
    Tenant(tenant): Tenant,
    Path(name): Path<String>,
    Query(NoQuery): Query<NoQuery>,
) -> Result<Json<Graph>> {
    let found = find(&context, &tenant, &name).await?;
    Ok(Json(Graph { name: found.name, digest: found.current.digest, steps: graph_of(&found.current.plan) }))
}

/// Finds the definition with this full name, or with this function's name if it is unique.
pub(crate) async fn find(context: &Context, tenant: &TenantId, name: &str) -> Result<Definition> {
    let mut found = context.app.store.find_definitions(tenant, name).await?;
    if found.len() > 1 {
        let candidates: Vec<Value> = found.into_iter().map(|found| found.name.into()).collect();
        let detail = format!("`{name}` is the name of several definitions: use the full name");
        return Err(Problem::new(&problem::AMBIGUOUS_NAME, detail).with("candidates", candidates));
    }
    found.pop().ok_or_else(|| Problem::not_found("definition", name))
}

fn triggers(path: Option<String>) -> Vec<Trigger> {
    path.into_iter().map(|path| Trigger { method: "POST", path }).collect()
}

fn graph_of(plan: &Plan) -> Vec<GraphStep> {
    let calls = |calls: Vec<&Call>| calls.into_iter().map(view_of_call).collect::<Vec<_>>();
    let view = |step: &aster_core::plan::Step| GraphStep {
        name: step.name.to_string(),
        line: step.line,
        depends_on: step.depends_on.iter().map(ToString::to_string).collect(),
        conditional: step.when.is_some(),
        calls: calls(step.calls()),
        compensation: step.compensation.as_ref().map(|compensation| GraphCompensation {
            line: compensation.line,
            calls: calls(compensation.calls()),
        }),
    };
    plan.steps.iter().map(view).collect()
}

fn view_of_call(call: &Call) -> GraphCall {
    GraphCall {
        component: aster_core::name::kebab(&call.capability),
        function: match &call.interface {
            Some(interface) => format!("{interface}.{}", call.function),
            None => call.function.clone(),
        },
        line: call.line,
    }
}

/// Spells a type as the language does.
fn spell(ty: &Type) -> String {
    let all = |types: &[Type]| types.iter().map(spell).collect::<Vec<_>>().join(" and ");
    match ty {
        Type::Text => "Text".into(),
        Type::Int => "Int".into(),
        Type::Float => "Float".into(),
        Type::Double => "Double".into(),
        Type::Bool => "Bool".into(),
        Type::Json => "Json".into(),
        Type::Unit => "Unit".into(),
        Type::Io => "IO".into(),
        Type::Named(name) => name.clone(),
        Type::List(inner) => format!("List of {}", spell(inner)),
        Type::Option(inner) => format!("Option of {}", spell(inner)),
        Type::Result(types) => format!("Result of {}", all(types)),
        Type::Workflow(types) => format!("Workflow of {}", all(types)),
    }
}
