//! Makes a past by copying real runs with SQL.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Datelike as _, Utc};
use serde_json::{Value, json};

use super::database::{COUNT_RUNS, Database};
use crate::api::Api;

/// The number of weeks over which the runs are spread.
const WEEKS: i64 = 5;
const WEEK_MS: i64 = 7 * 86_400_000;
/// The first Monday of 1970.
const MONDAY_MS: i64 = 4 * 86_400_000;

/// The part of the templates' orders and keys that each copy replaces by its number.
const GAP: &str = "-TEMPLATE";

const FULFILL: &str = "io.aster.ecommerce.order_fulfillment.fulfillOrder";
const REPLENISH: &str = "io.aster.ecommerce.inventory_replenishment.replenishInventory";
const FAIL: &str = "io.aster.ecommerce.payment_compensation.processFailedPayment";

/// A kind of run, and its share of the copies.
pub(super) struct Kind {
    template: String,
    /// The status of the copies, even if the template ended otherwise.
    status: &'static str,
    cause: Option<&'static str>,
    /// How many of the template's events the copies have, from the first.
    events: usize,
    /// The number of these runs in 10,000.
    share: u32,
}

/// A run, as parameters of queries that find it and others.
pub(super) struct Sample {
    pub(super) workflow_id: String,
    /// The key of an order, which needn't be this run's.
    pub(super) key: String,
}

/// The size of the database, and the disk space of a run.
pub(super) struct Volume {
    pub(super) runs: u64,
    pub(super) events: u64,
    pub(super) sizes: Vec<Size>,
}

pub(super) struct Size {
    pub(super) what: String,
    pub(super) bytes_per_run: u64,
}

/// Starts a run of every kind.
pub(super) fn real_runs(api: &Api) -> Result<Vec<Kind>> {
    api.put_value("inventory", "stock", "PROD-A", "1000000")?;
    let order = |kind: &str, quantity: i32, payment: &str| {
        json!({
            "orderId": format!("ORD-{kind}{GAP}"),
            "customerId": "CUST-123",
            "items": [{"productId": "PROD-A", "quantity": quantity, "price": 99.99}],
            "metadata": {"channel": "web"},
            "paymentMethod": payment,
            "shipTo": "12 Main St",
        })
    };
    let replenishment = json!({
        "requestId": format!("REQ{GAP}"),
        "items": [{"productId": "PROD-B", "threshold": 10, "quantity": 40}],
    });
    let run = |definition: &str, input: &Value, status: &str| -> Result<(String, usize)> {
        let state = api.run_to_end(definition, input)?;
        ensure!(state["status"] == status, "a run that should end {status}: {state}");
        let id = state["workflowId"].as_str().context("a run has an id")?.to_owned();
        let events = api.events(&id)?.len();
        Ok((id, events))
    };
    let completed = run(FULFILL, &order("GOOD", 2, "card"), "COMPLETED")?;
    let declined = run(FULFILL, &order("DECLINED", 2, "pm_insufficient_funds"), "COMPENSATED")?;
    // The first step refuses it, so there is nothing to undo.
    let refused = run(FULFILL, &order("REFUSED", 0, "card"), "FAILED")?;
    let replenished = run(REPLENISH, &replenishment, "COMPLETED")?;
    let payment = run(FAIL, &order("PAYMENT", 1, "card"), "COMPENSATED")?;

    let kind = |(template, events): &(String, usize), status, cause, share| Kind {
        template: template.clone(),
        status,
        cause,
        events: *events,
        share,
    };
    let kinds = vec![
        kind(&completed, "COMPLETED", None, 5_159),
        kind(&replenished, "COMPLETED", None, 4_000),
        kind(&declined, "COMPENSATED", Some("STEP"), 500),
        kind(&refused, "FAILED", Some("STEP"), 300),
        kind(&declined, "COMPENSATED", Some("TIMEOUT"), 20),
        kind(&declined, "COMPENSATION_FAILED", Some("STEP"), 10),
        kind(&payment, "COMPENSATED", Some("STEP"), 1),
        // The run is at its fourth step, for which it waits.
        Kind { events: 9, ..kind(&completed, "RUNNING", None, 10) },
    ];
    debug_assert_eq!(kinds.iter().map(|kind| kind.share).sum::<u32>(), 10_000);
    Ok(kinds)
}

/// Copies `kinds` until there are this many runs, in two halves at a time.
pub(super) fn copy(database: &Database, kinds: &[Kind], runs: u32) -> Result<()> {
    database.execute(&prepare(kinds, runs))?;
    let half = runs / 2;
    thread::scope(|scope| {
        let first = scope.spawn(|| database.execute(&copies(1, half)));
        let second = database.execute(&copies(half + 1, runs));
        first.join().expect("the thread doesn't panic")?;
        second
    })?;
    database.execute(COUNT_RUNS)
}

