//! The store as a host of the simulation sees it: the host's own commit line, over a link on which anything can be lost, to the
//! model's tables.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{Fence, HostId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, Claims, Committed, NewRun, Position, Replay};
use aster_core::keyvalue::{Entry, Key, Version};
use aster_core::order::Order;
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, Transition};
use aster_runner::{Error, Fault};
use async_trait::async_trait;
use tokio::time::sleep;
use uuid::Uuid;

use super::tables::{Changed, Row, Tables};
use super::world::{Lost, Machine, World};
use super::{Bug, bugs};
use aster_runner::line::{self, Chain, CommitLine, Prepared, Refusals, Unanswered};
use aster_runner::ports::{Journal, Turn};

/// As long as the store waits for an answer, in the shorter time of simulations.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a batch that the database can't work on delays the others, likewise.
const OUTAGE: Duration = Duration::from_secs(2);

/// The store of one host.
#[derive(Debug)]
pub(super) struct ModelStore {
    link: Arc<Link>,
    line: CommitLine<Link>,
}

impl ModelStore {
    pub(super) fn new(world: Arc<World>, machine: Arc<Machine>) -> Self {
        let options = line::Options {
            refusals_leave_followers: world.tables().bug == Some(Bug::RefusalsLeaveFollowers),
            ..line::Options::new(OUTAGE)
        };
        let link = Arc::new(Link { world, machine });
        let line = CommitLine::start(Arc::clone(&link), &options, |_| {});
        Self { link, line }
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: String,
        statement: impl FnOnce(&mut Tables, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.link.ask(what, statement).await
    }
}

/// From a machine to the tables.
#[derive(Debug)]
struct Link {
    world: Arc<World>,
    machine: Arc<Machine>,
}

impl Link {
    async fn ask<T: Send + 'static>(
        &self,
        what: String,
        statement: impl FnOnce(&mut Tables, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.world.ask(&self.machine, PATIENCE, what, statement).await.map_err(|Lost| unavailable())
    }
}

impl line::Wire for Link {
    type Payload = Transition;

    async fn send(
        &self,
        host: HostId,
        batch: &[&Prepared<Transition>],
        chains: &[Chain],
        _: bool,
    ) -> Result<Refusals, Unanswered> {
        let transitions: Vec<Transition> = batch.iter().map(|prepared| prepared.payload.clone()).collect();
        let keys: Vec<Changed> = chains.iter().map(Changed::from).collect();
        let runs = transitions
            .iter()
            .map(|transition| format!(" {} {}", transition.workflow_id, transition.last_sequence));
        let what = format!("commit{}", runs.collect::<String>());
        let (sent, of) = (transitions.clone(), keys.clone());
        let answer = match self.ask(what, move |tables, _| tables.append(host, &sent, &of)).await {
            Err(_) if self.world.tables().bug == Some(Bug::LostAnswersAreSentAgain) => {
                self.ask("commit again".into(), move |tables, _| {
                    tables.append_again(host, transitions, &keys)
                })
                .await
            }
            answer => answer,
        };
        answer.map_err(|error| Unanswered::Failed(Fault::Lost, error.to_string()))
    }

