//! Turns a request into an accepted run: resolves the definition, checks the input, and accepts the run. If the
//! registry moves meanwhile, it does so again.

use std::sync::Arc;
use std::time::Duration;

use aster_core::id::{TenantId, WorkflowId};
use aster_core::journal::Acceptance;
use aster_core::state::Status;
use aster_core::time::Timestamp;
use aster_core::wit::Mismatch;
use aster_core::wit::json::with_safe_integers;
use aster_runner::{Admitted, Candidate, Refusal, Runner, Waited, Waiter, cut};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tracing::debug;

use crate::guests::pinned;
use crate::registry::{self, Registry, Resolved};
use crate::store;

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 512;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Submitter {
    registry: Registry,
    runner: Runner,
}

#[derive(Clone, Debug)]
pub struct Submission {
    pub tenant: TenantId,
    /// The full name, or the function's name if it is unique.
    pub definition: String,
    pub input: Value,
    /// The value of the header `Idempotency-Key`.
    pub key: Option<String>,
    /// Whether the caller will wait for the run to end.
    pub watch: bool,
}

#[derive(Debug)]
pub struct Submitted {
    pub workflow_id: WorkflowId,
    /// The full name.
    pub definition: String,
    /// The key of the run, from `keyed by` or from the header.
    pub key: Option<String>,
    /// The name of the key in the trigger's answers.
    pub key_field: Option<String>,
    /// When the run was first accepted.
    pub accepted_at: Timestamp,
    pub status: Status,
    /// False if the key and the input belong to an earlier run. Then this is that run.
    pub created: bool,
    /// The failed run that had the key before. Every client that sends the key again is told.
    pub previous: Option<WorkflowId>,
    /// The input as the workflow sees it. Set only for a new run, like `deadline`, the instant at which its timeout
    /// passes.
    pub(crate) input: Arc<Value>,
    pub(crate) deadline: Timestamp,
    /// Waits for the run's end. `None` unless the caller asked for it and this host drives the run.
    pub(crate) watch: Option<Waiter>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("the input doesn't fit the workflow's parameters")]
    Input(Vec<Mismatch>),
    /// The key is empty, too long, of the wrong type, or differs from the header's.
    #[error("{0}")]
    Key(String),
    #[error("key `{key}` started run {workflow_id} with other input, and that run is {status}")]
    KeyReused { key: String, workflow_id: WorkflowId, status: Status },
    #[error("{}", Refusal::Overloaded)]
    Overloaded,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// How often a submission is resolved again when the registry moves. It moves only with deployments and activations.
const RESOLVED_AT_MOST: u32 = 10;

impl Submitter {
    pub fn new(registry: Registry, runner: Runner) -> Self {
        Self { registry, runner }
    }

    /// Submits a run. The run is durable when this returns.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, Error> {
        let Submission { tenant, definition, input, key, watch } = submission;
        let mut resolved = self.registry.resolve(&tenant, &definition).await?;
        let mut tries = 1;
        loop {
            let (normal, used_key) = match fit(&resolved, &input, key.as_deref()) {
                Ok(fitting) => fitting,
                Err(refused) => {
                    // The view of the registry may be outdated, and only a current one can refuse.
                    if tries == RESOLVED_AT_MOST || self.registry.is_current(&resolved, &tenant).await? {
                        return Err(refused);
                    }
                    tries += 1;
                    resolved = self.registry.resolve_anew(&tenant, &definition).await?;
                    continue;
                }
            };
            // Inputs are compared only for the same key.
            let input_digest = used_key.as_ref().map_or([0; 32], |_| digest(&input));
            let candidate = Candidate {
                tenant: tenant.clone(),
                definition: resolved.name.clone(),
                definition_digest: resolved.digest,
                release: pinned(&resolved.release),
                generation: resolved.generation,
                input: Arc::clone(&normal),
                input_digest,
                key: used_key.clone(),
                watch,
            };
            match self.runner.admit(candidate).await {
                Ok(admitted) => return outcome(&resolved, used_key, normal, admitted),
                Err(Refusal::Journal(aster_runner::Error::RegistryMoved { .. }))
                    if tries < RESOLVED_AT_MOST =>
                {
                    tries += 1;
                    resolved = self.registry.resolve_anew(&tenant, &definition).await?;
                }
                Err(Refusal::Journal(error)) => return Err(store::Error::from(error).into()),
                Err(Refusal::Overloaded) => return Err(Error::Overloaded),
            }
        }
    }

    /// Waits until the run is over, or until `limit` or a waiter's time to live has passed.
    pub(crate) async fn wait_until_over(
        &self,
        workflow_id: WorkflowId,
        watch: Option<Waiter>,
        limit: Duration,
    ) -> Result<Waited, Error> {
        Ok(self.runner.wait_until_over(workflow_id, watch, limit).await.map_err(store::Error::from)?)
    }
}

