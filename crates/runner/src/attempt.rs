//! One attempt at a step or a compensation: its body, computed call by call in the sandbox.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aster_core::eval::{self, Answers, Env, PendingCall, Progress};
use aster_core::event::{CallCost, Cost, Failure, FailureCode};
use aster_core::id::{ReleaseId, TenantId};
use aster_core::keyvalue::{Effects, Entry, Key};
use aster_core::plan::{Limits, Plan, Statement, Step};
use aster_core::saga::{Attempt, Direction};
use aster_core::state::RunState;
use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::call::{self, CallLimits, Context, Output};
use crate::crash;
use crate::ports::{Asked, Journal, Release};
use crate::session::{KeyValueReader, Session, Unavailable};
use crate::shared::Shared;
use crate::watchdog::Doing;

/// Of all calls of an attempt together; each stream of a call is bounded by the sandbox.
const MAX_OUTPUT_BYTES: usize = 32 << 10;

/// After so long, calls that follow each other let other tasks have the thread.
const TURN: Duration = Duration::from_millis(1);

/// What an attempt came to.
#[derive(Debug)]
pub(crate) struct AttemptOutcome {
    pub(crate) result: Result<Arc<Value>, Failure>,
    pub(crate) cost: Cost,
    pub(crate) effects: Effects,
}

impl AttemptOutcome {
    /// Without having begun.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), cost: Cost::default(), effects: Effects::default() }
    }

    /// A bug of the host, which the step's code and data brought to light. The step may be tried again.
    pub(crate) fn panicked() -> Self {
        Self::failed(Failure::new(
            FailureCode::Trap,
            "the host failed while it ran the step; its log says where",
        ))
    }
}

