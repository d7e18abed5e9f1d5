//! The throughput of the store without HTTP and guests (`cargo xtask bench store`). So many tasks at once have runs
//! accepted, and commit five transitions of each. `ASTER_DATABASE_URL` names an empty database.
//!
//! The floor is one connection that inserts the same events with a plain statement, with as many transitions at a time
//! as there are tasks. Beside it are other forms of that statement. This prints one JSON array of rows.

#![expect(clippy::print_stdout, reason = "its result is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aster_core::event::{Cost, Event};
use aster_core::id::{Digest, Fence, HostId, ReleaseId, TenantId, WorkflowId};
use aster_core::journal::{NewRun, Start};
use aster_core::keyvalue::{Effects, Key, Read, Write};
use aster_core::plan::{Capabilities, Plan, Type};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, RunRecord, Transition};
use aster_host::store::{NewDefinition, Options, Release, Store, time_ordered_id};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(3);
const CONCURRENCY: [usize; 3] = [1, 64, 256];
/// The transitions after the acceptance.
const TRANSITIONS: u64 = 5;
/// The transitions and the acceptance.
const EVENTS: usize = 2;
const DEFINITION: &str = "bench.store.fiveSteps";

/// What a transition does besides its events.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keys {
    None,
    /// Reads and writes a key of its own run.
    Own,
    /// Reads and writes a key that all runs share.
    Shared,
}

const KEYS: [(Keys, &str); 3] =
    [(Keys::None, "no effects"), (Keys::Own, "a key for each run"), (Keys::Shared, "one key for all")];

fn main() -> Result<(), Failure> {
    let url = std::env::var("ASTER_DATABASE_URL").map_err(|_| "ASTER_DATABASE_URL names no database")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rows = runtime.block_on(measured(url.parse()?))?;
    println!("{}", Value::Array(rows));
    Ok(())
}

