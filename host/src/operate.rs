//! What operators do to runs: cancel one, list its compensations, and decide about those that failed.
//!
//! An act is an order. It is durable once it is taken, the run's driver carries it out, and an event records that it is
//! done.

use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Author, Cause};
use aster_core::id::{TenantId, WorkflowId};
use aster_core::journal::{Ordered, Replay};
use aster_core::order::{self, Order, What};
use aster_core::saga::Refused;
use aster_core::state::{Outcome, Progress, RunState, Status, Undo, evolve};
use aster_core::time::Timestamp;
use aster_runner::{Runner, cut};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::registry::{self, Registry};
use crate::store::{self, Run, RunFilter, Store};

/// How long a caller waits to see its order carried out.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one call may look through many runs. It then returns a cursor to continue from.
const PATIENCE_WITH_MANY: Duration = Duration::from_secs(10);

/// How many runs are read at once.
const RUNS_AT_ONCE: usize = 100;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    store: Store,
    registry: Registry,
    runner: Runner,
}

/// What to do about a compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Retry(Components),
    Skip,
    Settle,
}

/// Which code a retried compensation calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Components {
    /// The component versions that the run pinned when it was accepted.
    #[default]
    Pinned,
    /// The component versions that are active now.
    Active,
}

/// The state of a compensation.
#[derive(Clone, Debug, PartialEq)]
pub struct Compensation {
    pub undo: Undo,
    /// What became of the step that it undoes.
    pub forward: Outcome,
}

impl Compensation {
    /// Returns when the next attempt begins, if one is scheduled.
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        match self.undo.progress {
            Progress::Waiting { at, .. } => Some(at),
            _ => None,
        }
    }
}

/// Whether an order is carried out already.
#[derive(Clone, Debug, PartialEq)]
pub enum Done<T> {
    Now(T),
    /// The order will be carried out. This is the state before it.
    Soon(T),
}

/// Which failed compensations to find. A field that is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct RepairFilter {
    /// The full name.
    pub definition: Option<String>,
    pub step: Option<String>,
    /// A part of the error's message, or its whole code.
    pub error: Option<String>,
    /// Only runs before this one, which was the last of the previous call.
    pub before: Option<WorkflowId>,
}

/// A compensation that matches a filter.
#[derive(Clone, Debug)]
pub struct Found {
    pub workflow_id: WorkflowId,
    pub definition: String,
    pub compensation: Compensation,
    /// Why nothing was ordered for it, if so.
    pub refused: Option<String>,
}

