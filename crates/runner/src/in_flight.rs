//! The attempts of a run that are in flight. The first one runs on the run's own task. Only those beside it get tasks of their own,
//! so that the steps of a parallel section use several processors.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use aster_core::keyvalue::{Effects, Key};
use aster_core::saga::Attempt;
use futures_util::FutureExt as _;
use tokio::task::{AbortHandle, JoinSet};
use tracing::error;

use crate::attempt::AttemptOutcome;
use crate::drive::{Finished, Touched};

type Own = Pin<Box<dyn Future<Output = std::thread::Result<Finished>> + Send>>;

/// Dropping it interrupts them all.
#[derive(Default)]
pub(crate) struct InFlight {
    own: Option<(Attempt, Own)>,
    tasks: JoinSet<Finished>,
    handles: BTreeMap<Attempt, AbortHandle>,
    /// Of the attempts that are to run again.
    pub(crate) touched: BTreeMap<Attempt, Touched>,
}

impl InFlight {
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.handles.is_empty()
    }

    pub(crate) fn has(&self, attempt: &Attempt) -> bool {
        self.own.as_ref().is_some_and(|(own, _)| own == attempt) || self.handles.contains_key(attempt)
    }

    pub(crate) fn begin(&mut self, run: impl Future<Output = Finished> + Send + 'static, attempt: &Attempt) {
        if self.own.is_none() {
            let run = AssertUnwindSafe(run).catch_unwind();
            self.own = Some((attempt.clone(), Box::pin(run)));
            return;
        }
        let handle = self.tasks.spawn(run);
        self.handles.insert(attempt.clone(), handle);
    }

    /// The next attempt that ends; waits forever if none is in flight.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: all go on.
    pub(crate) async fn next(&mut self) -> Finished {
        loop {
            let Self { own, tasks, handles, .. } = self;
            let own_run = async {
                match own {
                    Some((_, run)) => run.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                finished = own_run => {
                    let attempt = self.own.take().map(|(attempt, _)| attempt);
                    match (finished, attempt) {
                        (Ok(finished), _) => return finished,
                        (Err(_), Some(attempt)) => return panicked(attempt),
                        (Err(_), None) => {}
                    }
                }
                Some(joined) = tasks.join_next() => match joined {
                    // An interrupted attempt may have come back just before.
                    Ok(finished) if handles.remove(&finished.0).is_some() => return finished,
                    Ok(_) => {}
                    Err(failed) => {
                        let whose = handles.iter().find(|(_, handle)| handle.id() == failed.id());
                        if let Some(attempt) = whose.map(|(attempt, _)| attempt.clone())
                            && failed.is_panic()
                        {
                            handles.remove(&attempt);
                            return panicked(attempt);
                        }
                    }
                },
            }
        }
    }

    /// Interrupts all others.
    pub(crate) fn keep_only(&mut self, wanted: &[&Attempt]) {
        if self.own.as_ref().is_some_and(|(own, _)| !wanted.contains(&own)) {
            self.own = None;
        }
        self.handles.retain(|attempt, handle| {
            let is_wanted = wanted.contains(&attempt);
            if !is_wanted {
                handle.abort();
            }
            is_wanted
        });
        self.touched.retain(|attempt, _| wanted.contains(&attempt));
    }

    /// Lets an attempt that has ended run again, when its turn comes at what it has touched.
    pub(crate) fn rerun(&mut self, attempt: &Attempt, stale: Vec<Key>, effects: &Effects) {
        let touched = stale.into_iter().chain(effects.keys().cloned()).collect();
        self.touched.insert(attempt.clone(), touched);
    }
}

fn panicked(attempt: Attempt) -> Finished {
    error!(step.name = %attempt.step, "the host panicked while it ran a step");
    (attempt, AttemptOutcome::panicked(), None)
}