fn outcome(
    resolved: &Resolved,
    key: Option<String>,
    input: Arc<Value>,
    admitted: Admitted,
) -> Result<Submitted, Error> {
    let (workflow_id, accepted_at, status, created, previous) = match admitted.acceptance {
        Acceptance::New { previous } => {
            (admitted.workflow_id, admitted.accepted_at, admitted.status, true, previous)
        }
        Acceptance::Existing { workflow_id, status, accepted_at, previous } => {
            (workflow_id, accepted_at, status, false, previous)
        }
        Acceptance::KeyReused { workflow_id, status } => {
            let key = key.unwrap_or_default();
            return Err(Error::KeyReused { key, workflow_id, status });
        }
    };
    debug!(
        run.id = %workflow_id, run.key = key.as_deref().map(cut), definition.name = resolved.name,
        run.status = status.as_str(), run.created = created, "the host accepted run {workflow_id} of {}", resolved.name
    );
    Ok(Submitted {
        workflow_id,
        definition: resolved.name.clone(),
        key,
        key_field: resolved.release.plan.trigger.as_ref().map(|trigger| trigger.key_field.clone()),
        accepted_at,
        status,
        created,
        previous,
        input,
        deadline: admitted.deadline,
        watch: admitted.watch,
    })
}

/// Returns the input as the workflow sees it, and its key.
fn fit(
    resolved: &Resolved,
    input: &Value,
    header: Option<&str>,
) -> Result<(Arc<Value>, Option<String>), Error> {
    let mismatches = resolved.check_input(input);
    if !mismatches.is_empty() {
        return Err(Error::Input(mismatches));
    }
    let normal = Arc::new(resolved.normalize(input.clone()));
    let key = agree(resolved.key(&normal).map_err(Error::Key)?, header.map(str::to_owned))?;
    Ok((normal, key))
}

/// Chooses the key. A definition with `keyed by` takes it from the input, and the header may repeat it.
fn agree(of_input: Option<String>, of_header: Option<String>) -> Result<Option<String>, Error> {
    let key = match (of_input, of_header) {
        (Some(key), Some(header)) if key != header => {
            let cut: String = header.chars().take(80).collect();
            return Err(Error::Key(format!("`Idempotency-Key` is `{cut}`, but the input's key is `{key}`")));
        }
        (of_input, of_header) => of_input.or(of_header),
    };
    match &key {
        Some(key) if key.is_empty() => Err(Error::Key("the key is empty".to_owned())),
        Some(key) if key.len() > MAX_KEY_BYTES => {
            Err(Error::Key(format!("the key has {} bytes; expected at most {MAX_KEY_BYTES}", key.len())))
        }
        Some(key) if key.contains('\0') => Err(Error::Key("the key contains a NUL character".to_owned())),
        _ => Ok(key),
    }
}

/// Returns the SHA-256 of the input as canonical JSON (RFC 8785). Two inputs are the same if their digests are.
/// Canonical JSON has only doubles, so integers that a double would round are written as texts.
fn digest(input: &Value) -> [u8; 32] {
    let canonical = serde_json_canonicalizer::to_vec(&with_safe_integers(input.clone()))
        .expect("a JSON value has a canonical form");
    Sha256::digest(canonical).into()
}