/// A release that isn't the run's own, however long the database takes.
///
/// # Errors
/// Something of it was deleted since.
pub(crate) async fn other_release(shared: &Shared, id: ReleaseId) -> Result<Release, Failure> {
    let mut pause = Duration::from_millis(20);
    loop {
        match shared.guests.release(id).await {
            Ok(release) => return Ok(release),
            Err(error) if error.may_pass() => {
                warn!(%error, "could not load the components for a repair: tries again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(error) => {
                let message = format!("what the operator chose can't be called any more: {error}");
                return Err(Failure::new(FailureCode::Unavailable, message));
            }
        }
    }
}

/// Runs the attempt to its end, however often the host's own trouble makes it begin again.
///
/// # Cancel safety
/// Dropping the future interrupts the guest; what it wrote is dropped with it.
pub(crate) async fn execute(
    shared: &Shared,
    tenant: &TenantId,
    release: &Release,
    state: &RunState,
    doing: &Doing,
    attempt: &Attempt,
) -> AttemptOutcome {
    let mut pause = Duration::from_millis(20);
    loop {
        let trying = doing.try_attempt();
        let tried = AttemptRun::new(shared, tenant, release, state, attempt).run().await;
        drop(trying);
        match tried {
            Ok(outcome) => return outcome,
            // Nothing is known about the step, and nothing of it is kept.
            Err(error) => {
                warn!(run.id = %state.accepted.workflow_id, step.name = %attempt.step, %error, "a step begins again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// One try at an attempt, which the host's own trouble may end without a verdict.
struct AttemptRun<'a> {
    shared: &'a Shared,
    tenant: &'a TenantId,
    release: &'a Release,
    state: &'a RunState,
    attempt: &'a Attempt,
    session: Session,
    reader: Arc<Reader>,
    limits: Limits,
    began: Instant,
    /// When the attempt's time is over: its limit counts from its first call.
    deadline: Option<Instant>,
    calls: Vec<CallCost>,
    output: String,
}

impl<'a> AttemptRun<'a> {
    fn new(
        shared: &'a Shared,
        tenant: &'a TenantId,
        release: &'a Release,
        state: &'a RunState,
        attempt: &'a Attempt,
    ) -> Self {
        let reader = Arc::new(Reader {
            journal: Arc::clone(&shared.journal),
            asked_at: Mutex::default(),
            was_slow: AtomicBool::new(false),
        });
        Self {
            shared,
            tenant,
            release,
            state,
            attempt,
            session: Session::new(tenant.clone(), Arc::clone(&reader) as Arc<dyn KeyValueReader>),
            reader,
            limits: Limits::default(),
            began: Instant::now(),
            deadline: None,
            calls: Vec::new(),
            output: String::new(),
        }
    }

    async fn run(mut self) -> Result<AttemptOutcome, Error> {
        let Some((body, limits)) = body_of(&self.release.plan, self.attempt) else {
            let failure = Failure::new(FailureCode::Unavailable, "the plan has no such step");
            return Ok(self.end(Err(failure)));
        };
        self.limits = limits.clone();
        let mut answers = Answers::default();
        let mut turn_began = Instant::now();
        loop {
            match eval::run(body, Env::new(&self.release.plan, self.state), &answers) {
                Progress::Call(pending) => {
                    answers.push(self.call(pending).await?);
                    // Small guests end without waiting for anything: all calls would be one turn.
                    if turn_began.elapsed() >= TURN {
                        tokio::task::yield_now().await;
                        turn_began = Instant::now();
                    }
                }
                Progress::Returned(value) => {
                    let value = self.bounded(value);
                    return Ok(self.end(value.map(Arc::new)));
                }
                Progress::Failed(mut failure) => {
                    failure.detail = failure.detail.and_then(|detail| self.bounded(detail).ok());
                    return Ok(self.end(Err(failure)));
                }
            }
        }
    }

    async fn call(&mut self, pending: PendingCall<'_>) -> Result<Result<Value, Failure>, Error> {
        let limits = self.remaining();
        crash::point("before-call");
        let asked = Asked {
            call: pending.call,
            args: pending.args,
            limits,
            context: self.context(pending.number, Instant::from_std(limits.deadline)),
            session: &self.session,
        };
        let called = self.shared.guests.call(self.release, asked).await?;
        let Some(called) = called else {
            let message = format!("`{}` is not in the run's release", pending.call.function);
            return Ok(Err(Failure::new(FailureCode::Unavailable, message)));
        };
        crash::point("after-call");
        let report = called.report;
        if matches!(&report.outcome, Err(failure) if failure.code == FailureCode::Timeout) {
            self.reader.check_answered()?;
        }
        self.calls.push(CallCost {
            component: called.component.to_string(),
            function: called.function,
            digest: called.digest,
            fuel_used: report.fuel_used,
            duration_micros: micros(report.duration),
        });
        self.keep_output(report.output);
        Ok(report.outcome)
    }

    /// What is left of the attempt's limits, over all its calls.
    fn remaining(&mut self) -> CallLimits {
        let defaults = &self.shared.options.limits;
        let timeout = self.limits.timeout_ms.map_or(defaults.step_timeout, Duration::from_millis);
        let fuel = self.limits.fuel.or(self.release.plan.fuel).unwrap_or(defaults.step_fuel);
        let used: u64 = self.calls.iter().map(|call| call.fuel_used).sum();
        CallLimits {
            fuel: fuel.saturating_sub(used),
            memory_bytes: self.limits.memory_bytes.unwrap_or(defaults.step_memory_bytes),
            deadline: self.deadline.get_or_insert_with(|| Instant::now() + timeout).into_std(),
        }
    }

    fn context(&self, call_number: u32, deadline: Instant) -> Context {
        let left = deadline.saturating_duration_since(Instant::now());
        let step_ends =
            self.shared.clock.now().plus_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let (deadline, direction) = match self.attempt.direction {
            Direction::Forward => (step_ends.min(self.state.accepted.deadline), call::Direction::Forward),
            // Its limits are its own: the workflow's deadline may be what it undoes.
            Direction::Undo => {
                (step_ends, call::Direction::Compensation(self.state.outcome(&self.attempt.step)))
            }
        };
        Context {
            workflow_id: self.state.accepted.workflow_id,
            definition: self.state.accepted.definition.as_str().into(),
            step: Arc::clone(&self.attempt.step),
            attempt: self.attempt.number,
            deadline: Some(deadline),
            tenant: self.tenant.clone(),
            call_number,
            direction,
        }
    }

    /// Keeps what a call printed, as long as there is room: it travels in the step's event.
    fn keep_output(&mut self, output: Output) {
        let room = MAX_OUTPUT_BYTES.saturating_sub(self.output.len());
        if let Some(text) = output.into_text() {
            self.output.push_str(&text[..text.floor_char_boundary(room)]);
        }
    }

    /// What the body built may be larger and deeper than any value that a component gave.
    fn bounded(&self, value: Value) -> Result<Value, Failure> {
        let limit = self.shared.options.limits.value_bytes;
        let size = value.to_string().len();
        if eval::is_too_deep(&value) {
            let message = format!("the step's value is nested deeper than {} levels", eval::MAX_DEPTH);
            return Err(Failure::new(FailureCode::Type, message));
        }
        if u64::try_from(size).is_ok_and(|size| size <= limit) {
            return Ok(value);
        }
        let message = format!("the step's value has {size} bytes as JSON, and at most {limit} are taken");
        Err(Failure::new(FailureCode::Type, message))
    }

    fn end(self, result: Result<Arc<Value>, Failure>) -> AttemptOutcome {
        let last = self.calls.last();
        let cost = Cost {
            fuel_used: self.calls.iter().map(|call| call.fuel_used).sum(),
            duration_micros: micros(self.began.elapsed()),
            component: last.map(|call| call.component.clone()),
            function: last.map(|call| call.function.clone()),
            digest: last.map(|call| call.digest),
            output: (!self.output.is_empty()).then_some(self.output),
            calls: if self.calls.len() > 1 { self.calls } else { Vec::new() },
        };
        AttemptOutcome { result, cost, effects: self.session.effects() }
    }
}

fn body_of<'p>(plan: &'p Plan, attempt: &Attempt) -> Option<(&'p [Statement], &'p Limits)> {
    let step: &Step = plan.step(&attempt.step)?;
    match attempt.direction {
        Direction::Forward => Some((&step.body, &step.limits)),
        Direction::Undo => step.compensation.as_ref().map(|undo| (undo.body.as_slice(), &undo.limits)),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The committed key-value state, as the sandbox reads it, for one attempt.
#[derive(Debug)]
struct Reader {
    journal: Arc<dyn Journal>,
    /// Since when an answer of the database is awaited.
    asked_at: Mutex<Option<Instant>>,
    /// Whether one took longer than [`PATIENCE`].
    was_slow: AtomicBool,
}

impl Reader {
    /// A time limit that passed while the database didn't answer says nothing about the step.
    fn check_answered(&self) -> Result<(), Unavailable> {
        let asked_at = *self.asked_at.lock().expect("nothing panics while it is held");
        let is_slow = asked_at.is_some_and(|at| at.elapsed() >= PATIENCE);
        match is_slow || self.was_slow.load(Ordering::Relaxed) {
            true => Err(Unavailable("the step's time was over while the database did not answer".into())),
            false => Ok(()),
        }
    }

    async fn ask<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Unavailable> {
        let asked_at = Instant::now();
        *self.asked_at.lock().expect("nothing panics while it is held") = Some(asked_at);
        let answer = asked.await;
        // Not reached where the time limit drops the question.
        *self.asked_at.lock().expect("nothing panics while it is held") = None;
        if asked_at.elapsed() >= PATIENCE {
            self.was_slow.store(true, Ordering::Relaxed);
        }
        answer.map_err(|error| Unavailable(Box::new(error)))
    }
}

/// Longer than any answer takes of a database that works; a guest can't stretch a single question so far.
const PATIENCE: Duration = Duration::from_secs(1);

#[async_trait]
impl KeyValueReader for Reader {
    async fn read(&self, key: &Key) -> Result<Entry, Unavailable> {
        self.ask(self.journal.read_entry(key)).await
    }

    async fn list_keys(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Unavailable> {
        let keys = self.ask(self.journal.list_keys(tenant, component, bucket, after, limit)).await?;
        Ok(keys.into_iter().map(|key| key.to_string()).collect())
    }
}
