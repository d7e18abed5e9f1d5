//! The OpenAPI document, assembled from the annotations of the handlers.
//!
//! `docs/openapi.json` is a committed copy, from which clients are generated. A test keeps the two equal.

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{components, definitions, health, keyvalue, operator, problem, runs};

/// Builds the document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Aster",
        description = "Durable business workflows whose steps are WebAssembly components.\n\nBodies are JSON with names in camelCase; times are in RFC 3339 with milliseconds in UTC; errors are RFC 9457 problem documents whose `type` is the path of a page that explains them. Lists are paged by an opaque cursor. An unknown parameter is an error. Besides these paths, the host answers the triggers of the deployed definitions: `POST <path>` starts a run, `GET <path>/{key}/status` shows the newest run of a key.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "components", description = "The WebAssembly components that steps call, each with its versions."),
        (name = "key-value", description = "The data that components have stored."),
        (name = "definitions", description = "Workflows, deployed as source texts."),
        (name = "runs", description = "Executions of a definition."),
        (name = "operation", description = "Health and metrics."),
    ),
    paths(
        components::list, components::show, components::upload, components::activate,
        components::show_version, components::delete_version,
        keyvalue::list, keyvalue::read, keyvalue::write, keyvalue::delete,
        definitions::deploy, definitions::check, definitions::list, definitions::show, definitions::graph,
        runs::start, runs::list, runs::show, runs::events, runs::by_status, runs::counts,
        operator::cancel, operator::compensations, operator::retry, operator::skip, operator::settle, operator::repair,
        health::alive, health::ready, health::metrics,
    ),
    components(schemas(problem::ProblemBody<'static>, problem::Fault)),
    modifiers(&Conventions),
)]
struct Api;

/// Adds what all operations of the API have in common.
struct Conventions;

impl Modify for Conventions {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                if path.starts_with("/api/") {
                    add_headers(operation);
                }
                add_problem(operation);
                correct_content_of_problems(operation);
            }
        }
    }
}

fn add_headers(operation: &mut Operation) {
    let header = |name: &str, description: &str| {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
        RefOr::T(parameter.build())
    };
    let parameters = operation.parameters.get_or_insert_default();
    parameters.push(header("X-Tenant-Id", "The tenant; by default `default`"));
    parameters
        .push(header("X-User-Id", "Who acts, for the host's log and the events of an operator's orders"));
}

fn add_problem(operation: &mut Operation) {
    let problem = |description: &str| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new().description(description);
        RefOr::T(response.content("application/problem+json", content).build())
    };
    let responses = &mut operation.responses.responses;
    if operation.request_body.is_some() {
        for (status, description) in [
            ("408", "The body arrived too slowly"),
            ("413", "The body is too large"),
            ("415", "The body has the wrong type, is compressed, or isn't UTF-8"),
        ] {
            responses.entry(status.to_owned()).or_insert_with(|| problem(description));
        }
    }
    let busy = "The host is busy, or the database doesn't answer";
    responses.entry("503".to_owned()).or_insert_with(|| problem(busy));
    responses.insert("default".to_owned(), problem("Any other error"));
}

/// Gives the answers that are problems the content type `application/problem+json`, so that the handlers' annotations
/// needn't.
fn correct_content_of_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && let Some(content) = response.content.shift_remove("application/json")
        {
            response.content.insert("application/problem+json".to_owned(), content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let current = document().to_pretty_json().expect("the document is JSON") + "\n";
        if std::env::var_os("ASTER_UPDATE_DOCS").is_some() {
            std::fs::write(path, &current).expect("docs/ can be written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        if committed == current {
            return;
        }
        let mut lines = committed.lines().zip(current.lines()).zip(1..);
        let differs = lines.find(|((committed, current), _)| committed != current);
        let place = match differs {
            Some(((committed, current), line)) => format!("line {line}: {committed:?} should be {current:?}"),
            None => "one is longer".to_owned(),
        };
        panic!(
            "docs/openapi.json is out of date ({place}).\n\
             Regenerate it: ASTER_UPDATE_DOCS=1 cargo test -p aster-host openapi"
        );
    }

    #[test]
    fn every_operation_has_a_summary_and_every_api_call_a_tenant() {
        let document = serde_json::to_value(document()).expect("the document is JSON");
        for (path, item) in document["paths"].as_object().expect("there are paths") {
            for (method, operation) in item.as_object().expect("an item is an object") {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(operation["responses"]["default"].is_object(), "{method} {path} has no problem");
                let has_tenant = operation.to_string().contains("X-Tenant-Id");
                assert_eq!(has_tenant, path.starts_with("/api/"), "{method} {path}");
            }
        }
    }
}
