//! What people do to runs: cancel one, look at its compensations, and decide what becomes of those that failed.
//!
//! An act is an order: durable when it is taken, carried out by whoever drives the run, and an event when it is done.

use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Author, Cause};
use aster_core::id::{TenantId, WorkflowId};
use aster_core::order::{self, Order, What};
use aster_core::saga::Refused;
use aster_core::state::{Outcome, Progress, RunState, Status, Undo, evolve};
use aster_core::time::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::logs::cut;
use crate::registry::{self, Registry};
use crate::runner::Runner;
use crate::store::{self, Replay, Run, RunFilter, Store};

/// How long who orders something is kept waiting to see it done.
const PATIENCE: Duration = Duration::from_secs(2);

/// After which a look through many runs is ended, to be gone on with.
const PATIENCE_WITH_MANY: Duration = Duration::from_secs(10);

/// Runs that are looked through at once.
const RUNS_AT_ONCE: usize = 100;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    store: Store,
    registry: Registry,
    runner: Runner,
}

/// What is to become of a compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Retry(Components),
    Skip,
    Settle,
}

/// Whose code a compensation that is tried again calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Components {
    /// The versions that the run pinned when it was accepted.
    #[default]
    Pinned,
    /// Those that are active now.
    Active,
}

/// How a compensation stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Compensation {
    pub undo: Undo,
    /// What came of the step that it undoes.
    pub forward: Outcome,
}

impl Compensation {
    /// When its next attempt begins, if one is scheduled.
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        match self.undo.progress {
            Progress::Waiting { at, .. } => Some(at),
            _ => None,
        }
    }
}

/// Whether something that was ordered is done by now.
#[derive(Clone, Debug, PartialEq)]
pub enum Done<T> {
    Now(T),
    /// It will be: the run as it still stands.
    Soon(T),
}

/// Which failed compensations are meant; what is none doesn't matter.
#[derive(Clone, Debug, Default)]
pub struct RepairFilter {
    /// The full name.
    pub definition: Option<String>,
    pub step: Option<String>,
    /// A part of the error's message, or its whole code.
    pub error: Option<String>,
    /// Only runs before this one, which was the last of the call before.
    pub before: Option<WorkflowId>,
}

/// A compensation that a filter has found.
#[derive(Clone, Debug)]
pub struct Found {
    pub workflow_id: WorkflowId,
    pub definition: String,
    pub compensation: Compensation,
    /// Why nothing was ordered for it.
    pub refused: Option<String>,
}

/// What a filter has found, and the run after which to go on if there is more.
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

    /// Lets a run fail now and undo what it has done. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Refused::Over`] if it is over, also if that came first.
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
        // It is durable: what can't be read now is no failure of it.
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

    /// The compensations of a run, in the order in which they run: also those that only wait for the run to fail.
    ///
    /// # Errors
    /// There is no such run.
    pub async fn compensations(&self, tenant: &TenantId, id: WorkflowId) -> Result<Vec<Compensation>, Error> {
        let run = self.run(tenant, id).await?;
        let state = self.state(&run).await?;
        Ok(state.compensations().into_iter().map(|undo| compensation(&state, undo)).collect())
    }

    /// Decides what becomes of the compensation of `step`.
    ///
    /// # Errors
    /// It makes no sense for the compensation as it stands, or the active components can't be called for it.
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
        // It is durable: what can't be read now is no failure of it.
        let is_done = self.done(id, &order).await;
        let (is_done, state) = match self.state(&run).await {
            Ok(newest) => (is_done, newest),
            Err(_) => (false, state),
        };
        let undo = state.undo(step).cloned().ok_or_else(|| Refused::NothingToUndo(step.into()))?;
        let carried_out = order.author.order_id.is_some_and(|order_id| state.orders.contains(&order_id));
        match (is_done, carried_out) {
            // Somebody else was first.
            (true, false) => Err(Refused::Already { step: step.into(), state: undo.state_name() }.into()),
            (true, true) => Ok(Done::Now(compensation(&state, undo))),
            (false, _) => Ok(Done::Soon(compensation(&state, undo))),
        }
    }

    /// Decides the same for every failed compensation that `filter` finds, the newest runs first, at most about `limit` and for
    /// some seconds; or only tells which those are. The runs go on by and by.
    ///
    /// # Errors
    /// The database is unreachable; what was ordered before stays so.
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

    /// Why nothing was ordered, if so.
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

    /// The order with the release whose components it wants to be called.
    async fn with_components(&self, run: &Run, mut order: Order, act: Act) -> Result<Order, Error> {
        if let (What::Retry { release, .. }, Act::Retry(Components::Active)) = (&mut order.what, act) {
            let active = self.registry.release_of_active(&run.tenant, &run.definition, run.definition_digest);
            *release = Some(active.await?.id);
        }
        Ok(order)
    }

    async fn give(&self, run: &Run, order: &Order) -> Result<store::Ordered, Error> {
        let now = self.runner.now();
        let ordered = self.store.order(&run.tenant, run.workflow_id, order, now).await?;
        if ordered.taken {
            tell(run, order);
            self.runner.tell_ordered(run.workflow_id);
        }
        Ok(ordered)
    }

    /// Waits until the order is dealt with, if that is soon.
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

    /// Runs that can't be read are left out: they are told in the log where they are driven.
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

/// The log's line about what somebody wants of a run.
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
