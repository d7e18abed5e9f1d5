//! What the runner asks of the rest of the host: a narrow side of the database, and the code of steps.
//!
//! They are traits so that all of the runner also runs in a simulation, on a model of the database and of guests, under a clock
//! that is only told to move. There is nothing to decide here.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{Digest, Fence, HostId, ReleaseId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, Claims, Committed, NewRun, Replay};
use aster_core::keyvalue::{Entry, Key};
use aster_core::order::Order;
use aster_core::plan::{self, Plan};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::Transition;
use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::Error;
use crate::call::{CallLimits, CallReport, Context};
use crate::session::Session;

pub use crate::key_queues::Turn;

/// What is durable. The host's store says of each method what it means.
#[async_trait]
pub trait Journal: Debug + Send + Sync {
    /// Of a run that is accepted now: time-ordered by the database's clock, whatever this machine's says.
    fn new_workflow_id(&self, now: Timestamp) -> WorkflowId;

    async fn register_host(&self, name: &str, lease: Duration) -> Result<HostId, Error>;
    async fn renew_lease(&self, host: HostId, lease: Duration) -> Result<Timestamp, Error>;
    async fn retire_host(&self, host: HostId, now: Timestamp) -> Result<u64, Error>;
    async fn fence_off_dead_hosts(
        &self,
        now: Timestamp,
        margin: Duration,
        limit: usize,
    ) -> Result<u64, Error>;

    async fn accept(&self, run: NewRun) -> Result<Acceptance, Error>;
    async fn known(
        &self,
        tenant: &TenantId,
        definition: &str,
        key: &str,
        input_digest: &[u8; 32],
    ) -> Result<Option<Acceptance>, Error>;
    async fn count_due(&self, now: Timestamp, limit: usize) -> Result<usize, Error>;
    /// `turn` is given up as soon as the transition has its place in line: who comes next depends on it, and is committed with it or
    /// after it.
    async fn commit(
        &self,
        host: HostId,
        transition: Transition,
        turn: Option<Turn>,
    ) -> Result<Committed, Error>;
    /// For how long the database has owed the answer to a commit. `None` means that it owes none.
    fn unanswered_for(&self) -> Option<Duration>;
    async fn claim(&self, host: HostId, limit: usize, now: Timestamp) -> Result<Claims, Error>;
    async fn hand_back(
        &self,
        host: HostId,
        workflow_id: WorkflowId,
        fence: Fence,
        at: Timestamp,
    ) -> Result<(), Error>;
    async fn adopt(&self, host: HostId, workflow_id: WorkflowId, fence: Fence) -> Result<Fence, Error>;
    async fn owned(&self, host: HostId) -> Result<Vec<(WorkflowId, Fence)>, Error>;

    async fn replay(&self, ids: &[WorkflowId]) -> Result<Vec<(WorkflowId, Result<Replay, Error>)>, Error>;
    /// `None` means that there is no such run.
    async fn status(&self, workflow_id: WorkflowId) -> Result<Option<Status>, Error>;

    async fn orders(&self, workflow_id: WorkflowId) -> Result<Vec<Order>, Error>;
    async fn forget_order(&self, workflow_id: WorkflowId, order_id: Uuid) -> Result<(), Error>;
    async fn ordered_runs(&self, host: HostId, limit: usize) -> Result<Vec<WorkflowId>, Error>;
    async fn settle_stray_orders(&self, now: Timestamp) -> Result<u64, Error>;

    async fn read_entry(&self, key: &Key) -> Result<Entry, Error>;
    async fn list_keys(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, Error>;
}

/// The code of steps.
#[async_trait]
pub trait Guests: Debug + Send + Sync {
    /// What a run pins, ready to be called.
    async fn release(&self, id: ReleaseId) -> Result<Release, Error>;

    /// Makes one call of a body. `None` means that the release doesn't have what the call names.
    async fn call(&self, release: &Release, asked: Asked<'_>) -> Result<Option<Called>, Error>;
}

/// What a run pins, as the runner sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Release {
    pub id: ReleaseId,
    pub plan: Arc<Plan>,
    /// The code that the plan calls. Only the guests look into it, and it stays loaded as long as the run holds it.
    pub code: Arc<dyn Any + Send + Sync>,
}

/// A call of a body.
#[derive(Debug)]
pub struct Asked<'a> {
    pub call: &'a plan::Call,
    pub args: Vec<Value>,
    pub limits: CallLimits,
    pub context: Context,
    pub session: &'a Session,
}

/// What was called, and what came of it.
#[derive(Debug)]
pub struct Called {
    /// Registered name.
    pub component: Arc<str>,
    pub function: String,
    pub digest: Digest,
    pub report: CallReport,
}
