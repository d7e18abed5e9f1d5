//! What becomes of a batch whose answer was lost. Nothing is sent again.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Batch, Committed, Error, Job, LONGEST_PAUSE, PAUSE, Prepared, Queue, Wire};

/// Answers the transitions of a batch by where their runs stand. Asks until it knows, or until nobody waits for the answer
/// any more.
///
/// The statement was all or nothing, so the first run that tells for sure speaks for all of them. Its fence has been raised
/// if it was not committed: a statement that is still on its way meets that and is refused as a whole.
pub(super) async fn settle<W: Wire>(wire: Arc<W>, queue: Arc<Queue<W::Payload>>, batch: Batch<W::Payload>) {
    let mut committed = None;
    for mut job in batch.in_line_order() {
        let answer = match committed {
            Some(true) => Ok(job.transition.committed()),
            Some(false) => Err(Error::NotCommitted { fence: job.transition.fence }),
            None => tokio::select! {
                biased;
                answer = settle_one(&*wire, &job.transition) => answer,
                () = job.answer.closed() => {
                    abandon(&queue, job);
                    continue;
                }
            },
        };
        // Without events, or after another host's takeover, a run doesn't tell what became of the statement.
        if job.transition.has_events() && committed.is_none() {
            committed = match answer {
                Ok(_) => Some(true),
                Err(Error::NotCommitted { .. }) => Some(false),
                Err(_) => None,
            };
        }
        let mut state = queue.state();
        match answer {
            Ok(answer) => state.committed_as(job, answer),
            Err(error) => state.refuse_job(job, error),
        }
    }
    queue.settled.notify_waiters();
    queue.changed.notify_one();
}

/// Gives up on a transition whose driver is gone: whether it was committed stays unknown, so what it wrote is forgotten.
fn abandon<P>(queue: &Queue<P>, job: Job<P>) {
    let mut state = queue.state();
    for key in job.transition.keys.iter().filter(|key| key.write.is_some()) {
        state.entries.forget(&key.key);
    }
    state.refuse_job(job, Error::Conflict { keys: Vec::new() });
}

async fn settle_one<W: Wire>(wire: &W, transition: &Prepared<W::Payload>) -> Result<Committed, Error> {
    let Prepared { host, workflow_id, fence, .. } = *transition;
    let mut pause = PAUSE;
    loop {
        match wire.settle(host, workflow_id, fence).await {
            Ok(settled) => return transition.settled(settled),
            Err(gone @ (Error::NotOwner { .. } | Error::NotFound { .. })) => return Err(gone),
            Err(error) => {
                tracing::debug!(run.id = %workflow_id, %error, "could not settle a commit: tries again");
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}
