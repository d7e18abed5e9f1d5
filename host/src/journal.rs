//! The store as the runner's journal. There is nothing to decide here.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{Fence, HostId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, Claims, Committed, NewRun, Replay};
use aster_core::keyvalue::{Entry, Key};
use aster_core::order::Order;
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::Transition;
use aster_runner::Error;
use aster_runner::ports::{Journal, Turn};
use async_trait::async_trait;
use uuid::Uuid;

use crate::store::{self, Store};

#[async_trait]
impl Journal for Store {
    fn new_workflow_id(&self, now: Timestamp) -> WorkflowId {
        WorkflowId(store::time_ordered_id(now))
    }

    async fn register_host(&self, name: &str, lease: Duration) -> Result<HostId, Error> {
        Ok(Store::register_host(self, name, lease).await?)
    }

    async fn renew_lease(&self, host: HostId, lease: Duration) -> Result<Timestamp, Error> {
        Ok(Store::renew_lease(self, host, lease).await?)
    }

    async fn retire_host(&self, host: HostId, now: Timestamp) -> Result<u64, Error> {
        Ok(Store::retire_host(self, host, now).await?)
    }

    async fn fence_off_dead_hosts(
        &self,
        now: Timestamp,
        margin: Duration,
        limit: usize,
    ) -> Result<u64, Error> {
        Ok(Store::fence_off_dead_hosts(self, now, margin, limit).await?)
    }

    async fn accept(&self, run: NewRun) -> Result<Acceptance, Error> {
        Ok(Store::accept(self, run).await?)
    }

    async fn known(
        &self,
        tenant: &TenantId,
        definition: &str,
        key: &str,
        input_digest: &[u8; 32],
    ) -> Result<Option<Acceptance>, Error> {
        Ok(Store::known(self, tenant, definition, key, input_digest).await?)
    }

    async fn count_due(&self, now: Timestamp, limit: usize) -> Result<usize, Error> {
        Ok(Store::count_due(self, now, limit).await?)
    }

    async fn commit(
        &self,
        host: HostId,
        transition: Transition,
        turn: Option<Turn>,
    ) -> Result<Committed, Error> {
        Ok(Store::commit_in_line(self, host, transition, || drop(turn)).await?)
    }

    fn unanswered_for(&self) -> Option<Duration> {
        Store::unanswered_for(self)
    }

    async fn claim(&self, host: HostId, limit: usize, now: Timestamp) -> Result<Claims, Error> {
        Ok(Store::claim(self, host, limit, now).await?)
    }

    async fn hand_back(
        &self,
        host: HostId,
        workflow_id: WorkflowId,
        fence: Fence,
        at: Timestamp,
    ) -> Result<(), Error> {
        Ok(Store::hand_back(self, host, workflow_id, fence, at).await?)
    }

    async fn adopt(&self, host: HostId, workflow_id: WorkflowId, fence: Fence) -> Result<Fence, Error> {
        Ok(Store::adopt(self, host, workflow_id, fence).await?)
    }

    async fn owned(&self, host: HostId) -> Result<Vec<(WorkflowId, Fence)>, Error> {
        Ok(Store::owned(self, host).await?)
    }

    async fn replay(&self, ids: &[WorkflowId]) -> Result<Vec<(WorkflowId, Result<Replay, Error>)>, Error> {
        let replays = Store::replay(self, ids).await?;
        Ok(replays.into_iter().map(|(id, replay)| (id, replay.map_err(Error::from))).collect())
    }

    async fn status(&self, workflow_id: WorkflowId) -> Result<Option<Status>, Error> {
        Ok(self.status_of(workflow_id).await?)
    }

    async fn orders(&self, workflow_id: WorkflowId) -> Result<Vec<Order>, Error> {
        Ok(Store::orders(self, workflow_id).await?)
    }

    async fn forget_order(&self, workflow_id: WorkflowId, order_id: Uuid) -> Result<(), Error> {
        Ok(Store::forget_order(self, workflow_id, order_id).await?)
    }

    async fn ordered_runs(&self, host: HostId, limit: usize) -> Result<Vec<WorkflowId>, Error> {
        Ok(Store::ordered_runs(self, host, limit).await?)
    }

    async fn settle_stray_orders(&self, now: Timestamp) -> Result<u64, Error> {
        Ok(Store::settle_stray_orders(self, now).await?)
    }

    async fn read_entry(&self, key: &Key) -> Result<Entry, Error> {
        Ok(Store::read_entry(self, key).await?)
    }

    async fn list_keys(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, Error> {
        Ok(Store::list_keys(self, tenant, component, bucket, after, limit).await?)
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
