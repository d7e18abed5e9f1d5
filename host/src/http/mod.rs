//! REST: what clients see of the host, one file per resource.
//!
//! Handlers take what they need through extractors that refuse everything else, ask the [`App`], and answer with structs
//! of their own: nothing that is stored is serialised to a client as it is. The conventions that hold everywhere stand in
//! `problem` (errors), `tenant` (who asks), `params` (path and query), `body` (limits and types of bodies) and
//! `page` (lists); `docs/API.md` describes them for users.
//!
//! There is no SQL and no WebAssembly here, and no rule about runs.

mod body;
mod components;
mod definitions;
mod docs;
mod cursor;
mod health;
mod keyvalue;
mod metrics;
mod openapi;
mod json;
mod operator;
mod page;
mod params;
mod problem;
mod runs;
mod tenant;
#[cfg(test)]
mod tests;
mod triggers;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::Method;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use crate::app::App;
use crate::config::Limits;

use self::metrics::Metrics;
use self::problem::Problem;

/// What handlers work with.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) app: App,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Arc<Metrics>,
}

impl FromRef<Context> for Arc<Limits> {
    fn from_ref(context: &Context) -> Self {
        context.limits.clone()
    }
}

/// Everything that the host answers, the triggers of definitions included.
pub fn router(app: App, limits: Limits) -> Router {
    let context = Context { app, limits: Arc::new(limits), metrics: Arc::default() };
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

/// Wrong methods and panics become problems, and requests are traced.
fn with_conventions<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        // Failures are logged where they become problems.
        .layer(TraceLayer::new_for_http().on_failure(()))
}

/// The header `Allow` is added by the router.
async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        &problem::METHOD_NOT_ALLOWED,
        format!("this path does not answer {method}; the header `Allow` says what it answers"),
    )
}
