//! What becomes of a batch whose answer was lost. Nothing is sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::{Batch, Committed, Error, Job, LONGEST_PAUSE, PAUSE, Queue, Wire};

/// How long one run is waited for before another one is asked beside it. A run's row may be locked.
const HEDGE: Duration = Duration::from_millis(100);
/// Runs that are asked beside each other, each over a connection of the pool.
const AT_ONCE: usize = 3;

/// A transition whose fate is unknown.
struct Unsettled<P> {
    job: Job<P>,
    /// Whether its run was asked. The question may arrive late and raise the fence, so only its answer counts then.
    was_asked: bool,
    pause: Duration,
}

/// Answers the transitions of a batch by where their runs stand. Asks until it knows, or until nobody waits for the answer
/// any more.
///
/// The statement was all or nothing, so the first run that tells for sure speaks for all that weren't asked. Its fence has
/// been raised if it was not committed: a statement that is still on its way meets that and is refused as a whole.
pub(super) async fn settle<W: Wire>(wire: Arc<W>, queue: Arc<Queue<W::Payload>>, batch: Batch<W::Payload>) {
    let jobs = batch.in_line_order().into_iter();
    let mut todo: VecDeque<_> = jobs.map(|job| Unsettled { job, was_asked: false, pause: PAUSE }).collect();
    let mut asked = FuturesUnordered::new();
    let mut committed = None;
    loop {
        if let Some(is_committed) = committed {
            for _ in 0..todo.len() {
                let Some(unsettled) = todo.pop_front() else { break };
                match unsettled.was_asked {
                    true => todo.push_back(unsettled),
                    false => answer(&queue, unsettled.job, |job| match is_committed {
                        true => Ok(job.transition.committed()),
                        false => Err(Error::NotCommitted { fence: job.transition.fence }),
                    }),
                }
            }
        }
        if asked.len() < AT_ONCE
            && let Some(next) = todo.pop_front()
        {
            asked.push(ask(&*wire, next));
        }
        let told = match timeout(HEDGE, asked.next()).await {
            Ok(Some(told)) => told,
            Ok(None) => break,
            Err(_) => continue,
        };
        match told {
            Told::For(job, outcome) => {
                // Without events, or after another host's takeover, a run doesn't tell what became of the statement.
                if job.transition.has_events() && committed.is_none() {
                    committed = match outcome {
                        Ok(_) => Some(true),
                        Err(Error::NotCommitted { .. }) => Some(false),
                        Err(_) => None,
                    };
                }
                answer(&queue, job, |_| outcome);
            }
            Told::Nothing(unsettled) if unsettled.job.answer.is_closed() => abandon(&queue, unsettled.job),
            Told::Nothing(unsettled) => todo.push_back(unsettled),
        }
    }
}

enum Told<P> {
    For(Job<P>, Result<Committed, Error>),
    Nothing(Unsettled<P>),
}

/// Asks once where a run stands.
async fn ask<W: Wire>(wire: &W, mut unsettled: Unsettled<W::Payload>) -> Told<W::Payload> {
    let transition = &unsettled.job.transition;
    let (run, held) = (transition.workflow_id, transition.fence);
    match wire.settle(transition.host, run, held).await {
        Ok(position) => {
            let outcome = transition.settled(position);
            Told::For(unsettled.job, outcome)
        }
        Err(gone @ Error::NotFound { .. }) => Told::For(unsettled.job, Err(gone)),
        Err(error) => {
            tracing::debug!(run.id = %run, %error, "could not settle a commit: tries again");
            sleep(unsettled.pause).await;
            unsettled.was_asked = true;
            unsettled.pause = (2 * unsettled.pause).min(LONGEST_PAUSE);
            Told::Nothing(unsettled)
        }
    }
}

fn answer<P>(queue: &Queue<P>, job: Job<P>, outcome: impl FnOnce(&Job<P>) -> Result<Committed, Error>) {
    let outcome = outcome(&job);
    {
        let mut state = queue.state();
        match outcome {
            Ok(committed) => state.committed_as(job, committed),
            Err(error) => state.refuse_job(job, error),
        }
    }
    wake(queue);
}

/// Gives up on a transition whose driver is gone: whether it was committed stays unknown, so what it wrote is forgotten.
fn abandon<P>(queue: &Queue<P>, job: Job<P>) {
    {
        let mut state = queue.state();
        for key in job.transition.keys.iter().filter(|key| key.write.is_some()) {
            state.entries.forget(&key.key);
        }
        state.refuse_job(job, Error::Conflict { keys: Vec::new() });
    }
    wake(queue);
}

/// Lets reads and the writer look again.
fn wake<P>(queue: &Queue<P>) {
    queue.settled.notify_waiters();
    queue.changed.notify_one();
}
