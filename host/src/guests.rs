//! The code of steps, as the runner calls it: components of the registry, run in the sandbox.

use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Failure, FailureCode};
use aster_core::id::ReleaseId;
use aster_runner::Error;
use aster_runner::call::{CallReport, Output};
use aster_runner::ports::{Asked, Called, Guests, Release};
use async_trait::async_trait;

use crate::registry::{self, Registry};
use crate::sandbox::{Call, Sandbox};

/// A release of the registry as the runner sees it.
pub(crate) fn pinned(release: &Arc<registry::Release>) -> Release {
    let code = Arc::<registry::Release>::clone(release);
    Release { id: release.id, plan: Arc::clone(&release.plan), code }
}

/// Components of the registry, run in the sandbox.
#[derive(Debug)]
pub(crate) struct Sandboxed {
    pub(crate) registry: Registry,
    pub(crate) sandbox: Sandbox,
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
