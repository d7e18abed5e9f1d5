//! The host's own documentation: the OpenAPI document, the same as a readable page, and a page for each kind of
//! problem.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::Value;

use super::openapi;
use super::params::Path;
use super::problem::{KINDS, Problem, Result};

const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// Returns the routes of the documentation, which need no state.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/openapi.json", get(document))
        // A visitor with a browser is led to the documentation.
        .route("/", get(async || Redirect::to("/docs")))
        .route("/docs", get(page))
        .route("/problems", get(problems))
        .route("/problems/{slug}", get(problem))
}

async fn document() -> Response {
    static JSON: LazyLock<String> =
        LazyLock::new(|| openapi::document().to_json().expect("the document can be JSON"));
    ([(header::CONTENT_TYPE, "application/json")], JSON.as_str()).into_response()
}

async fn page() -> Response {
    static HTML: LazyLock<String> = LazyLock::new(|| {
        let document = serde_json::to_value(openapi::document());
        render(&document.expect("the document can be JSON"))
    });
    // The page has no script, so the policy lets none run.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(HeaderName::from_static("content-security-policy"), policy)], Html(HTML.as_str())).into_response()
}

async fn problems() -> Response {
    let mut text =
        "# Problems\n\nEvery error is an RFC 9457 problem document whose `type` is one of these.\n\n"
            .to_owned();
    for kind in KINDS {
        // Writing to a `String` can't fail.
        let _ = writeln!(
            text,
            "- [{}](/problems/{}): {}, {}",
            kind.slug,
            kind.slug,
            kind.status.as_u16(),
            kind.title
        );
    }
    ([(header::CONTENT_TYPE, MARKDOWN)], text).into_response()
}

async fn problem(Path(slug): Path<String>) -> Result<Response> {
    let kind = KINDS.iter().find(|kind| kind.slug == slug);
    let kind = kind.ok_or_else(|| Problem::not_found("kind of problem", slug))?;
    Ok(([(header::CONTENT_TYPE, MARKDOWN)], kind.page).into_response())
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
details { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 6px; margin: 0.5rem 0; padding: 0.4rem 0.8rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.15rem 1rem 0.15rem 0; }
";

/// Renders the document as one HTML page without scripts.
fn render(document: &Value) -> String {
    let mut out = String::new();
    // Writing to a `String` can't fail.
    let _ = write_page(&mut out, document);
    out
}

fn write_page(out: &mut String, document: &Value) -> std::fmt::Result {
    let title = escape(text(&document["info"]["title"]));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title} API</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title} API</h1>\n"
    )?;
    for paragraph in text(&document["info"]["description"]).split("\n\n") {
        writeln!(out, "<p>{}</p>", prose(paragraph))?;
    }
    writeln!(
        out,
        "<p>For programs: <a href=\"/openapi.json\">OpenAPI document</a>. Errors: <a href=\"/problems\">problems</a>.</p>"
    )?;
    for tag in items(&document["tags"]) {
        let name = text(&tag["name"]);
        writeln!(out, "<h2>{}</h2>\n<p>{}</p>", escape(name), prose(text(&tag["description"])))?;
        for (path, item) in fields(&document["paths"]) {
            for (method, operation) in fields(item) {
                if items(&operation["tags"]).any(|tag| text(tag) == name) {
                    write_operation(out, method, path, operation)?;
                }
            }
        }
    }
    writeln!(out, "<h2>Shapes</h2>")?;
    for (name, schema) in fields(&document["components"]["schemas"]) {
        write_schema(out, name, schema)?;
    }
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn write_operation(out: &mut String, method: &str, path: &str, operation: &Value) -> std::fmt::Result {
    let summary = prose(text(&operation["summary"]));
    let (method, path) = (method.to_uppercase(), escape(path));
    writeln!(out, "<details>\n<summary><b>{method}</b> <code>{path}</code> {summary}</summary>")?;
    if let Some(description) = operation["description"].as_str() {
        writeln!(out, "<p>{}</p>", prose(description))?;
    }
    writeln!(out, "<table>")?;
    for parameter in items(&operation["parameters"]) {
        let name = escape(text(&parameter["name"]));
        let place = escape(text(&parameter["in"]));
        let description = prose(text(&parameter["description"]));
        writeln!(out, "<tr><td><code>{name}</code></td><td>{place}</td><td>{description}</td></tr>")?;
    }
    let body = &operation["requestBody"];
    if body.is_object() {
        let (content, description) = (content(&body["content"]), prose(text(&body["description"])));
        writeln!(out, "<tr><td>body</td><td>{content}</td><td>{description}</td></tr>")?;
    }
    for (status, response) in fields(&operation["responses"]) {
        let (content, description) = (content(&response["content"]), prose(text(&response["description"])));
        writeln!(out, "<tr><td>{}</td><td>{content}</td><td>{description}</td></tr>", escape(status))?;
    }
    writeln!(out, "</table>\n</details>")
}

fn write_schema(out: &mut String, name: &str, schema: &Value) -> std::fmt::Result {
    let (name, description) = (escape(name), prose(text(&schema["description"])));
    writeln!(out, "<details id=\"{name}\">\n<summary><code>{name}</code> {description}</summary>\n<table>")?;
    let parts = std::iter::once(schema).chain(items(&schema["allOf"]));
    for (field, schema) in parts.flat_map(|part| fields(&part["properties"])) {
        let (ty, description) = (ty(schema), prose(text(&schema["description"])));
        writeln!(out, "<tr><td><code>{}</code></td><td>{ty}</td><td>{description}</td></tr>", escape(field))?;
    }
    writeln!(out, "</table>\n</details>")
}

/// Renders the media types of a body, each with its schema.
fn content(content: &Value) -> String {
    let of_type = |(media_type, of_type): (&String, &Value)| {
        format!("<code>{}</code> {}", escape(media_type), ty(&of_type["schema"]))
    };
    fields(content).map(of_type).collect::<Vec<_>>().join("<br>")
}

fn ty(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if let Some(one) = items(&schema["oneOf"]).find(|one| one["type"] != "null") {
        return format!("{} or null", ty(one));
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("array of {}", ty(&schema["items"])),
        Value::String(name) => escape(name),
        Value::Array(names) => names.iter().map(text).map(escape).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Renders text that contains `code`.
fn prose(markdown: &str) -> String {
    let part = |(i, part): (usize, &str)| match i % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    };
    markdown.split('`').enumerate().map(part).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
