//! The store as a host of the simulation sees it: the model's tables, over a line on which anything can be lost.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{Fence, TenantId, WorkflowId};
use aster_core::keyvalue::{Entry, Key, Version};
use aster_core::order::Order;
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::Transition;
use async_trait::async_trait;
use tokio::time::sleep;
use uuid::Uuid;

use super::bugs;
use super::tables::{Row, Tables};
use super::world::{Lost, Machine, World};
use crate::runner::ports::{Journal, Turn};
use crate::store::{Acceptance, Claims, Committed, Error, HostId, NewRun, Replay};

/// As long as the store waits for an answer, in the shorter time of simulations.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) world: Arc<World>,
    pub(super) machine: Arc<Machine>,
}

impl Line {
    async fn ask<T: Send + 'static>(
        &self,
        what: String,
        statement: impl FnOnce(&mut Tables, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.world.ask(&self.machine, PATIENCE, what, statement).await.map_err(|Lost| unavailable())
    }

    /// As the store settles a commit whose answer was lost: until it is known.
    async fn commit_and_settle(&self, host: HostId, transition: Transition) -> Result<Committed, Error> {
        let bug = self.world.tables().bug;
        let transition = bugs::spoil(bug, transition);
        let what = format!("commit {} {}", transition.workflow_id, transition.last_sequence);
        let sent = transition.clone();
        match self.ask(what, move |tables, _| tables.commit(host, &sent)).await {
            Ok(answer) => answer,
            Err(_) if bug == Some(super::Bug::LostAnswersAreSentAgain) => {
                let again = move |tables: &mut Tables, _| tables.commit_again(host, transition);
                self.ask("commit again".into(), again).await?
            }
            Err(_) => self.settle(host, &transition).await,
        }
    }

    async fn settle(&self, host: HostId, transition: &Transition) -> Result<Committed, Error> {
        let (id, held) = (transition.workflow_id, transition.fence);
        loop {
            match self.ask(format!("settle {id}"), move |tables, _| tables.settle(host, id, held)).await {
                Ok(settled) => return settled?.answer(transition),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn unavailable() -> Error {
    Error::from(sqlx::Error::PoolTimedOut)
}

#[async_trait]
impl Journal for Line {
    fn new_workflow_id(&self, now: Timestamp) -> WorkflowId {
        let millis = u128::try_from(now.as_millis()).unwrap_or(0);
        let noise = u128::from(self.world.random().next());
        WorkflowId(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62) | (noise >> 2)))
    }

    async fn register_host(&self, _: &str, lease: Duration) -> Result<HostId, Error> {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.ask("register".into(), move |tables, now| tables.register_host(now.plus_millis(lease))).await
    }

    async fn renew_lease(&self, host: HostId, lease: Duration) -> Result<Timestamp, Error> {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let renewed = self.world.ask(&self.machine, lease / 4, "renew".into(), move |tables, now| {
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
        // Nothing that isn't committed is read here: so whose turn is next may come now or after the answer.
        let turn = turn.filter(|_| self.world.random().per_mille(500));
        let answer = self.commit_and_settle(host, transition).await;
        drop(turn);
        answer
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
        let key = key.clone();
        let absent = Entry { version: Version::ABSENT, value: None };
        self.ask("read".into(), move |tables, _| tables.entries.get(&key).cloned().unwrap_or(absent)).await
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
