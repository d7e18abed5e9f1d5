//! A host that finds many runs in flight when it starts: the time until all of them continue, and until they are over.
//! And the cost of runs that only wait.
//!
//! One real run is made over REST, cut off in the middle of its last step, and copied in the database, each copy with
//! an order of its own. Their owner is a host that is killed. Its lease is short, so that this measures recovery and
//! not the wait for the lease.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aster_postgres::{Embedded, Options};
use serde_json::{Value, json};

use super::database::{COUNT_RUNS, Database};
use crate::demo;
use crate::host::{self, Host};
use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::Workspace;
use crate::{build, output};

/// More than the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(600);

/// The number of runs in flight, and then of runs that wait.
pub(super) const RUNS: u32 = 100_000;

pub(crate) fn run(workspace: &Workspace, runs: u32) -> Result<()> {
    let mut stages = Stages::new();
    build::components(workspace, &mut stages)?;
    build::release_host(workspace, &mut stages)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(workspace.target())
        .context("can't make a folder for the database")?;
    let interrupt = Interrupt::install()?;
    let postgres =
        stages.doing("Postgres", || Ok(Embedded::start(Options::new(folder.path().join("postgres")))?))?;
    let database = Database::new(postgres.url())?;
    let start = || {
        let address = host::free_address("127.0.0.1:0")?;
        let log = folder.path().join("aster.log");
        Host::start_on(&workspace.release_host(), &database.url, "1s", &log, &address, || {
            !interrupt.has_come()
        })
    };

    let mut host = stages.doing("host starts", start)?;
    stages.doing("components and workflows", || demo::deploy(workspace, host.api()))?;
    let template = stages.doing("one run", || template(host.api()))?;
    stages.doing(&format!("{runs} copies of it in flight"), || {
        database.execute(&copies_in_flight(&template, runs))?;
        database.execute(COUNT_RUNS)
    })?;
    host.kill()?;
    let killed = Instant::now();
    let host = stages.doing("host starts again", start)?;
    let ready = killed.elapsed();
    let going_on = stages.doing("all go on", || {
        until_none(
            &database,
            "status = 'RUNNING' and (owner is null or host_lost or last_sequence = 10)",
            killed,
        )
    })?;
    let over = stages.doing("all are over", || until_none(&database, "status = 'RUNNING'", killed))?;
    let completed = database.ask("select count(*) from workflow_run where status = 'COMPLETED'")?;
    ensure!(completed == (runs + 1).to_string(), "{completed} runs are COMPLETED");

    let before_kib = host.resident_kib()?;
    stages.doing(&format!("{runs} runs that wait"), || {
        database.execute(&copies_that_wait(&template, runs))?;
        database.execute(COUNT_RUNS)
    })?;
    // Two rounds of everything that a host does periodically.
    thread::sleep(Duration::from_secs(5));
    let after_kib = host.resident_kib()?;
    let began = Instant::now();
    host.api().run_to_end("fulfillOrder", &order("ORD-BESIDE"))?;
    let beside = began.elapsed();
    drop(host);
    postgres.stop();
    stages.finish("measured");

    output::line(&format!("{runs} runs in flight, their host killed and another started:"));
    output::line(&format!("  ready after                   {:>8.2} s", ready.as_secs_f64()));
    output::line(&format!("  all taken over and going on   {:>8.2} s", going_on.as_secs_f64()));
    output::line(&format!(
        "  all over                      {:>8.2} s  ({:.0} runs/s)",
        over.as_secs_f64(),
        f64::from(runs) / over.as_secs_f64()
    ));
    output::line(&format!("{runs} runs that wait for an instant:"));
    output::line(&format!(
        "  memory of the host            {before_kib} KiB before, {after_kib} KiB with them"
    ));
    output::line(&format!("  an order beside them          {:>8.2} ms", beside.as_secs_f64() * 1_000.0));
    let rows = json!([
        {"name": "recovery", "runs": runs, "ready_s": rounded(ready), "going_on_s": rounded(going_on), "over_s": rounded(over)},
        {"name": "waiting", "runs": runs, "resident_kib_before": before_kib, "resident_kib": after_kib},
    ]);
    output::line(&json!({"bench": "recovery", "rows": rows}).to_string());
    Ok(())
}

fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100.0).round() / 100.0
}

fn order(id: &str) -> Value {
    json!({
        "orderId": id,
        "customerId": "CUST-1",
        "items": [{"productId": "PROD-A", "quantity": 1, "price": 9.99}],
        "paymentMethod": "card",
        "shipTo": "12 Main St",
    })
}

/// Runs an order to its end. The copies have the events of its log up to its last step.
fn template(api: &crate::api::Api) -> Result<String> {
    api.put_value("inventory", "stock", "PROD-A", "1000000")?;
    let state = api.run_to_end("fulfillOrder", &order("ORD-TEMPLATE"))?;
    ensure!(state["status"] == "COMPLETED", "the order was not completed: {state}");
    let id = state["workflowId"].as_str().context("a run has an id")?.to_owned();
    let events = api.events(&id)?;
    ensure!(
        events.len() == 12 && events[9]["eventType"] == "STEP_STARTED",
        "the order's log has an unexpected number of events: {}",
        events.len()
    );
    Ok(id)
}

/// Makes ids that are ordered by time, as the host does.
const NEW_ID: &str = "(lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n / 65536), 3, '0') \
    || '8' || lpad(to_hex(n % 65536), 15, '0'))::uuid";

/// Copies that are in the middle of the last step, and driven by the current host.
fn copies_in_flight(template: &str, runs: u32) -> String {
    format!(
        "create table bench_copy as select n, {NEW_ID} as id from generate_series(1, {runs}) n;
        insert into workflow_events
        select c.id, e.sequence, e.event_type, replace(e.payload::text, 'ORD-TEMPLATE', 'ORD-' || c.n)::json, now()
        from bench_copy c, workflow_events e
        where e.workflow_id = '{template}' and e.sequence <= 10;
        insert into workflow_run (workflow_id, tenant, definition, release_id, input, status, accepted_at, updated_at, deadline,
            owner, fence, last_sequence)
        select c.id, r.tenant, r.definition, r.release_id, replace(r.input::text, 'ORD-TEMPLATE', 'ORD-' || c.n)::json, 'RUNNING',
            now(), now(), now() + interval '1 hour', (select host_id from host where retired_at is null), 1, 10
        from bench_copy c, workflow_run r
        where r.workflow_id = '{template}';
        drop table bench_copy;
        vacuum analyze workflow_run, workflow_events;"
    )
}

/// Copies that wait for an instant far away.
fn copies_that_wait(template: &str, runs: u32) -> String {
    format!(
        "create table bench_copy as select n, {NEW_ID} as id from generate_series(1, {runs}) n;
        insert into workflow_events
        select c.id, e.sequence, e.event_type, e.payload, now()
        from bench_copy c, workflow_events e
        where e.workflow_id = '{template}' and e.sequence <= 9;
        insert into workflow_run (workflow_id, tenant, definition, release_id, input, status, accepted_at, updated_at, deadline,
            fence, last_sequence, wake_at)
        select c.id, r.tenant, r.definition, r.release_id, r.input, 'RUNNING', now(), now(), now() + interval '1 day',
            2, 9, now() + interval '1 hour'
        from bench_copy c, workflow_run r
        where r.workflow_id = '{template}';
        drop table bench_copy;
        analyze workflow_run;"
    )
}

/// Returns how long after `began` no run matches `so` any more.
fn until_none(database: &Database, so: &str, began: Instant) -> Result<Duration> {
    let sql = format!("select exists (select from workflow_run where {so})");
    while began.elapsed() < PATIENCE {
        if database.ask(&sql)? == "f" {
            return Ok(began.elapsed());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("after {PATIENCE:?} there are still runs with {so}")
}
