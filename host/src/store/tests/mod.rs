//! Against a real Postgres: `DATABASE_URL` names a server on which databases may be created, one for each test.

mod accepting;
mod claims;
mod code;
mod commits;
mod connections;
mod hosts;
mod keys;
mod lists;
mod lost_answers;
mod model;
mod proxy;
mod registry;
mod retention;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Cost, Event};
use aster_core::id::{Digest, Fence, HostId, ReleaseId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, ClaimedRun, Claims, Committed, NewRun, Start};
use aster_core::keyvalue::{Effects, Key};
use aster_core::plan::{Capabilities, Plan, Trigger, Type};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, RunRecord, Transition};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const DEFINITION: &str = "shop.order";

/// A store with one deployed definition, and a host in it.
struct Bed {
    store: Store,
    host: HostId,
    release: ReleaseId,
    generation: i64,
}

impl Bed {
    async fn new(pool: PgPool) -> Self {
        Self::on(Store::from_pool(pool, Patience { answer: MINUTE, client: MINUTE, outage: MINUTE })).await
    }

    async fn on(store: Store) -> Self {
        let source = "source";
        let definition = NewDefinition {
            digest: sha256(source),
            source,
            file_name: "order.aster",
            plan: &plan(DEFINITION, None),
        };
        let generation = store.generation(&tenant()).await.unwrap();
        let (_, registered) =
            store.deploy_definitions(&tenant(), &[definition], NOW, generation).await.unwrap();
        let release = Release {
            tenant: tenant(),
            definition: DEFINITION.into(),
            definition_digest: sha256(source),
            components: BTreeMap::new(),
        };
        Self {
            host: store.register_host("here", MINUTE).await.unwrap(),
            release: store.intern_release(&release).await.unwrap(),
            generation: registered.generation,
            store,
        }
    }

    fn new_run(&self) -> NewRun {
        NewRun {
            workflow_id: WorkflowId(Uuid::now_v7()),
            tenant: tenant(),
            definition: DEFINITION.into(),
            release: self.release,
            generation: self.generation,
            key: None,
            input: r#"{"orderId":"o-1"}"#.into(),
            input_digest: [7; 32],
            accepted_at: NOW,
            deadline: NOW.plus_millis(60_000),
            start: None,
        }
    }

    /// Accepted, started, and owned under [`NewRun::FIRST_FENCE`] with one event.
    async fn started(&self) -> WorkflowId {
        let run = NewRun {
            start: Some(Start {
                host: self.host,
                events: vec![self.started_event()],
                run: record(Status::Running, Driver::Owner),
            }),
            ..self.new_run()
        };
        assert_eq!(self.store.accept(run.clone()).await.unwrap(), Acceptance::New { previous: None });
        run.workflow_id
    }

    fn started_event(&self) -> Event {
        Event::WorkflowStarted {
            definition: DEFINITION.into(),
            definition_digest: sha256("source"),
            release: self.release.0,
            input: Arc::new(json!({"orderId": "o-1"})),
        }
    }

    async fn commit(&self, transition: Transition) -> Result<Committed, Error> {
        self.store.commit(self.host, transition).await
    }

    /// Its sequences.
    async fn log_of(&self, workflow_id: WorkflowId) -> Vec<u64> {
        let events = self.store.load_events(workflow_id, 0, 1000).await.unwrap().items;
        events.iter().map(|event| event.sequence).collect()
    }

    async fn log_length(&self, workflow_id: WorkflowId) -> u64 {
        let log = self.log_of(workflow_id).await;
        assert_eq!(log, (1..=log.len() as u64).collect::<Vec<_>>(), "the log has gaps");
        let run = self.store.load_run(workflow_id).await.unwrap().unwrap();
        assert_eq!(run.last_sequence, log.len() as u64, "the run's row and its log differ");
        run.last_sequence
    }

    async fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.store.read_entry(&key(name)).await.unwrap().value
    }
}

/// What a claim gave, without the rest.
fn taken(claims: Claims) -> Vec<(WorkflowId, Fence)> {
    claims.runs.into_iter().map(|run| (run.workflow_id, run.fence)).collect()
}

fn value(text: Option<JsonText>) -> Option<Value> {
    text.map(|text| text.parse().unwrap())
}

fn tenant() -> TenantId {
    TenantId::default()
}

fn sha256(text: &str) -> Digest {
    use sha2::{Digest as _, Sha256};
    Digest(Sha256::digest(text).into())
}

fn key(name: &str) -> Key {
    Key { tenant: tenant(), component: "inventory".into(), bucket: "stock".into(), key: name.into() }
}

fn plan(name: &str, trigger_path: Option<&str>) -> Plan {
    Plan {
        format: 1,
        name: name.into(),
        parameters: Vec::new(),
        result: Type::Json,
        capabilities: Capabilities::Any,
        timeout_ms: None,
        retry: None,
        fuel: None,
        trigger: trigger_path.map(|path| Trigger {
            path: path.into(),
            key: aster_core::plan::Expr::Parameter("order".into()),
            key_field: "orderId".into(),
        }),
        steps: Vec::new(),
    }
}

fn record(status: Status, driver: Driver) -> RunRecord {
    RunRecord { status, cause: None, result: None, error: None, driver }
}

fn completed(step: &str) -> Event {
    Event::StepCompleted {
        step: step.into(),
        attempt: 1,
        value: Arc::new(json!({"ok": true})),
        cost: Cost::default(),
    }
}

/// One more event, after `last_sequence`.
fn step(workflow_id: WorkflowId, fence: Fence, last_sequence: u64) -> Transition {
    Transition {
        workflow_id,
        fence,
        last_sequence,
        at: NOW,
        was: Status::Running,
        is_quiet: true,
        events: vec![completed("a_step")],
        effects: Effects::default(),
        run: record(Status::Running, Driver::Owner),
    }
}

/// The first one after the start.
fn first_step(workflow_id: WorkflowId) -> Transition {
    step(workflow_id, NewRun::FIRST_FENCE, 1)
}

/// One that ends the run.
fn ending(workflow_id: WorkflowId, fence: Fence, last_sequence: u64, status: Status) -> Transition {
    Transition { run: record(status, Driver::Nobody), ..step(workflow_id, fence, last_sequence) }
}