/// Prepares the templates as texts with gaps, the texts for the gaps, and the partitions that a host would have created
/// in time.
fn prepare(kinds: &[Kind], runs: u32) -> String {
    let mut sql = String::new();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let this_week = now_ms - (now_ms - MONDAY_MS).rem_euclid(WEEK_MS);
    for week in 1..=WEEKS {
        let begins = this_week - week * WEEK_MS;
        let iso = DateTime::<Utc>::from_timestamp_millis(begins).unwrap_or_default().iso_week();
        let first_id = |ms: i64| format!("{ms:012x}00000000000000000000");
        sql += &format!(
            "create table workflow_events_{}w{:02} partition of workflow_events for values from ('{}') to ('{}');",
            iso.year(),
            iso.week(),
            first_id(begins),
            first_id(begins + WEEK_MS),
        );
    }
    sql +=
        "create table bench_kind (kind int, template uuid, status text, cause text, events int, up_to int);";
    let mut up_to = 0;
    for (n, kind) in kinds.iter().enumerate() {
        let Kind { template, status, cause, events, share } = kind;
        let cause = cause.map_or("null".to_owned(), |cause| format!("'{cause}'"));
        up_to += share;
        sql += &format!(
            "insert into bench_kind values ({n}, '{template}', '{status}', {cause}, {events}, {up_to});"
        );
    }
    // Kinds are in random order. An id begins with its instant; the rest of it is as good as random.
    sql += &format!(
        "create table bench_event as
        select k.kind, e.sequence,
            case when k.status = 'COMPENSATION_FAILED' and e.sequence = k.events then 'WORKFLOW_COMPENSATION_FAILED' else e.event_type end as event_type,
            replace(e.payload::text, k.template::text, '{{id}}') as payload,
            e.occurred_at - r.accepted_at as later
        from bench_kind k
        join workflow_run r on r.workflow_id = k.template
        join workflow_events e on e.workflow_id = k.template and e.sequence <= k.events;
        create index on bench_event (kind, sequence);
        analyze bench_event;
        create table bench_run as
        select n, (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid as id,
            to_timestamp(ms / 1000.0) as at,
            (select min(k.kind) from bench_kind k where k.up_to > (hashint4(n)::bigint + 2147483648) % 10000) as kind
        from (
            select n, {now_ms} - {WEEKS}::bigint * {WEEK_MS} + n::bigint * {WEEKS} * {WEEK_MS} / {} as ms
            from generate_series(1, {runs}) n
        ) spread;
        create index on bench_run (n);
        analyze bench_run",
        u64::from(runs) + 1,
    );
    sql
}

/// Makes the copies with these numbers.
fn copies(first: u32, last: u32) -> String {
    format!(
        "insert into workflow_run (workflow_id, tenant, definition, release_id, key, input, status, cause, result, error,
            accepted_at, updated_at, deadline, fence, last_sequence, wake_at)
        select c.id, r.tenant, r.definition, r.release_id, replace(r.key, '{GAP}', '-' || c.n),
            replace(r.input::text, '{GAP}', '-' || c.n)::json, k.status, k.cause,
            case when k.status = 'COMPLETED' then replace(replace(r.result::text, '{GAP}', '-' || c.n), k.template::text, c.id::text)::json end,
            r.error, c.at, c.at + (r.updated_at - r.accepted_at),
            case when k.status = 'RUNNING' then now() + interval '1 day' else c.at + (r.deadline - r.accepted_at) end,
            2, k.events, case when k.status = 'RUNNING' then now() + interval '1 day' end
        from bench_run c
        join bench_kind k on k.kind = c.kind
        join workflow_run r on r.workflow_id = k.template
        where c.n between {first} and {last}
        order by c.n;
        insert into workflow_key (tenant, definition, key, workflow_id, input_digest)
        select r.tenant, r.definition, r.key, r.workflow_id, sha256(r.key::bytea)
        from bench_run c
        join workflow_run r on r.workflow_id = c.id
        where c.n between {first} and {last} and r.key is not null;
        insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
        select c.id, e.sequence, e.event_type, replace(replace(e.payload, '{GAP}', '-' || c.n), '{{id}}', c.id::text)::json, c.at + e.later
        from (select * from bench_run where n between {first} and {last} order by n) c
        cross join lateral (select * from bench_event e where e.kind = c.kind order by e.sequence) e"
    )
}

/// Brings the database into the state after five weeks with autovacuum.
pub(super) fn tidy_up(database: &Database) -> Result<()> {
    database.execute("vacuum analyze workflow_run, workflow_key, workflow_events; checkpoint")
}

/// Picks random runs.
pub(super) fn samples(database: &Database, count: usize) -> Result<Vec<Sample>> {
    // The order is random.
    let ids = database.ask(&format!("select id from bench_run order by md5(n || 'run') limit {count}"))?;
    let keys = database.ask(&format!(
        "select key from workflow_run where definition = '{FULFILL}' and key is not null order by md5(key) limit {count}"
    ))?;
    database.execute("drop table bench_run; drop table bench_kind; drop table bench_event")?;
    let samples: Vec<Sample> = ids
        .lines()
        .zip(keys.lines())
        .map(|(id, key)| Sample { workflow_id: id.to_owned(), key: key.to_owned() })
        .collect();
    ensure!(samples.len() == count, "found only {} samples", samples.len());
    Ok(samples)
}

pub(super) fn volume(database: &Database) -> Result<Volume> {
    let count =
        |table: &str| -> Result<u64> { Ok(database.ask(&format!("select count(*) from {table}"))?.parse()?) };
    let (runs, events) = (count("workflow_run")?, count("workflow_events")?);
    let sizes = database.ask(
        "with relation as (
            select case when c.relname like 'workflow_events%' then 'workflow_events' else c.relname end as name, c.oid
            from pg_class c
            where c.relkind = 'r' and (c.relname in ('workflow_run', 'workflow_key') or c.relname like 'workflow_events%')
        )
        select 'disk: ' || name || ', table', sum(pg_table_size(oid)) from relation group by name
        union all
        select 'disk: ' || name || ', indexes', sum(pg_indexes_size(oid)) from relation group by name
        union all
        select 'disk: together', sum(pg_total_relation_size(oid)) from relation
        order by 1",
    )?;
    let sizes = sizes.lines().map(|line| {
        let (what, bytes) = line.split_once('|').context("a line has two columns")?;
        Ok(Size { what: what.to_owned(), bytes_per_run: bytes.parse::<u64>()? / runs })
    });
    Ok(Volume { runs, events, sizes: sizes.collect::<Result<_>>()? })
}
