//! Tells the log how each run ended, in one line that can be read alone.

use aster_core::id::TenantId;
use aster_core::state::{Progress, RunState, Status};
use aster_core::time::Timestamp;
use tracing::{error, info, warn};

/// Longest text of a client or a guest that is put into a line of the log, in bytes.
const MAX_FOREIGN_BYTES: usize = 1_000;

/// What of a client's or guest's text is put into a line of the log.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_FOREIGN_BYTES)]
}

/// A run that is over, and when it ended.
#[derive(Debug)]
pub(crate) struct End<'r> {
    pub(crate) tenant: &'r TenantId,
    pub(crate) key: Option<&'r str>,
    pub(crate) state: &'r RunState,
    pub(crate) at: Timestamp,
}

impl End<'_> {
    /// INFO for a run that completed, WARN for one that failed, ERROR for one that needs an operator.
    pub(crate) fn tell(&self) {
        let Self { tenant, key, state, .. } = self;
        let (id, definition) = (state.accepted.workflow_id, state.accepted.definition.as_str());
        let key = key.map(cut);
        let status = state.status.as_str();
        let duration_ms = self.duration_ms();
        let Some(failed) = &state.failed else {
            info!(
                run.id = %id, run.key = key, tenant.id = %tenant, definition.name = definition,
                run.status = status, duration_ms, "run {id} of {definition} completed in {duration_ms} ms"
            );
            return;
        };
        let (code, message) = (failed.error.code.as_str(), cut(&failed.error.message));
        let (cause, step) = (failed.cause.as_str(), failed.step.as_deref());
        let at_step = step.map(|step| format!(" at step {step}")).unwrap_or_default();
        macro_rules! tell {
            ($level:ident, $($message:tt)+) => {
                $level!(
                    run.id = %id, run.key = key, tenant.id = %tenant, definition.name = definition,
                    run.status = status, run.cause = cause, step.name = step, error.code = code,
                    error.message = message, duration_ms, $($message)+
                )
            };
        }
        match state.status {
            Status::CompensationFailed => {
                let left = self.not_undone();
                tell!(
                    error,
                    compensation.failed = left,
                    "run {id} of {definition} failed{at_step} ({code}: {message}), and an operator has to decide about \
                     what could not be undone: {left}"
                );
            }
            Status::Compensated => tell!(
                warn,
                "run {id} of {definition} failed{at_step} ({code}: {message}), and everything is undone"
            ),
            _ => tell!(
                warn,
                "run {id} of {definition} failed{at_step} ({code}: {message}), and nothing was to be undone"
            ),
        }
    }

    /// Since the acceptance, whose instant the run's id begins with.
    fn duration_ms(&self) -> u64 {
        let accepted = self.state.accepted.workflow_id.0.get_timestamp();
        let (seconds, nanos) = accepted.map_or((0, 0), |at| at.to_unix());
        let accepted = seconds * 1_000 + u64::from(nanos / 1_000_000);
        u64::try_from(self.at.as_millis()).unwrap_or(0).saturating_sub(accepted)
    }

    fn not_undone(&self) -> String {
        let failed = self.state.undoing.iter().filter(|undo| matches!(undo.progress, Progress::Failed(_)));
        let failed = failed.map(|undo| match &undo.error {
            Some(error) => format!("{} ({}: {})", undo.step, error.code.as_str(), cut(&error.message)),
            None => undo.step.to_string(),
        });
        cut(&failed.collect::<Vec<_>>().join(", ")).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        assert_eq!(cut(&"ß".repeat(1_000)).len(), MAX_FOREIGN_BYTES);
        assert_eq!(cut(&"東".repeat(1_000)).len(), MAX_FOREIGN_BYTES - 1);
        assert_eq!(cut("short"), "short");
    }
}
