//! Tests of the conventions that hold for every path, on routers without a host behind them.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::body::{Command, ComponentBytes, Input, Source, ValueBytes};
use super::components::Activation;
use super::definitions::FileQuery;
use super::intake::Intake;
use super::page::Paging;
use super::params::{NoQuery, Path, Query};
use super::problem::{self, KINDS, Problem};
use super::runs::{EventsQuery, ListQuery};
use super::tenant::{Tenant, User};
use super::{docs, with_conventions};
use crate::config::Limits;
use crate::{registry, submit};

/// A router with a path for each extractor, and limits that are easily exceeded.
fn app() -> Router {
    let limits = Limits { value_bytes: 100, component_bytes: 1_000, ..Limits::default() };
    let routes = Router::new()
        .route(
            "/tenant",
            get(async |Tenant(tenant): Tenant, user: User| format!("{tenant} {}", user.as_str())),
        )
        .route("/list", get(async |Query(_): Query<ListQuery>| ()))
        .route("/events", get(async |Query(_): Query<EventsQuery>| ()))
        .route("/page", get(async |Query(_): Query<Paging>| ()))
        .route("/none", get(async |Query(NoQuery): Query<NoQuery>| ()))
        .route("/input", post(async |Input(input): Input| input.to_string()))
        .route("/command", post(async |Command::<Activation>(_)| ()))
        .route("/source", post(async |Query(_): Query<FileQuery>, Source(text): Source| text))
        .route("/component", post(async |ComponentBytes(whole): ComponentBytes| whole.bytes))
        .route("/value", post(async |ValueBytes(bytes): ValueBytes| bytes))
        .route("/key/{*key}", get(async |Path(key): Path<String>| key))
        .route("/panic", get(async || -> () { panic!("a secret of the host") }))
        .merge(docs::routes())
        .fallback(async || Problem::not_found("path", "x"));
    with_conventions(routes).with_state(Arc::new(Intake::new(&limits, 1, None)))
}

async fn send(request: Request<Body>) -> Response {
    app().oneshot(request).await.expect("a router is infallible")
}

async fn get_(path: &str) -> Response {
    send(Request::get(path).body(Body::empty()).expect("a valid request")).await
}

async fn post_(path: &str, content_type: &str, body: impl Into<Body>) -> Response {
    let request = Request::post(path).header(header::CONTENT_TYPE, content_type);
    send(request.body(body.into()).expect("a valid request")).await
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("the body is there");
    String::from_utf8(bytes.into()).expect("the body is text")
}

/// Returns the problem, after checking what all problems have in common.
async fn problem_of(response: Response) -> Value {
    let status = response.status().as_u16();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let problem: Value = serde_json::from_str(&text(response).await).expect("a problem is JSON");
    assert_eq!(problem["status"], status);
    let slug = problem["type"].as_str().and_then(|uri| uri.strip_prefix("/problems/")).expect("a type");
    assert!(KINDS.iter().any(|kind| kind.slug == slug && kind.title == problem["title"]), "{problem}");
    problem
}

async fn check(response: Response, slug: &str, detail: &str) {
    let problem = problem_of(response).await;
    assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
    let found = problem["detail"].as_str().expect("a detail");
    assert!(found.contains(detail), "{found:?} has no {detail:?}");
}

