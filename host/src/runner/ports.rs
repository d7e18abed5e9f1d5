//! What the runner asks of the rest of the host: a narrow side of the store, and the code of steps.
//!
//! They are traits so that all of the runner also runs in a simulation (`crate::simulation`), on a model of the database and
//! of guests, under a clock that is only told to move. There is nothing to decide here.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Failure, FailureCode};
use aster_core::id::{Digest, Fence, HostId, ReleaseId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, Claims, Committed, NewRun, Replay};
use aster_core::keyvalue::{Entry, Key};
use aster_core::order::Order;
use aster_core::plan::{self, Plan};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::transition::Transition;
use aster_runner::Error;
use aster_runner::call::{CallLimits, CallReport, Context, Output};
use aster_runner::session::Session;
use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use super::turns::Turn;
use crate::registry::{self, Registry};
use crate::sandbox::{Call, Sandbox};
use crate::store::{self, Store};

/// What is durable. Every method means what the [`Store`]'s of that name means.
#[async_trait]
pub(crate) trait Journal: Debug + Send + Sync {
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
    /// None: there is no such run.
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
pub(crate) trait Guests: Debug + Send + Sync {
    /// What a run pins, ready to be called.
    async fn release(&self, id: ReleaseId) -> Result<Release, Error>;

    /// Makes one call of a body. `None` means that the release doesn't have what the call names.
    async fn call(&self, release: &Release, asked: Asked<'_>) -> Result<Option<Called>, Error>;
}

/// What a run pins, as the runner sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) id: ReleaseId,
    pub(crate) plan: Arc<Plan>,
    /// What only the guests look at: the code that the plan calls. It stays loaded as long as the run holds this.
    pub(crate) code: Arc<dyn Any + Send + Sync>,
}

/// A call of a body.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) call: &'a plan::Call,
    pub(crate) args: Vec<Value>,
    pub(crate) limits: CallLimits,
    pub(crate) context: Context,
    pub(crate) session: &'a Session,
}

/// What was called, and what came of it.
#[derive(Debug)]
pub(crate) struct Called {
    /// Registered name.
    pub(crate) component: Arc<str>,
    pub(crate) function: String,
    pub(crate) digest: Digest,
    pub(crate) report: CallReport,
}

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

/// A release of the registry as the runner sees it.
pub(crate) fn pinned(release: &Arc<registry::Release>) -> Release {
    let code = Arc::<registry::Release>::clone(release);
    Release { id: release.id, plan: Arc::clone(&release.plan), code }
}

/// Components of the registry, run in the sandbox.
#[derive(Debug)]
pub(super) struct Sandboxed {
    pub(super) registry: Registry,
    pub(super) sandbox: Sandbox,
}

#[async_trait]
impl Guests for Sandboxed {
    async fn release(&self, id: ReleaseId) -> Result<Release, Error> {
        Ok(pinned(&self.registry.release(id).await?))
    }

    async fn call(&self, release: &Release, asked: Asked<'_>) -> Result<Option<Called>, Error> {
        let Asked { call, args, limits, context, session } = asked;
        let Some(code) = release.code.downcast_ref::<registry::Release>() else { return Ok(None) };
        let target = match code.target(call) {
            Some(Ok(target)) => target,
            Some(Err(set_aside)) => {
                return Ok(Some(Called {
                    component: call.capability.as_str().into(),
                    function: call.function.clone(),
                    digest: set_aside.digest,
                    report: CallReport {
                        outcome: Err(Failure::new(FailureCode::Unavailable, set_aside.why.to_string())),
                        fuel_used: 0,
                        duration: Duration::ZERO,
                        output: Output::default(),
                    },
                }));
            }
            None => return Ok(None),
        };
        let report = self
            .sandbox
            .call(Call {
                loaded: &target.loaded,
                function: target.function,
                component: Arc::clone(&target.component),
                args,
                limits,
                context,
                session,
            })
            .await?;
        Ok(Some(Called {
            component: Arc::clone(&target.component),
            function: target.loaded.function(target.function).name.clone(),
            digest: target.loaded.digest(),
            report,
        }))
    }
}
