//! `aster serve`: starts and connects all parts of a host, and stops them in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aster_postgres::Embedded;
use aster_runner::Runner;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::app::App;
use crate::config::{Config, Database};
use crate::crash;
use crate::guests::Sandboxed;
use crate::http;
use crate::logs;
use crate::maintenance;
use crate::operate::Operator;
use crate::registry::Registry;
use crate::sandbox::{self, Compiler, Sandbox};
use crate::store::{self, Store};
use crate::submit::Submitter;

/// How long runs may continue after the host was asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until SIGINT or SIGTERM, and then stops in order: requests, runs, Postgres.
///
/// # Errors
/// Returns an error if the port is taken, if the database can't be reached or has the schema of a newer host, or if
/// this machine can't run components.
pub async fn run(config: Config) -> anyhow::Result<()> {
    crash::arm();
    let began = Instant::now();
    // The listener comes first, because it fails most often and costs nothing to undo.
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("can't listen on {}: choose another address with --listen", config.listen)
    })?;
    let address = listener.local_addr()?;

    let (embedded, url) = database(&config.database).await?;
    let options = store::Options::of_url(&url).map_err(anyhow::Error::msg);
    let options = options.context("the database's URL is not valid")?;
    let place = place(&options.connect);
    let store = Store::connect(options).await.with_context(|| format!("can't use the database {place}"))?;
    store.migrate().await.context(
        "can't bring the database's schema up to date: if another version of aster made it, run that version, or use an \
         empty database or data folder",
    )?;
    if embedded.is_some() {
        // The host holds the folder's lock, so the host that ran here before is gone. Its runs needn't wait for its
        // lease to end.
        store.retire_all_hosts(store.clock().await?).await?;
    }

    let sandbox = Sandbox::new(sandbox_options(&config)).context("this machine can't run components")?;
    let clients = store.for_clients();
    let registry = Registry::new(clients.clone(), sandbox.clone());
    let guests = Sandboxed { registry: registry.clone(), sandbox: sandbox.clone() };
    let runner =
        Runner::start(runner_options(&config, address), Arc::new(store.clone()), Arc::new(guests)).await?;
    let losses = tokio::spawn(logs::tell_losses());
    let maintenance = tokio::spawn(maintenance::keep(store.clone(), config.housekeeping.retention));
    let submitter = Submitter::new(registry.clone(), runner.clone());
    let operator = Operator::new(clients.clone(), registry.clone(), runner.clone());
    let loading = tokio::spawn(load_ahead(registry.clone()));
    let app = App { store: clients, registry, submitter, operator, measures: runner.measures() };
    info!(
        listen = %address,
        duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "the host is ready at http://{address}"
    );

    let mut stop = Box::pin(asked_to_stop());
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let http_config = config.clone();
    let mut serving = tokio::spawn(async move {
        let stop = async {
            let _ = told.await;
        };
        http::serve(listener, app, &http_config, stop).await;
    });
    tokio::select! {
        () = &mut stop => {}
        ended = &mut serving => ended.context("the HTTP server ended unexpectedly")?,
    }
    info!("the host is stopping");
    sandbox.stop_compiling();
    let _ = tell.send(());
    if tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        warn!("the host cuts off requests that took too long to end");
        serving.abort();
    }
    loading.abort();
    maintenance.abort();
    losses.abort();
    runner.shut_down(GRACE).await;
    if let Some(embedded) = embedded {
        tokio::task::spawn_blocking(move || embedded.stop()).await?;
    }
    info!("the host has stopped");
    Ok(())
}

/// Loads the active components in the background. A component that isn't loaded yet is loaded when it is called.
async fn load_ahead(registry: Registry) {
    if let Err(error) = registry.load_ahead().await {
        warn!(
            "the host couldn't load the active components ahead; it loads each when it is called: {:#}",
            anyhow::Error::from(error)
        );
    }
}

/// Returns the database's URL, and the private Postgres behind it if there is one.
async fn database(database: &Database) -> anyhow::Result<(Option<Embedded>, String)> {
    match database {
        Database::Url(url) => Ok((None, url.clone())),
        Database::DataDir(folder) => {
            let options = aster_postgres::Options::new(folder.clone());
            let embedded = tokio::task::spawn_blocking(move || Embedded::start(options))
                .await?
                .with_context(|| format!("can't run a private Postgres in `{}`", folder.display()))?;
            let url = embedded.url().to_owned();
            Ok((Some(embedded), url))
        }
    }
}

/// Describes for people where a database is. The URL itself may contain a password.
fn place(connect: &PgConnectOptions) -> String {
    let database = connect.get_database().unwrap_or(connect.get_username());
    let server = match connect.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", connect.get_host(), connect.get_port()),
    };
    format!("`{database}` at {server} as user `{}`", connect.get_username())
}

fn runner_options(config: &Config, address: std::net::SocketAddr) -> aster_runner::Options {
    let limits = &config.limits;
    aster_runner::Options {
        name: address.to_string(),
        lease: config.lease,
        takeover_margin: config.lease / 5,
        max_active_runs: usize::try_from(limits.max_active_runs).unwrap_or(usize::MAX),
        max_ready_runs: usize::try_from(limits.max_ready_runs).unwrap_or(usize::MAX),
        waiter_ttl: config.housekeeping.waiter_ttl,
        waiter_sweep: config.housekeeping.waiter_sweep,
        limits: aster_runner::Limits {
            workflow_timeout: limits.workflow_timeout,
            step_timeout: limits.step_timeout,
            step_fuel: limits.step_fuel,
            step_memory_bytes: limits.step_memory_bytes,
            value_bytes: limits.value_bytes,
        },
    }
}

fn sandbox_options(config: &Config) -> sandbox::Options {
    let limits = &config.limits;
    sandbox::Options {
        max_component_bytes: usize::try_from(limits.component_bytes).unwrap_or(usize::MAX),
        max_value_bytes: usize::try_from(limits.value_bytes).unwrap_or(usize::MAX),
        cache_dir: config.cache_dir.clone(),
        code_key: config.code_key.clone(),
        compiler: Compiler::of_this_program(),
        compile_memory_bytes: limits.compile_memory_bytes,
        compile_time: limits.compile_time,
        ..sandbox::Options::default()
    }
}

async fn asked_to_stop() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be installed");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
