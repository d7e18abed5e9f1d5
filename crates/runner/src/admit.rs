//! Taking a run in, and beginning it with the same commit if there is a free slot: one task from its acceptance to its end.

use std::sync::Arc;

use aster_core::id::{Digest, HostId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, NewRun, Start};
use aster_core::plan::Plan;
use aster_core::saga::{self, Signal};
use aster_core::state::{Accepted, RunState, Status};
use aster_core::time::Timestamp;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::crash;
use crate::drive::Drive;
use crate::drivers::{Contact, DriverSlot};
use crate::ends::End;
use crate::ports::Release;
use crate::shared::{Shared, millis};
use crate::{Refusal, Runner, Waiter};

/// What a submission has come to, before there is a run of it.
#[derive(Debug)]
pub struct Candidate {
    pub tenant: TenantId,
    /// The full name.
    pub definition: String,
    /// SHA-256 of the definition's source.
    pub definition_digest: Digest,
    pub release: Release,
    /// Of the registry, when `release` was resolved.
    pub generation: i64,
    pub input: Arc<Value>,
    pub input_digest: [u8; 32],
    pub key: Option<String>,
    /// Whether somebody will wait for the run's end.
    pub watch: bool,
}

/// A run that was just taken in, or that was there already.
#[derive(Debug)]
pub struct Admitted {
    pub workflow_id: WorkflowId,
    pub accepted_at: Timestamp,
    pub deadline: Timestamp,
    /// Of a new run.
    pub status: Status,
    pub acceptance: Acceptance,
    /// Of a new run that this host drives, and that somebody wants to wait for.
    pub watch: Option<Waiter>,
}

/// A run that was accepted and begun here.
struct Begun {
    driver_slot: DriverSlot,
    drive: Drive,
}

impl Runner {
    /// Takes a run in, durably, and starts it with the same commit if there is a free slot.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] for a new run without a free slot, if too many wait for one already. Nothing is recorded then.
    ///
    /// # Cancel safety
    /// A client that goes away cancels nothing: what was accepted is driven.
    pub async fn admit(&self, candidate: Candidate) -> Result<Admitted, Refusal> {
        let runner = self.clone();
        let (tell, told) = oneshot::channel();
        let task = tokio::spawn(async move {
            match runner.accept(candidate).await {
                Ok((admitted, begun)) => {
                    // Who asked may have gone.
                    let _ = tell.send(Ok(admitted));
                    if let Some(Begun { driver_slot, drive }) = begun {
                        Box::pin(driver_slot.drive(drive.run(None))).await;
                    }
                }
                Err(refusal) => _ = tell.send(Err(refusal)),
            }
        });
        match told.await {
            Ok(answer) => answer,
            Err(_) => match task.await {
                Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                Ok(()) => unreachable!("it tells before it ends"),
            },
        }
    }

    async fn accept(&self, candidate: Candidate) -> Result<(Admitted, Option<Begun>), Refusal> {
        let shared = &self.shared;
        let Candidate { tenant, definition, definition_digest, release, generation, .. } = candidate;
        let Candidate { input, input_digest, key, watch, .. } = candidate;
        let now = shared.clock.now();
        let default_timeout = shared.options.limits.workflow_timeout;
        let timeout_ms = release.plan.timeout_ms.unwrap_or_else(|| millis(default_timeout));
        let deadline = now.plus_millis(timeout_ms);
        let workflow_id = shared.journal.new_workflow_id(now);
        let state = RunState::new(Accepted {
            workflow_id,
            definition: definition.clone(),
            definition_digest,
            release: release.id.0,
            input: Arc::clone(&input),
            deadline,
        });
        let admitted = |status, acceptance, watch| Admitted {
            workflow_id,
            accepted_at: now,
            deadline,
            status,
            acceptance,
            watch,
        };
        let slot = self.slot();
        if slot.is_none() && !self.may_wait(now).await {
            let acceptance = match &key {
                // What is known already is no new work.
                Some(key) => shared.journal.known(&tenant, &definition, key, &input_digest).await?,
                None => None,
            };
            let acceptance = acceptance.ok_or(Refusal::Overloaded)?;
            return Ok((admitted(Status::Ready, acceptance, None), None));
        }
        let first = slot.as_ref().map(|(host, _)| first_transition(*host, &release.plan, &state, now));
        let run = NewRun {
            workflow_id,
            tenant: tenant.clone(),
            definition,
            release: release.id,
            generation,
            key: key.clone(),
            input: input.to_string(),
            input_digest,
            accepted_at: now,
            deadline,
            start: first.as_ref().map(|(_, start)| start.clone()),
        };
        let _accepting = shared.drivers.accepting(workflow_id);
        crash::point("before-accept");
        let acceptance = shared.journal.accept(run).await?;
        if !matches!(acceptance, Acceptance::New { .. }) {
            return Ok((admitted(Status::Ready, acceptance, None), None));
        }
        shared.measures.add_commit();
        crash::point("after-accept");
        let (Some((state, start)), Some((host, permit))) = (first, slot) else {
            shared.alarm.set(now);
            return Ok((admitted(Status::Ready, acceptance, None), None));
        };
        let status = state.status;
        // A run without a step that is wanted is over already.
        if !shared.pass_on(workflow_id, now, &start.run) {
            if status.is_over() {
                End { tenant: &tenant, key: key.as_deref(), state: &state, at: now }.tell();
            }
            return Ok((admitted(status, acceptance, None), None));
        }
        // Before it is driven: so its end can't be missed.
        let watch = watch.then(|| shared.waiters.enter(workflow_id));
        let contact = Arc::<Contact>::default();
        let begun =
            shared.drivers.slot(host, workflow_id, NewRun::FIRST_FENCE, &contact).map(|driver_slot| Begun {
                driver_slot,
                drive: Drive {
                    shared: Arc::clone(shared),
                    host,
                    fence: NewRun::FIRST_FENCE,
                    tenant,
                    key,
                    release,
                    state: Arc::new(state),
                    row: Some(start.run),
                    contact,
                    permit,
                },
            });
        Ok((admitted(status, acceptance, watch), begun))
    }

    /// Whether one more run may wait for a slot of any host.
    async fn may_wait(&self, now: Timestamp) -> bool {
        let Shared { backlog, journal, .. } = &*self.shared;
        backlog.has_room(|limit| journal.count_due(now, limit)).await
    }

    /// A place for one more run, and the id under which to own it; none if the host is full, stopping or without a lease.
    fn slot(&self) -> Option<(HostId, OwnedSemaphorePermit)> {
        if *self.shared.shutdown.borrow() {
            return None;
        }
        let host = self.shared.lease.host()?;
        let permit = Arc::clone(&self.shared.slots).try_acquire_owned().ok()?;
        Some((host, permit))
    }
}

/// What begins a run: its state after the first transition, and that.
fn first_transition(host: HostId, plan: &Plan, state: &RunState, now: Timestamp) -> (RunState, Start) {
    let reaction =
        saga::react(plan, state, Signal::Tick, now).expect("only endings and cancels can be refused");
    let run = saga::record(plan, &reaction.state, now);
    (reaction.state, Start { host, events: reaction.events, run })
}