/// The compensations that match a filter, and the run to continue after if there are more.
#[derive(Clone, Debug, Default)]
pub struct Repairs {
    pub found: Vec<Found>,
    pub next: Option<WorkflowId>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("there is no run `{0}`")]
    NotFound(WorkflowId),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Operator {
    pub fn new(store: Store, registry: Registry, runner: Runner) -> Self {
        Self { store, registry, runner }
    }

    /// Makes a run fail now and undoes its steps. Cancelling it again changes nothing.
    ///
    /// # Errors
    /// Returns [`Refused::Over`] if the run is over, also if it ended before the order was carried out.
    pub async fn cancel(
        &self,
        tenant: &TenantId,
        id: WorkflowId,
        author: Author,
    ) -> Result<Done<Run>, Error> {
        let run = self.run(tenant, id).await?;
        let order = self.order(What::Cancel, author);
        let ordered = self.give(&run, &order).await?;
        if !ordered.taken {
            return Err(Refused::Over(ordered.status).into());
        }
        // The order is durable, so it hasn't failed if its outcome can't be read now.
        let is_done = self.done(id, &order).await;
        let run = self.run(tenant, id).await.unwrap_or(run);
        match run.cause {
            cause if run.status.is_over() && cause != Some(Cause::Cancel) => {
                Err(Refused::Over(run.status).into())
            }
            _ if is_done => Ok(Done::Now(run)),
            _ => Ok(Done::Soon(run)),
        }
    }

    /// Returns the compensations of a run in the order in which they run, including those that only a failure of the
    /// run would start.
    ///
    /// # Errors
    /// Returns an error if there is no such run.
    pub async fn compensations(&self, tenant: &TenantId, id: WorkflowId) -> Result<Vec<Compensation>, Error> {
        let run = self.run(tenant, id).await?;
        let state = self.state(&run).await?;
        Ok(state.compensations().into_iter().map(|undo| compensation(&state, undo)).collect())
    }

    /// Decides about the compensation of `step`.
    ///
    /// # Errors
    /// Returns an error if the act makes no sense for the compensation's state, or if the active components can't be
    /// called for it.
    pub async fn repair(
        &self,
        tenant: &TenantId,
        id: WorkflowId,
        step: &str,
        act: Act,
        author: Author,
    ) -> Result<Done<Compensation>, Error> {
        let run = self.run(tenant, id).await?;
        let state = self.state(&run).await?;
        let order = self.order(what(act, step), author);
        order::check(&state, &order)?;
        let order = self.with_components(&run, order, act).await?;
        let ordered = self.give(&run, &order).await?;
        if !ordered.taken {
            return Err(Refused::NotUndoing(ordered.status).into());
        }
        // The order is durable, so it hasn't failed if its outcome can't be read now.
        let is_done = self.done(id, &order).await;
        let (is_done, state) = match self.state(&run).await {
            Ok(newest) => (is_done, newest),
            Err(_) => (false, state),
        };
        let undo = state.undo(step).cloned().ok_or_else(|| Refused::NothingToUndo(step.into()))?;
        let carried_out = order.author.order_id.is_some_and(|order_id| state.orders.contains(&order_id));
        match (is_done, carried_out) {
            // Another order came first.
            (true, false) => Err(Refused::Already { step: step.into(), state: undo.state_name() }.into()),
            (true, true) => Ok(Done::Now(compensation(&state, undo))),
            (false, _) => Ok(Done::Soon(compensation(&state, undo))),
        }
    }

    /// Makes the same decision for every failed compensation that matches `filter`, the newest runs first; without an
    /// act, it only returns them. It stops after about `limit` compensations, or after some seconds. It doesn't wait for
    /// the runs to carry the orders out.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable. Orders that were given before remain.
    pub async fn repair_all(
        &self,
        tenant: &TenantId,
        filter: RepairFilter,
        limit: usize,
        act: Option<(Act, Author)>,
    ) -> Result<Repairs, Error> {
        let mut repairs = Repairs { found: Vec::new(), next: filter.before };
        let give_up = Instant::now() + PATIENCE_WITH_MANY;
        loop {
            let page = RunFilter {
                status: Some(Status::CompensationFailed),
                definition: filter.definition.clone(),
                cause: None,
                before: repairs.next,
            };
            let runs = self.store.list_runs(tenant, &page, RUNS_AT_ONCE).await?;
            let mut states = self.states(&runs.items).await?;
            for run in runs.items {
                repairs.next = Some(run.workflow_id);
                let Some(state) = states.remove(&run.workflow_id) else { continue };
                for undo in state.undoing.iter().filter(|undo| filter.is_met_by(undo)) {
                    let refused = match &act {
                        None => None,
                        Some((act, author)) => self.order_repair(&run, undo, *act, author.clone()).await?,
                    };
                    repairs.found.push(Found {
                        workflow_id: run.workflow_id,
                        definition: run.definition.clone(),
                        compensation: compensation(&state, undo.clone()),
                        refused,
                    });
                }
                if repairs.found.len() >= limit || Instant::now() >= give_up {
                    return Ok(repairs);
                }
            }
            if !runs.more {
                repairs.next = None;
                return Ok(repairs);
            }
        }
    }

    /// Orders a repair. Returns the reason if it is refused.
    async fn order_repair(
        &self,
        run: &Run,
        undo: &Undo,
        act: Act,
        author: Author,
    ) -> Result<Option<String>, Error> {
        let order = self.order(what(act, &undo.step), author);
        let order = match self.with_components(run, order, act).await {
            Ok(order) => order,
            Err(Error::Registry(error)) if !error.may_pass() => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let ordered = self.give(run, &order).await?;
        Ok((!ordered.taken).then(|| Refused::NotUndoing(ordered.status).to_string()))
    }

    fn order(&self, what: What, author: Author) -> Order {
        let order_id = store::time_ordered_id(self.runner.now());
        Order { what, author: Author { order_id: Some(order_id), ..author } }
    }

    /// Adds the release whose components the order wants to be called.
    async fn with_components(&self, run: &Run, mut order: Order, act: Act) -> Result<Order, Error> {
        if let (What::Retry { release, .. }, Act::Retry(Components::Active)) = (&mut order.what, act) {
            let active = self.registry.release_of_active(&run.tenant, &run.definition, run.definition_digest);
            *release = Some(active.await?.id.0);
        }
        Ok(order)
    }

    async fn give(&self, run: &Run, order: &Order) -> Result<Ordered, Error> {
        let now = self.runner.now();
        let ordered = self.store.order(&run.tenant, run.workflow_id, order, now).await?;
        if ordered.taken {
            tell(run, order);
            self.runner.tell_ordered(run.workflow_id);
        }
        Ok(ordered)
    }

    /// Waits until the order is dealt with, for a short time.
    async fn done(&self, id: WorkflowId, order: &Order) -> bool {
        let Some(order_id) = order.author.order_id else { return true };
        let give_up = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(2);
        loop {
            match self.store.is_ordered(id, order_id).await {
                Ok(false) => return true,
                Ok(true) if Instant::now() < give_up => {}
                Ok(true) | Err(_) => return false,
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    async fn run(&self, tenant: &TenantId, id: WorkflowId) -> Result<Run, Error> {
        let run = self.store.load_run(id).await?.filter(|run| run.tenant == *tenant);
        run.ok_or(Error::NotFound(id))
    }

    async fn state(&self, run: &Run) -> Result<RunState, Error> {
        let replay = self.store.replay(&[run.workflow_id]).await?.pop();
        let (_, replay) = replay.ok_or(Error::NotFound(run.workflow_id))?;
        Ok(fold(replay?))
    }

    /// Folds the logs of the runs. Runs that can't be read are omitted; their driver logs that.
    async fn states(&self, runs: &[Run]) -> Result<std::collections::HashMap<WorkflowId, RunState>, Error> {
        let ids: Vec<_> = runs.iter().map(|run| run.workflow_id).collect();
        let replays = self.store.replay(&ids).await?;
        Ok(replays.into_iter().filter_map(|(id, replay)| Some((id, fold(replay.ok()?)))).collect())
    }
}

impl RepairFilter {
    fn is_met_by(&self, undo: &Undo) -> bool {
        let Progress::Failed(error) = &undo.progress else { return false };
        let code = serde_json::to_value(error.code).unwrap_or_default();
        self.step.as_ref().is_none_or(|step| *step == *undo.step)
            && self.error.as_ref().is_none_or(|part| error.message.contains(part) || code == **part)
    }
}

/// Logs who ordered what for a run.
fn tell(run: &Run, order: &Order) {
    let (act, step) = match &order.what {
        What::Cancel => ("cancel", None),
        What::Retry { step, .. } => ("retry", Some(&**step)),
        What::Skip { step } => ("skip", Some(&**step)),
        What::Settle { step } => ("settle", Some(&**step)),
    };
    let of_step = step.map(|step| format!(" of the compensation of step {step}")).unwrap_or_default();
    let Author { by, reason, order_id } = &order.author;
    let by = by.as_deref().unwrap_or("-");
    info!(
        run.id = %run.workflow_id, run.key = run.key.as_deref().map(cut), tenant.id = %run.tenant,
        definition.name = run.definition, step.name = step, order.act = act,
        order.id = order_id.map(tracing::field::display), user.id = cut(by), order.reason = reason.as_deref().map(cut),
        "{} ordered a {act}{of_step} in run {} of {}", cut(by), run.workflow_id, run.definition
    );
}

fn what(act: Act, step: &str) -> What {
    let step = Arc::from(step);
    match act {
        Act::Retry(_) => What::Retry { step, release: None },
        Act::Skip => What::Skip { step },
        Act::Settle => What::Settle { step },
    }
}

fn fold(replay: Replay) -> RunState {
    let mut state = RunState::new(replay.accepted);
    replay.events.iter().for_each(|event| evolve(&mut state, event));
    state
}

fn compensation(state: &RunState, undo: Undo) -> Compensation {
    let forward = state.outcome(&undo.step);
    Compensation { undo, forward }
}