async fn measured(connect: PgConnectOptions) -> Result<Vec<Value>, Failure> {
    let mut line = PgConnection::connect_with(&connect).await?;
    let bench = Arc::new(Bench::new(connect).await?);
    line.execute(FLOOR_SCHEMA).await?;
    let mut floors = BTreeMap::new();
    for concurrency in CONCURRENCY {
        floors.insert(concurrency, per_second(&mut line, Shape::Unnest, concurrency).await?);
    }
    let mut rows = Vec::new();
    for (keys, name) in KEYS {
        for concurrency in CONCURRENCY {
            round(&bench, keys, concurrency, WARM_UP).await?;
            let done = round(&bench, keys, concurrency, MEASURE).await?;
            let floor = floors[&concurrency];
            rows.push(json!({
                "name": name,
                "concurrency": concurrency,
                "per_second": done.per_second.round(),
                "rows_per_second": done.events_per_second.round(),
                "p50_ms": rounded(done.p50_ms),
                "p99_ms": rounded(done.p99_ms),
                "batch": rounded(done.batch),
                "floor_per_second": floor.round(),
                "ratio": rounded(done.per_second / floor),
            }));
        }
    }
    for shape in Shape::ALL {
        for concurrency in CONCURRENCY {
            let transitions = per_second(&mut line, shape, concurrency).await?;
            rows.push(json!({
                "name": shape.name(),
                "batch": concurrency,
                "per_second": transitions.round(),
                "rows_per_second": (transitions * EVENTS as f64).round(),
            }));
        }
    }
    Ok(rows)
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A store with a definition and a host in it.
#[derive(Debug)]
struct Bench {
    store: Store,
    host: HostId,
    release: ReleaseId,
    generation: i64,
    /// Held from the reading of the shared key until the commit is in line, as the runner does.
    shared: Arc<Mutex<()>>,
    events: AtomicU64,
}

#[derive(Debug)]
struct Done {
    per_second: f64,
    events_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    batch: f64,
}

impl Bench {
    async fn new(connect: PgConnectOptions) -> Result<Self, Failure> {
        let store = Store::connect(Options::new(connect)).await?;
        store.migrate().await?;
        let tenant = TenantId::default();
        let plan = Plan {
            format: 1,
            name: DEFINITION.into(),
            parameters: Vec::new(),
            result: Type::Json,
            capabilities: Capabilities::Any,
            timeout_ms: None,
            retry: None,
            fuel: None,
            trigger: None,
            steps: Vec::new(),
        };
        let digest = Digest([1; 32]);
        let definition = NewDefinition { digest, source: "", file_name: "bench.aster", plan: &plan };
        let generation = store.generation(&tenant).await?;
        let now = store.clock().await?;
        let (_, registered) = store.deploy_definitions(&tenant, &[definition], now, generation).await?;
        let release = Release {
            tenant,
            definition: DEFINITION.into(),
            definition_digest: digest,
            components: BTreeMap::new(),
        };
        Ok(Self {
            host: store.register_host("bench", Duration::from_secs(600)).await?,
            release: store.intern_release(&release).await?,
            generation: registered.generation,
            store,
            shared: Arc::default(),
            events: AtomicU64::new(0),
        })
    }

    /// How long the answer to each commit took.
    async fn run(&self, keys: Keys, now: Timestamp) -> Result<Vec<f64>, Failure> {
        let workflow_id = WorkflowId(time_ordered_id(now));
        let running = |driver, status| RunRecord { status, cause: None, result: None, error: None, driver };
        let input = Arc::new(
            json!({"orderId": "ORD-1", "customerId": "CUST-1", "items": [{"productId": "PROD-A", "quantity": 1, "price": 9.99}]}),
        );
        self.store
            .accept(NewRun {
                workflow_id,
                tenant: TenantId::default(),
                definition: DEFINITION.into(),
                release: self.release,
                generation: self.generation,
                key: None,
                input: input.to_string(),
                input_digest: [7; 32],
                accepted_at: now,
                deadline: now.plus_millis(600_000),
                start: Some(Start {
                    host: self.host,
                    events: vec![
                        Event::WorkflowStarted {
                            definition: DEFINITION.into(),
                            definition_digest: Digest([1; 32]),
                            release: self.release.0,
                            input,
                        },
                        started(1),
                    ],
                    run: running(Driver::Owner, Status::Running),
                }),
            })
            .await?;
        self.events.fetch_add(EVENTS as u64, Ordering::Relaxed);
        let mut taken = Vec::with_capacity(TRANSITIONS as usize);
        let mut fence = NewRun::FIRST_FENCE;
        for n in 1..=TRANSITIONS {
            let run = match n {
                TRANSITIONS => RunRecord {
                    result: Some(Arc::new(answer())),
                    ..running(Driver::Nobody, Status::Completed)
                },
                _ => running(Driver::Owner, Status::Running),
            };
            let next = match n {
                TRANSITIONS => Event::WorkflowCompleted { result: Arc::new(answer()) },
                _ => started(n + 1),
            };
            let transition = Transition {
                workflow_id,
                fence,
                last_sequence: n * EVENTS as u64,
                at: now,
                was: Status::Running,
                is_quiet: n < TRANSITIONS,
                events: vec![completed(n), next],
                effects: Effects::default(),
                run,
            };
            let asked = Instant::now();
            fence = self.commit(transition, keys).await?;
            taken.push(asked.elapsed().as_secs_f64() * 1e3);
            self.events.fetch_add(EVENTS as u64, Ordering::Relaxed);
        }
        Ok(taken)
    }

    async fn commit(&self, mut transition: Transition, keys: Keys) -> Result<Fence, Failure> {
        let name = match keys {
            Keys::None => return Ok(self.store.commit(self.host, transition).await?.fence),
            Keys::Own => transition.workflow_id.to_string(),
            Keys::Shared => "PROD-A".to_owned(),
        };
        let guard = match keys {
            Keys::Shared => Some(Arc::clone(&self.shared).lock_owned().await),
            _ => None,
        };
        let key = Key {
            tenant: TenantId::default(),
            component: "inventory".into(),
            bucket: "stock".into(),
            key: name.into(),
        };
        let entry = self.store.read_entry(&key).await?;
        transition.effects = Effects {
            reads: vec![Read { key: key.clone(), version: entry.version }],
            writes: vec![Write { key, value: Some(b"1000000".to_vec()) }],
        };
        Ok(self.store.commit_in_line(self.host, transition, || drop(guard)).await?.fence)
    }
}

fn step(n: u64) -> String {
    format!("step_number_{n}")
}

fn started(n: u64) -> Event {
    Event::StepStarted { step: step(n).into(), attempt: 1, rerun: 0, compensable: true }
}

fn completed(n: u64) -> Event {
    Event::StepCompleted {
        step: step(n).into(),
        attempt: 1,
        value: Arc::new(answer()),
        cost: Cost::default(),
    }
}

/// A payload that makes an event of about 250 bytes.
fn answer() -> Value {
    json!({"orderId": "ORD-1234567", "state": "reserved", "reservation": "RES-0001-1234567", "items": [{"productId": "PROD-A", "quantity": 1, "price": 99.99}], "warehouse": "north"})
}

async fn round(
    bench: &Arc<Bench>,
    keys: Keys,
    concurrency: usize,
    duration: Duration,
) -> Result<Done, Failure> {
    let counters = bench.store.counters();
    let before = (counters.transitions(), counters.batches(), bench.events.load(Ordering::Relaxed));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency {
        let bench = Arc::clone(bench);
        tasks.spawn(async move {
            let now = bench.store.clock().await?;
            let mut taken = Vec::new();
            while began.elapsed() < duration {
                let later = i64::try_from(began.elapsed().as_millis()).unwrap_or(0);
                taken.extend(bench.run(keys, Timestamp::from_millis(now.as_millis() + later)).await?);
            }
            Ok::<_, Failure>(taken)
        });
    }
    let mut taken = Vec::new();
    while let Some(done) = tasks.join_next().await {
        taken.extend(done??);
    }
    let seconds = began.elapsed().as_secs_f64();
    taken.sort_by(f64::total_cmp);
    let percentile = |of: f64| taken[((taken.len() - 1) as f64 * of).round() as usize];
    let transitions = (counters.transitions() - before.0) as f64;
    Ok(Done {
        per_second: transitions / seconds,
        events_per_second: (bench.events.load(Ordering::Relaxed) - before.2) as f64 / seconds,
        p50_ms: percentile(0.5),
        p99_ms: percentile(0.99),
        batch: transitions / (counters.batches() - before.1) as f64,
    })
}

const FLOOR_SCHEMA: &str = r#"
    create table floor_event (workflow_id uuid not null, sequence bigint not null, event_type text collate "C" not null,
        payload json not null, occurred_at timestamptz not null, primary key (workflow_id, sequence))"#;

/// A way to insert the events of a batch.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Unnest,
    Copy,
    /// Sends all of them at once, as one transaction.
    Pipelined,
    /// Waits for each answer before sending the next, all in one transaction.
    OneByOne,
    Autocommit,
}

