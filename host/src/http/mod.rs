//! The REST API, with one file for each resource.
//!
//! Handlers get their arguments through extractors that refuse everything else, ask the [`App`], and answer with
//! structs of their own, so no stored type is serialised to a client. Modules with the conventions for all resources:
//! `problem` (errors), `tenant` (tenant and user), `params` (path and query), `body` (bodies), `intake` (bounds on
//! bodies), `json` (strict JSON), `page` and `cursor` (lists). `docs/API.md` describes the conventions for users.
//!
//! Below the handlers, `server` runs the connections with hyper, and `wire` and `pace` keep a client from holding one
//! for ever.
//!
//! This module contains no SQL, no WebAssembly, and no rules about runs.

mod body;
mod components;
mod cursor;
mod definitions;
mod docs;
mod exchange;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod intake;
mod json;
mod keyvalue;
mod metrics;
mod openapi;
mod operator;
mod pace;
mod page;
mod params;
mod problem;
mod runs;
mod server;
#[cfg(test)]
mod server_tests;
mod tenant;
#[cfg(test)]
mod tests;
mod trace;
mod triggers;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::Method;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::config;

use self::intake::Intake;
use self::metrics::Metrics;
use self::problem::Problem;

/// The state that handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) app: App,
    pub(crate) intake: Arc<Intake>,
    pub(crate) metrics: Arc<Metrics>,
}

impl FromRef<Context> for Arc<Intake> {
    fn from_ref(context: &Context) -> Self {
        context.intake.clone()
    }
}

/// Serves clients until `stop` resolves. Then it takes no new requests, and returns when every request under way is
/// answered.
///
/// # Cancel safety
/// Dropping the future closes all connections.
pub(crate) async fn serve(
    listener: TcpListener,
    app: App,
    config: &config::Config,
    stop: impl Future<Output = ()>,
) {
    let max_uploads = usize::try_from(config.http.max_uploads).unwrap_or(usize::MAX);
    let intake = Intake::new(&config.limits, max_uploads, config.cache_dir.clone());
    let metrics = Arc::<Metrics>::default();
    let connections = Arc::clone(&metrics.connections);
    let context = Context { app, intake: Arc::new(intake), metrics };
    server::serve(listener, router(context), (&config.http).into(), connections, stop).await;
}

/// Returns a router for everything that the host answers, including the triggers of definitions.
fn router(context: Context) -> Router {
    let routes = Router::new()
        .merge(components::routes())
        .merge(keyvalue::routes())
        .merge(definitions::routes())
        .merge(runs::routes())
        .merge(operator::routes())
        .merge(health::routes())
        .merge(docs::routes())
        .fallback(triggers::answer);
    with_conventions(routes).with_state(context)
}

/// Turns wrong methods and panics into problems, and makes each log line about a request name that request.
fn with_conventions<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(axum::middleware::from_fn(trace::answer))
}

/// The router adds the header `Allow`.
async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        &problem::METHOD_NOT_ALLOWED,
        format!("this path does not answer {method}; the header `Allow` says what it answers"),
    )
}
