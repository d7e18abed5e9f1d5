//! REST: what clients see of the host, one file per resource.
//!
//! Handlers take what they need through extractors that refuse everything else, ask the [`App`], and answer with structs
//! of their own: nothing that is stored is serialised to a client as it is. The conventions that hold everywhere stand in
//! `problem` (errors), `tenant` (who asks), `params` (path and query), `body` (types of bodies), `intake` (how much is on its way
//! at once), `json` (what JSON is taken) and `page` and `cursor` (lists); `docs/API.md` describes them for users.
//!
//! Below the handlers, `server` keeps the connections, by hyper; `wire` and `pace` see to it that no client holds one for ever.
//!
//! There is no SQL and no WebAssembly here, and no rule about runs.

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

/// What handlers work with.
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

/// Answers clients until `stop` comes, then ends in order: returns when every answer that was under way is given.
///
/// # Cancel safety
/// Dropping the future ends all connections.
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

/// Everything that the host answers, the triggers of definitions included.
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

/// Wrong methods and panics become problems, and what is logged of a request names it.
fn with_conventions<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(axum::middleware::from_fn(trace::answer))
}

/// The header `Allow` is added by the router.
async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        &problem::METHOD_NOT_ALLOWED,
        format!("this path does not answer {method}; the header `Allow` says what it answers"),
    )
}