impl Shape {
    const ALL: [Self; 5] = [Self::Unnest, Self::Copy, Self::Pipelined, Self::OneByOne, Self::Autocommit];

    fn name(self) -> &'static str {
        match self {
            Self::Unnest => "plain SQL: unnest of arrays",
            Self::Copy => "plain SQL: copy",
            Self::Pipelined => "plain SQL: an insert each, sent at once",
            Self::OneByOne => "plain SQL: an insert each, one transaction",
            Self::Autocommit => "plain SQL: an insert each, autocommit",
        }
    }

    async fn send(self, line: &mut PgConnection, ids: &[Uuid], payload: &str) -> Result<(), sqlx::Error> {
        let events = ids.iter().flat_map(|id| [1_i64, 2].map(|sequence| (*id, sequence)));
        match self {
            Self::Unnest => {
                let (ids, sequences): (Vec<Uuid>, Vec<i64>) = events.unzip();
                let types = vec!["STEP_COMPLETED"; ids.len()];
                let payloads = vec![payload; ids.len()];
                sqlx::query(
                    "insert into floor_event
                    select e.id, e.sequence, e.type, e.payload::json, now()
                    from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[]) as e (id, sequence, type, payload)",
                )
                .bind(ids)
                .bind(sequences)
                .bind(types)
                .bind(payloads)
                .execute(line)
                .await?;
            }
            Self::Copy => {
                let lines: String = events
                    .map(|(id, sequence)| {
                        format!("{id}\t{sequence}\tSTEP_COMPLETED\t{payload}\t2026-11-22 12:00:00Z\n")
                    })
                    .collect();
                let mut copy = line.copy_in_raw("copy floor_event from stdin").await?;
                copy.send(lines.as_bytes()).await?;
                copy.finish().await?;
            }
            Self::Pipelined => {
                let statements: String = events
                    .map(|(id, sequence)| {
                        format!("insert into floor_event values ('{id}', {sequence}, 'STEP_COMPLETED', '{payload}', now());")
                    })
                    .collect();
                sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(line).await?;
            }
            Self::OneByOne => {
                let mut transaction = line.begin().await?;
                for (id, sequence) in events {
                    insert(&mut transaction, id, sequence, payload).await?;
                }
                transaction.commit().await?;
            }
            Self::Autocommit => {
                for (id, sequence) in events {
                    insert(line, id, sequence, payload).await?;
                }
            }
        }
        Ok(())
    }
}

async fn insert(line: &mut PgConnection, id: Uuid, sequence: i64, payload: &str) -> Result<(), sqlx::Error> {
    sqlx::query("insert into floor_event values ($1, $2, 'STEP_COMPLETED', $3::text::json, now())")
        .bind(id)
        .bind(sequence)
        .bind(payload)
        .execute(line)
        .await
        .map(drop)
}

/// Returns transitions a second, with this many in a batch.
async fn per_second(line: &mut PgConnection, shape: Shape, batch: usize) -> Result<f64, Failure> {
    let payload = completed(1).payload();
    let ids = || (0..batch).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    shape.send(line, &ids(), &payload).await?;
    let began = Instant::now();
    let mut batches = 0;
    while began.elapsed() < MEASURE / 2 {
        shape.send(line, &ids(), &payload).await?;
        batches += 1;
    }
    Ok((batches * batch) as f64 / began.elapsed().as_secs_f64())
}
