//! The three example workflows on their own host: what is sent, what happens, and how the ledger changes.

mod ledger;
mod scenario;
mod timeline;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::ledger::Ledger;
use self::scenario::{Scenario, Start};
use crate::api::Api;
use crate::host::{self, Host};
use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::{COMPONENTS, Workspace};
use crate::{build, output};

const WORKFLOWS: [&str; 3] =
    ["order-fulfillment.aster", "payment-compensation.aster", "inventory-replenishment.aster"];
/// Enough for a retry or two.
const RUN_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Exit after the report instead of serving until Ctrl-C
    #[arg(long)]
    exit: bool,
    /// Address to listen on; another port is used if this one is taken
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Folder that keeps the database between demos [default: `demo-data` in the target folder]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// A scenario that was submitted.
struct Sent {
    scenario: Scenario,
    workflow_id: String,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    build::release_host(workspace, &mut stages)?;

    // From here on, this process handles Ctrl-C: it must stop the host before it ends.
    let interrupt = Interrupt::install()?;
    let data_dir = data_dir(workspace, arguments)?;
    let address = host::free_address(&arguments.listen)?;
    let mut host = stages.doing("host starts", || {
        Host::start(&workspace.release_host(), &data_dir, &address, || !interrupt.has_come())
    })?;
    let api = host.api().clone();
    stages.doing("components and workflows", || deploy(workspace, &api))?;

    let before = stages.doing("stock", || {
        ledger::seed(&api)?;
        Ledger::read(&api)
    })?;
    let sent = stages.doing("orders", || send(&api))?;
    stages.doing("runs", || wait_for_all(&mut host, &sent, &interrupt))?;
    stages.finish("the demo is complete");

    let surprises = tell(&api, &sent)?;
    output::line(&before.changes(&Ledger::read(&api)?));
    tell_what_next(&host, &sent);
    ensure!(surprises == 0, "{surprises} of {} runs ended in an unexpected status", sent.len());
    if !arguments.exit {
        output::note("Serving until Ctrl-C.");
        serve(&mut host, &interrupt)?;
        output::note("Stopping.");
    }
    Ok(())
}

/// As root, a folder below a private home is of no use, because Postgres then runs as another user.
fn data_dir(workspace: &Workspace, arguments: &Arguments) -> Result<PathBuf> {
    if let Some(chosen) = &arguments.data_dir {
        return Ok(chosen.clone());
    }
    let usual = workspace.target().join("demo-data");
    match aster_postgres::check_reachable(&usual) {
        Ok(()) => Ok(usual),
        Err(aster_postgres::Error::Unreachable { closed, user, .. }) => {
            let other = PathBuf::from("/var/lib/aster-demo");
            output::note(&format!(
                "The data is kept in {}, because Postgres runs as `{user}`, which can't enter {}.",
                other.display(),
                closed.display()
            ));
            Ok(other)
        }
        Err(error) => Err(error.into()),
    }
}

/// Uploads the six components and deploys the three files of workflows.
pub(crate) fn deploy(workspace: &Workspace, api: &Api) -> Result<()> {
    for name in COMPONENTS {
        let path = workspace.components().join(format!("{name}.wasm"));
        let bytes = fs::read(&path).with_context(|| format!("can't read `{}`", path.display()))?;
        api.put_component(name, &bytes)?;
    }
    for file in WORKFLOWS {
        let path = workspace.workflow(file);
        let source = fs::read_to_string(&path).with_context(|| format!("can't read `{}`", path.display()))?;
        api.deploy(&source)?;
    }
    Ok(())
}

fn send(api: &Api) -> Result<Vec<Sent>> {
    let send_one = |scenario: Scenario| -> Result<Sent> {
        let workflow_id = match &scenario.start {
            Start::Trigger { path } => api.trigger(path, &scenario.input),
            Start::Definition { name } => api.start(name, &scenario.id, &scenario.input),
        };
        let workflow_id = workflow_id.with_context(|| format!("{} wasn't accepted", scenario.id))?;
        Ok(Sent { scenario, workflow_id })
    };
    scenario::all(&scenario::unique_stamp()).into_iter().map(send_one).collect()
}

fn wait_for_all(host: &mut Host, sent: &[Sent], interrupt: &Interrupt) -> Result<()> {
    let start = Instant::now();
    for Sent { scenario, workflow_id } in sent {
        while !is_over(&host.api().state(workflow_id)?) {
            host.check_alive()?;
            ensure!(!interrupt.has_come(), "interrupted");
            ensure!(start.elapsed() < RUN_PATIENCE, "{} isn't over after {RUN_PATIENCE:?}", scenario.id);
            thread::sleep(POLL);
        }
    }
    Ok(())
}

fn is_over(state: &Value) -> bool {
    !matches!(state["status"].as_str(), Some("READY" | "RUNNING" | "COMPENSATING"))
}

/// Prints each run's story, and returns how many ended in an unexpected status.
fn tell(api: &Api, sent: &[Sent]) -> Result<usize> {
    let mut surprises = 0;
    for Sent { scenario, workflow_id } in sent {
        let status = api.state(workflow_id)?["status"].as_str().unwrap_or("?").to_owned();
        let verdict = if status == scenario.expected {
            status
        } else {
            surprises += 1;
            format!("{status}, expected {}", scenario.expected)
        };
        output::line(&format!("\n{}: {}\n  run {workflow_id}: {verdict}", scenario.id, scenario.title));
        output::line(&timeline::render(&api.events(workflow_id)?));
    }
    Ok(surprises)
}

fn tell_what_next(host: &Host, sent: &[Sent]) {
    let base = host.api().base();
    let order = &sent[0];
    let mut again = order.scenario.input.clone();
    again["orderId"] = format!("{}-again", order.scenario.id).into();
    let addresses = [
        ("/docs".to_owned(), "the REST API, in a browser"),
        ("/api/workflows/metrics".to_owned(), "the number of runs in each status"),
        ("/api/components/inventory/keyvalue/stock".to_owned(), "the stock, in base64"),
        (format!("/api/orders/{}/status", order.scenario.id), "the state of the good order"),
        (format!("/api/workflows/{}/events", order.workflow_id), "all events of the good order"),
    ];
    output::line("\nTry next");
    for (path, what) in addresses {
        output::line(&format!("  {what:<34} {base}{path}"));
    }
    output::line(&format!("  curl {base}/api/orders -H 'Content-Type: application/json' -d '{again}'"));
    output::line(&format!("  The host's log is {}.", host.log().display()));
}

fn serve(host: &mut Host, interrupt: &Interrupt) -> Result<()> {
    while !interrupt.wait(Duration::from_secs(1)) {
        host.check_alive()?;
    }
    Ok(())
}
