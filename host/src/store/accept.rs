//! Taking runs in: durable before the caller hears of it, and one for each key.

use std::sync::Arc;

use aster_core::id::{TenantId, WorkflowId};
use aster_core::journal::{Acceptance, NewRun};
use aster_core::state::Status;
use aster_core::transition::Driver;
use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::connections::{no_answer, persistently};
use super::{Error, Store, check_name, instant, to_json};

/// A run as it is sent: checked, and its JSON written, by the task that submits it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) run: NewRun,
    pub(super) status: &'static str,
    pub(super) cause: Option<&'static str>,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
    pub(super) owner: Option<Uuid>,
    pub(super) fence: i64,
    pub(super) wake_at: Option<DateTime<Utc>>,
    /// Type and payload.
    pub(super) events: Vec<(&'static str, String)>,
}

impl Prepared {
    fn new(run: NewRun) -> Result<Self, Error> {
        if let Some(key) = &run.key {
            check_name("key", key)?;
            if key.is_empty() {
                return Err(Error::refused("the key is empty"));
            }
        }
        let start = run.start.as_ref();
        let record = start.map(|start| &start.run);
        let (owner, fence, wake_at) = match start.map(|start| (start.host, start.run.driver)) {
            None => (None, 0, Some(run.accepted_at)),
            Some((host, Driver::Owner)) => (Some(host.0), NewRun::FIRST_FENCE.0, None),
            Some((_, Driver::ClaimableAt(at))) => (None, NewRun::FIRST_FENCE.0, Some(at)),
            Some((_, Driver::Nobody)) => (None, NewRun::FIRST_FENCE.0, None),
        };
        let result = record.and_then(|record| record.result.as_ref());
        let error = record.and_then(|record| record.error.as_ref());
        let events = start.map_or(&[][..], |start| &start.events);
        Ok(Self {
            status: record.map_or(Status::Ready, |record| record.status).as_str(),
            cause: record.and_then(|record| record.cause).map(|cause| cause.as_str()),
            result: result.map(|result| to_json("the result", result)).transpose()?,
            error: error.map(|error| to_json("the error", error)).transpose()?,
            owner,
            fence,
            wake_at: wake_at.map(instant),
            events: events.iter().map(|event| (event.event_type(), event.payload())).collect(),
            run,
        })
    }
}

impl Store {
    /// Accepts a run. Those that wait at the same time share one statement. If the answer of Postgres is lost it is asked again,
    /// which changes nothing.
    ///
    /// # Errors
    /// [`Error::RegistryMoved`] if another generation is current; [`Error::Refused`] for a key or an input that can't be
    /// stored; [`Error::Unavailable`] if the outcome isn't known within [`Patience::client`](super::Patience::client): sending
    /// the same `NewRun` again asks for it.
    pub async fn accept(&self, run: NewRun) -> Result<Acceptance, Error> {
        let give_up = Instant::now() + self.connections.patience.client;
        let prepared = Arc::new(Prepared::new(run)?);
        let acceptance = match timeout_at(give_up, self.acceptor.accept(Arc::clone(&prepared))).await {
            Ok(true) => Acceptance::New { previous: None },
            // By itself; or it is said why it is no new one.
            Ok(false) => persistently(give_up, || self.accept_once(&prepared)).await?,
            Err(_) => return Err(no_answer().into()),
        };
        if matches!(acceptance, Acceptance::New { .. }) {
            self.counters.add_acceptance();
        }
        Ok(acceptance)
    }

    /// What a submission with this key would be answered without a new run; none if it would be one.
    pub async fn known(
        &self,
        tenant: &TenantId,
        definition: &str,
        key: &str,
        input_digest: &[u8; 32],
    ) -> Result<Option<Acceptance>, Error> {
        check_name("key", key)?;
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select r.workflow_id, r.status, r.accepted_at, r.previous_workflow_id, k.input_digest = $4 as "is_same!"
                    from workflow_key k
                    join workflow_run r on r.workflow_id = k.workflow_id
                    where k.tenant = $1
                        and k.definition = $2
                        and k.key = $3"#,
                    tenant.as_str(),
                    definition,
                    key,
                    &input_digest[..],
                )
                .fetch_optional(connection)
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (workflow_id, status) = (WorkflowId(row.workflow_id), super::runs::parse_status(&row.status)?);
        // As in `accept_run`.
        Ok(match (row.is_same, status) {
            (true, _) => Some(Acceptance::Existing {
                workflow_id,
                status,
                accepted_at: row.accepted_at.into(),
                previous: row.previous_workflow_id.map(WorkflowId),
            }),
            (false, Status::Failed | Status::Compensated) => None,
            (false, _) => Some(Acceptance::KeyReused { workflow_id, status }),
        })
    }

    /// The failed run from which a run took its key.
    async fn previous(&self, workflow_id: WorkflowId) -> Result<Option<WorkflowId>, Error> {
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select previous_workflow_id from workflow_run where workflow_id = $1",
                    workflow_id.0,
                )
                .fetch_optional(connection)
            })
            .await?;
        Ok(row.flatten().map(WorkflowId))
    }

    async fn accept_once(&self, prepared: &Prepared) -> Result<Acceptance, Error> {
        let Prepared { run, .. } = prepared;
        let event_types: Vec<&str> = prepared.events.iter().map(|(event_type, _)| *event_type).collect();
        let payloads: Vec<&str> = prepared.events.iter().map(|(_, payload)| payload.as_str()).collect();
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select outcome as "outcome!", other_workflow_id, other_status, other_accepted_at
                    from accept_run(
                        p_workflow_id => $1,
                        p_tenant => $2,
                        p_definition => $3,
                        p_release_id => $4,
                        p_generation => $5,
                        p_key => $6,
                        p_input => $7,
                        p_input_digest => $8,
                        p_accepted_at => $9,
                        p_deadline => $10,
                        p_status => $11,
                        p_cause => $12,
                        p_result => $13,
                        p_error => $14,
                        p_owner => $15,
                        p_fence => $16,
                        p_wake_at => $17,
                        p_event_types => $18,
                        p_event_payloads => $19
                    )"#,
                    run.workflow_id.0,
                    run.tenant.as_str(),
                    run.definition,
                    run.release.0,
                    run.generation,
                    run.key,
                    run.input,
                    &run.input_digest[..],
                    instant(run.accepted_at),
                    instant(run.deadline),
                    prepared.status,
                    prepared.cause,
                    prepared.result,
                    prepared.error,
                    prepared.owner,
                    prepared.fence,
                    prepared.wake_at,
                    &event_types as &[&str],
                    &payloads as &[&str],
                )
                .fetch_one(connection)
            })
            .await?;

        let other = row.other_workflow_id.map(WorkflowId);
        let status = row.other_status.as_deref().map(super::runs::parse_status).transpose()?;
        match (row.outcome.as_str(), other, status, row.other_accepted_at) {
            ("NEW", previous, ..) => Ok(Acceptance::New { previous }),
            ("EXISTING", Some(workflow_id), Some(status), Some(at)) => {
                let previous = self.previous(workflow_id).await?;
                Ok(Acceptance::Existing { workflow_id, status, accepted_at: at.into(), previous })
            }
            ("REUSED", Some(workflow_id), Some(status), _) => {
                Ok(Acceptance::KeyReused { workflow_id, status })
            }
            ("MOVED", ..) => Err(Error::RegistryMoved { current: self.generation(&run.tenant).await? }),
            (outcome, ..) => Err(Error::corrupt(format!("accept_run answered {outcome}"))),
        }
    }
}