#[tokio::test]
async fn a_problem_has_the_members_of_rfc_9457() {
    let problem = problem_of(get_("/list?statsu=READY").await).await;
    insta::assert_json_snapshot!(problem, @r#"
    {
      "detail": "`statsu`: not a known parameter; this path takes `status`, `definition`, `cause`, `cursor`, `limit`",
      "errors": [
        {
          "detail": "not a known parameter; this path takes `status`, `definition`, `cause`, `cursor`, `limit`",
          "parameter": "statsu"
        }
      ],
      "status": 400,
      "title": "A parameter, header or part of the path is not valid",
      "type": "/problems/invalid-parameter"
    }
    "#);
}

#[tokio::test]
async fn bad_parameters_are_refused_by_name() {
    for (path, detail) in [
        ("/list?status=DONE", "`status`: `DONE` is not a status"),
        ("/list?cause=BAD", "`cause`: `BAD` is not a cause"),
        ("/list?status=READY&status=READY", "`status`: given more than once"),
        ("/list?definition=%00", "`definition`: contains a NUL"),
        ("/list?cursor=%21", "`cursor`: not a cursor"),
        ("/list?cursor=Zm9v", "`cursor`: not a cursor"),
        ("/page?cursor=", "`cursor`: not a cursor"),
        ("/page?cursor=AAAAAAAAAAAAAAAA", "`cursor`: not a cursor of this list"),
        ("/events?fromSeq=-1", "`fromSeq`: `-1` is not a sequence"),
        ("/events?limit=0", "`limit`: `0` is not a number from 1"),
        ("/page?limit=201", "`limit`: `201` is not a number from 1 to 200"),
        ("/none?x=1", "`x`: not a known parameter; this path takes no parameters"),
        ("/key/%FF", "UTF-8"),
    ] {
        check(get_(path).await, "invalid-parameter", detail).await;
    }
    for path in ["/list?status=READY&limit=200", "/events?fromSeq=3", "/page", "/none", "/list?cause=TIMEOUT"]
    {
        assert_eq!(get_(path).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_key_is_the_rest_of_the_path_decoded() {
    for path in ["/key/req-1/supplier-a", "/key/req-1%2Fsupplier-a", "/key/req-1%2fsupplier%2Da"] {
        assert_eq!(text(get_(path).await).await, "req-1/supplier-a");
    }
}

#[tokio::test]
async fn tenant_and_user_come_from_headers() {
    let ask = |name: &'static str, value: &'static [u8]| {
        send(Request::get("/tenant").header(name, value).body(Body::empty()).expect("a valid request"))
    };
    assert_eq!(text(get_("/tenant").await).await, "default -");
    assert_eq!(text(ask("X-Tenant-Id", b"acme").await).await, "acme -");
    assert_eq!(text(ask("X-User-Id", "Zoë".as_bytes()).await).await, "default Zoë");
    check(ask("X-Tenant-Id", b"a/b").await, "invalid-parameter", "`X-Tenant-Id`: `a/b` is not a tenant")
        .await;
    check(ask("X-Tenant-Id", b"").await, "invalid-parameter", "`X-Tenant-Id`").await;
    check(ask("X-User-Id", b"\xff").await, "invalid-parameter", "`X-User-Id`").await;
}

#[tokio::test]
async fn bodies_are_checked_for_type_size_and_content() {
    let json = "application/json";
    assert_eq!(text(post_("/input", json, r#"{"a": 1}"#).await).await, r#"{"a":1}"#);
    assert_eq!(text(post_("/input", "Application/JSON; charset=utf-8", "").await).await, "null");
    let response = post_("/input", json, "{\n  \"a\": nope}").await;
    let problem = problem_of(response).await;
    assert_eq!((&problem["line"], &problem["column"]), (&json!(2), &json!(9)), "{problem}");
    check(post_("/input", json, r#"{"a": ["\u0000"]}"#).await, "invalid-body", "`/a/0`").await;
    check(post_("/input", json, b"\"\xff\"".to_vec()).await, "invalid-body", "JSON").await;
    check(post_("/input", json, "[".repeat(90)).await, "invalid-body", "deeper than 64 levels").await;
    for path in ["/input", "/command"] {
        let response = post_(path, json, r#"{"a": [{"digest": 1, "digest": 1}]}"#).await;
        let problem = problem_of(response).await;
        assert_eq!(problem["type"], "/problems/invalid-body");
        let expected = json!([{"pointer": "/a/0/digest", "detail": "given more than once"}]);
        assert_eq!(problem["errors"], expected, "{problem}");
    }
    check(post_("/input", "application/x-www-form-urlencoded", "{}").await, "unsupported-media-type", "JSON")
        .await;
    check(post_("/input", json, " ".repeat(101)).await, "too-large", "at most 100 bytes").await;
    check(post_("/value", "text/plain", vec![0; 101]).await, "too-large", "at most 100 bytes").await;
    check(post_("/component", "application/wasm", vec![0; 1_001]).await, "too-large", "a component").await;
    check(post_("/component", json, "{}").await, "unsupported-media-type", "component").await;
    check(post_("/source", json, "{}").await, "unsupported-media-type", "text/plain").await;
    check(post_("/source", "text/plain", b"a\xff".to_vec()).await, "invalid-body", "offset 1").await;
    check(post_("/source", "text/plain", "a\0").await, "invalid-body", "NUL").await;
    check(post_("/source?file=a%0Ab", "text/plain", "a").await, "invalid-parameter", "`file`").await;
    check(post_("/command", json, r#"{"digest": "x"}"#).await, "invalid-body", "sha256:").await;
    check(post_("/command", json, r#"{"digset": "x"}"#).await, "invalid-body", "digset").await;
}

#[tokio::test]
async fn a_body_that_is_encoded_or_not_in_utf_8_is_refused() {
    let ask = |path: &str, name: &'static str, value: &'static str| {
        let request = Request::post(path).header(name, value);
        send(request.body(Body::empty()).expect("a valid request"))
    };
    for path in ["/input", "/command", "/source", "/component", "/value"] {
        for coding in ["gzip", "br", "identity, gzip", "x"] {
            let response = ask(path, "Content-Encoding", coding).await;
            assert_eq!(response.headers()[header::ACCEPT_ENCODING], "identity");
            check(response, "unsupported-media-type", &format!("encoded as `{coding}`")).await;
        }
    }
    for path in ["/input", "/source", "/component", "/value"] {
        for coding in ["identity", "Identity", ""] {
            assert_eq!(
                ask(path, "Content-Encoding", coding).await.status(),
                StatusCode::OK,
                "{path} {coding}"
            );
        }
    }
    for (path, kind) in
        [("/input", "application/json"), ("/command", "application/json"), ("/source", "text/plain")]
    {
        for charset in ["iso-8859-1", "UTF-16", "\"latin1\""] {
            let response = post_(path, &format!("{kind}; x=y; Charset={charset}"), "").await;
            check(response, "unsupported-media-type", "expected UTF-8").await;
        }
        for charset in ["utf-8", "UTF-8", "\"utf-8\""] {
            let response = post_(path, &format!("{kind};charset={charset}"), "").await;
            assert_ne!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{charset}");
        }
    }
    // A value may have any type, because it is stored as it comes.
    assert_eq!(post_("/value", "text/plain; charset=latin1", "").await.status(), StatusCode::OK);
}

/// Without `Content-Length`, a body is measured while it arrives.
#[tokio::test]
async fn a_body_of_unknown_length_is_cut_off_at_the_limit() {
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64]));
    check(post_("/input", "application/json", Body::from_stream(endless)).await, "too-large", "100 bytes")
        .await;
}

#[tokio::test]
async fn a_body_of_twenty_megabytes_is_refused_before_it_is_sent() {
    let request = Request::post("/input")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, "20000000")
        .header(header::EXPECT, "100-continue");
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let response = send(request.body(Body::from_stream(never)).expect("a valid request")).await;
    check(response, "too-large", "at most 100 bytes").await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    check(get_("/nope").await, "not-found", "no path").await;
    let response = post_("/list", "text/plain", "").await;
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    check(response, "method-not-allowed", "POST").await;
}

#[tokio::test]
async fn a_panic_becomes_a_problem_that_hides_its_message() {
    let response = get_("/panic").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let problem = problem_of(response).await.to_string();
    assert!(!problem.contains("secret"), "{problem}");
}

#[tokio::test]
async fn every_kind_of_problem_has_a_page() {
    let list = text(get_("/problems").await).await;
    for kind in KINDS {
        let uri = format!("/problems/{}", kind.slug);
        assert!(list.contains(&uri), "{list}");
        let response = get_(&uri).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/markdown; charset=utf-8");
        let page = text(response).await;
        assert!(page.starts_with(&format!("# {}\n", kind.title)), "{page}");
        assert!(page.contains(&format!("`{}`, status {}.", kind.slug, kind.status.as_u16())), "{page}");
    }
    check(get_("/problems/none").await, "not-found", "none").await;
}

#[tokio::test]
async fn the_documentation_is_one_page_without_scripts() {
    let page = text(get_("/docs").await).await;
    for part in ["PUT", "/api/components/{name}", "COMPENSATION_FAILED", "id=\"Problem\"", "X-Tenant-Id"] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["<script", "http://", "src="] {
        assert!(!page.contains(part), "{part}");
    }
    let document: Value = serde_json::from_str(&text(get_("/openapi.json").await).await).expect("it is JSON");
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn internal_errors_become_problems_with_their_own_status() {
    let check = |problem: Problem, kind: &problem::Kind| assert_eq!(problem.kind().slug, kind.slug);
    check(registry::Error::InvalidComponent("x".into()).into(), &problem::INVALID_COMPONENT);
    check(registry::Error::TooLarge { size: 2, limit: 1 }.into(), &problem::TOO_LARGE);
    check(registry::Error::Breaks(vec!["a".into()]).into(), &problem::BREAKS_DEFINITIONS);
    check(registry::Error::Diagnostics(Vec::new()).into(), &problem::INVALID_SOURCE);
    check(registry::Error::NotReady("x".into()).into(), &problem::NOT_READY);
    check(submit::Error::Key("x".into()).into(), &problem::INVALID_KEY);
    check(submit::Error::Registry(registry::Error::InUse("x".into())).into(), &problem::IN_USE);
}
