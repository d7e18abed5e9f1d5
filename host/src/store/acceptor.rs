//! Runs that are submitted at the same time are accepted by one statement.
//!
//! What isn't simply a new run (its key is known, the registry has moved, Postgres has trouble with it) is left to who submits
//! it, and asked about alone: that is rare, and then the words of one run matter.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::accept::Prepared;
use super::connections::{Connections, Line, in_time};
use super::wire::Events;
use super::{instant, signed};

/// Runs in one statement.
const MAX_BATCH: usize = 256;
/// Of inputs.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// How long a batch waits for a lock that somebody holds, on one key or on all: after that its runs are accepted one by one, each
/// within its submitter's patience.
const LOCKED: &str = "1s";
/// Submissions that may wait before their submitters do.
const QUEUE: usize = 1024;

/// Cheap to clone. The task ends with the last one.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    run: Arc<Prepared>,
    /// Whether it is accepted.
    answer: oneshot::Sender<bool>,
}

impl Acceptor {
    pub(super) fn start(connections: &Connections) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(run(connections.clone(), jobs));
        Self { queue }
    }

    /// True if the run is accepted as a new one; else nothing is known of it.
    pub(super) async fn accept(&self, run: Arc<Prepared>) -> bool {
        let (answer, answered) = oneshot::channel();
        match self.queue.send(Job { run, answer }).await {
            Ok(()) => answered.await.unwrap_or(false),
            Err(_) => false,
        }
    }
}

async fn run(connections: Connections, mut jobs: mpsc::Receiver<Job>) {
    let mut line = Line::for_lookups(&connections.pool).giving_up_locks_after(LOCKED);
    let mut next = None;
    loop {
        let Some(first) = (match next.take() {
            Some(job) => Some(job),
            None => jobs.recv().await,
        }) else {
            return;
        };
        let mut bytes = first.run.run.input.len();
        let mut keys = HashSet::from([key(&first)]);
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && bytes < MAX_BATCH_BYTES
            && let Ok(job) = jobs.try_recv()
        {
            // The second run of a key waits for the first: then the key is known.
            if job.run.run.key.is_some() && !keys.insert(key(&job)) {
                next = Some(job);
                break;
            }
            bytes += job.run.run.input.len();
            batch.push(job);
        }
        // Whoever isn't waited for any more is told that nobody knows, and asks again.
        batch.retain(|job| !job.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        // A submitter whose batch has no answer in time has as much again to ask by itself.
        let limit = connections.patience.client / 2;
        let accepted = match line.take(limit).await {
            Ok(mut connection) => {
                let runs: Vec<&Prepared> = batch.iter().map(|job| &*job.run).collect();
                let accepted = in_time(limit, send(&mut connection, &runs)).await;
                line.keep(connection, &accepted);
                accepted
            }
            Err(error) => Err(error),
        };
        let accepted = accepted.unwrap_or_else(|error| {
            tracing::debug!(%error, runs = batch.len(), "runs are accepted one by one");
            vec![false; batch.len()]
        });
        for (job, accepted) in batch.into_iter().zip(accepted) {
            // Who waited for it may have gone.
            let _ = job.answer.send(accepted);
        }
    }
}

fn key(job: &Job) -> (String, String, Option<String>) {
    let run = &job.run.run;
    (run.tenant.as_str().to_owned(), run.definition.clone(), run.key.clone())
}

/// Of each run, whether it was accepted.
async fn send(connection: &mut PgConnection, runs: &[&Prepared]) -> Result<Vec<bool>, sqlx::Error> {
    fn column<'a, T>(runs: &[&'a Prepared], of: impl Fn(&'a Prepared) -> T) -> Vec<T> {
        runs.iter().copied().map(of).collect()
    }
    let counted_by = runs.iter().find_map(|run| run.owner).unwrap_or(Uuid::nil());
    let events = Events::of(runs.iter().map(|run| (0, &run.events[..])));
    let ordinals = sqlx::query_scalar!(
        r#"select accepted as "accepted!"
        from accept_runs(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            $20, $21, $22, $23
        ) as accepted"#,
        counted_by,
        &column(runs, |r| r.run.workflow_id.0) as &[Uuid],
        &column(runs, |r| r.run.tenant.as_str()) as &[&str],
        &column(runs, |r| r.run.definition.as_str()) as &[&str],
        &column(runs, |r| r.run.release.0) as &[i64],
        &column(runs, |r| r.run.generation) as &[i64],
        &column(runs, |r| r.run.key.as_deref()) as &[Option<&str>],
        &column(runs, |r| r.run.input.as_str()) as &[&str],
        &column(runs, |r| &r.run.input_digest[..]) as &[&[u8]],
        &column(runs, |r| instant(r.run.accepted_at)) as &[DateTime<Utc>],
        &column(runs, |r| instant(r.run.deadline)) as &[DateTime<Utc>],
        &column(runs, |r| r.status) as &[&str],
        &column(runs, |r| r.cause) as &[Option<&str>],
        &column(runs, |r| r.result.as_deref()) as &[Option<&str>],
        &column(runs, |r| r.error.as_deref()) as &[Option<&str>],
        &column(runs, |r| r.owner) as &[Option<Uuid>],
        &column(runs, |r| r.fence) as &[i64],
        &column(runs, |r| signed(r.events.len() as u64)) as &[i64],
        &column(runs, |r| r.wake_at) as &[Option<DateTime<Utc>>],
        &events.runs as &[i32],
        &events.sequences as &[i64],
        &events.types as &[&str],
        &events.payloads as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let mut accepted = vec![false; runs.len()];
    for ordinal in ordinals {
        let place = usize::try_from(ordinal).unwrap_or(0).checked_sub(1).and_then(|i| accepted.get_mut(i));
        *place.ok_or_else(|| sqlx::Error::Protocol("an accepted run isn't of the batch".to_owned()))? = true;
    }
    Ok(accepted)
}