    async fn settle(&self, host: HostId, id: WorkflowId, held: Fence) -> Result<Position, Error> {
        self.ask(format!("settle {id}"), move |tables, _| tables.settle(host, id, held)).await?
    }
}

fn unavailable() -> Error {
    Error::Unavailable { fault: Fault::Busy, cause: Arc::new(Lost) }
}

#[async_trait]
impl Journal for ModelStore {
    fn new_workflow_id(&self, now: Timestamp) -> WorkflowId {
        let millis = u128::try_from(now.as_millis()).unwrap_or(0);
        let noise = u128::from(self.link.world.random().bits());
        WorkflowId(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62) | (noise >> 2)))
    }

    async fn register_host(&self, _: &str, lease: Duration) -> Result<HostId, Error> {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.ask("register".into(), move |tables, now| tables.register_host(now.plus_millis(lease))).await
    }

    async fn renew_lease(&self, host: HostId, lease: Duration) -> Result<Timestamp, Error> {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let Link { world, machine } = &*self.link;
        let renewed = world.ask(machine, lease / 4, "renew".into(), move |tables, now| {
            tables.renew_lease(host, now.plus_millis(millis)).map(|()| now)
        });
        renewed.await.map_err(|Lost| unavailable())?
    }

    async fn retire_host(&self, host: HostId, _: Timestamp) -> Result<u64, Error> {
        self.ask("retire".into(), move |tables, now| tables.retire_host(host, now)).await
    }

    async fn fence_off_dead_hosts(
        &self,
        now: Timestamp,
        margin: Duration,
        limit: usize,
    ) -> Result<u64, Error> {
        let margin = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
        let silent_before = Timestamp::from_millis(now.as_millis() - margin);
        self.ask("fence off".into(), move |tables, _| tables.fence_off(silent_before, now, limit)).await
    }

    async fn accept(&self, run: NewRun) -> Result<Acceptance, Error> {
        let mut tries = 0;
        loop {
            let new = run.clone();
            tries += 1;
            match self.ask(format!("accept {}", run.workflow_id), move |tables, _| tables.accept(&new)).await
            {
                Err(_) if tries < 3 => sleep(Duration::from_millis(20)).await,
                answer => return answer,
            }
        }
    }

    async fn known(
        &self,
        _: &TenantId,
        definition: &str,
        key: &str,
        input_digest: &[u8; 32],
    ) -> Result<Option<Acceptance>, Error> {
        let (place, digest) = ((definition.to_owned(), key.to_owned()), *input_digest);
        self.ask("known".into(), move |tables, _| tables.known(&place, &digest).ok()).await
    }

    async fn count_due(&self, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let is_due = move |row: &&Row| row.wake_at.is_some_and(|at| at <= now);
        self.ask("count".into(), move |tables, _| tables.runs.values().filter(is_due).take(limit).count())
            .await
    }

    async fn commit(
        &self,
        host: HostId,
        transition: Transition,
        turn: Option<Turn>,
    ) -> Result<Committed, Error> {
        let transition = bugs::spoil(self.link.world.tables().bug, transition);
        let prepared = Prepared {
            host,
            workflow_id: transition.workflow_id,
            fence: transition.fence,
            last_sequence: transition.last_sequence,
            new_sequence: transition.last_sequence + transition.events.len() as u64,
            stays: transition.run.driver == Driver::Owner,
            keys: line::key_uses(transition.effects.clone()),
            size_bytes: 0,
            payload: transition,
        };
        let answer = self.line.commit(prepared, || drop(turn)).await;
        match &answer {
            Ok(_) => self.link.world.note_commit(true),
            Err(Error::Conflict { .. }) => self.link.world.note_commit(false),
            Err(_) => {}
        }
        if self.link.world.tables().bug == Some(Bug::AnswersAreForgotten)
            && self.link.world.random().per_mille(20)
        {
            std::future::pending::<()>().await;
        }
        answer
    }

    fn unanswered_for(&self) -> Option<Duration> {
        self.line.unanswered_for()
    }

    async fn claim(&self, host: HostId, limit: usize, now: Timestamp) -> Result<Claims, Error> {
        self.ask("claim".into(), move |tables, _| tables.claim(host, limit, now)).await
    }

    async fn hand_back(
        &self,
        host: HostId,
        id: WorkflowId,
        fence: Fence,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.ask(format!("hand back {id}"), move |tables, _| tables.hand_back(host, id, fence, at)).await?
    }

    async fn adopt(&self, host: HostId, id: WorkflowId, fence: Fence) -> Result<Fence, Error> {
        self.ask(format!("adopt {id}"), move |tables, _| tables.adopt(host, id, fence)).await?
    }

    async fn owned(&self, host: HostId) -> Result<Vec<(WorkflowId, Fence)>, Error> {
        self.ask("owned".into(), move |tables, _| tables.owned(host)).await
    }

    async fn replay(&self, ids: &[WorkflowId]) -> Result<Vec<(WorkflowId, Result<Replay, Error>)>, Error> {
        let ids = ids.to_vec();
        self.ask("replay".into(), move |tables, _| tables.replay(&ids)).await
    }

    async fn status(&self, id: WorkflowId) -> Result<Option<Status>, Error> {
        self.ask("status".into(), move |tables, _| tables.runs.get(&id).map(|row| row.status)).await
    }

    async fn orders(&self, id: WorkflowId) -> Result<Vec<Order>, Error> {
        let orders = move |tables: &mut Tables, _| tables.orders.get(&id).cloned().unwrap_or_default();
        self.ask(format!("orders of {id}"), orders).await
    }

    async fn forget_order(&self, id: WorkflowId, order_id: Uuid) -> Result<(), Error> {
        self.ask(format!("forget an order of {id}"), move |tables, _| tables.forget_order(id, order_id)).await
    }

    async fn ordered_runs(&self, host: HostId, limit: usize) -> Result<Vec<WorkflowId>, Error> {
        self.ask("ordered runs".into(), move |tables, _| tables.ordered_runs(host, limit)).await
    }

    async fn settle_stray_orders(&self, now: Timestamp) -> Result<u64, Error> {
        self.ask("stray orders".into(), move |tables, _| tables.settle_stray_orders(now)).await
    }

    async fn read_entry(&self, key: &Key) -> Result<Entry, Error> {
        let (place, absent) = (key.clone(), Entry { version: Version::ABSENT, value: None });
        let load = move |tables: &mut Tables, _| tables.entries.get(&place).cloned().unwrap_or(absent);
        self.line.read(key, self.ask("read".into(), load)).await
    }

    async fn list_keys(
        &self,
        _: &TenantId,
        _: &str,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<Arc<str>>, Error> {
        Ok(Vec::new())
    }
}
