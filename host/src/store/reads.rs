//! The reads of steps: keys that are asked for at the same time are read by one statement.

use std::collections::HashMap;
use std::time::Duration;

use aster_core::keyvalue::{Entry, Key, Version};
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::connections::{Connections, Line, in_time};

/// For one answer: a connection that is silent for longer is given up, and the steps that wait begin again.
const ANSWER: Duration = Duration::from_secs(3);
/// Keys in one statement.
const MAX_BATCH: usize = 256;
/// How long a read waits for a lock that somebody holds: clients read here, too.
const LOCKED: &str = "3s";
/// Questions that may wait before who asks does.
const QUEUE: usize = 1024;

/// Cheap to clone. The task ends with the last one.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    key: Key,
    answer: oneshot::Sender<Result<Entry, Error>>,
}

impl Reads {
    pub(super) fn start(connections: &Connections) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(run(connections.clone(), jobs));
        Self { queue }
    }

    /// What a key holds in the database.
    pub(super) async fn read(&self, key: Key) -> Result<Entry, Error> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::from(sqlx::Error::PoolClosed);
        self.queue.send(Job { key, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn run(connections: Connections, mut jobs: mpsc::Receiver<Job>) {
    let mut line = Line::for_lookups(&connections.pool).giving_up_locks_after(LOCKED);
    while let Some(first) = jobs.recv().await {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        let limit = connections.patience.answer.min(ANSWER);
        let answers = match line.take(limit).await {
            Ok(mut connection) => {
                let keys: Vec<&Key> = batch.iter().map(|job| &job.key).collect();
                let answers = in_time(limit, read(&mut connection, &keys)).await;
                line.keep(connection, &answers);
                answers
            }
            Err(error) => Err(error),
        };
        match answers {
            Ok(mut entries) => {
                for (i, job) in batch.into_iter().enumerate() {
                    let entry = entries.remove(&i).unwrap_or(Entry { version: Version::ABSENT, value: None });
                    // Who waited for it may have gone.
                    let _ = job.answer.send(Ok(entry));
                }
            }
            Err(error) => {
                let error = Error::from(error);
                batch.into_iter().for_each(|job| drop(job.answer.send(Err(error.clone()))));
            }
        }
    }
}

/// By their places in `keys`; what was never written is missing.
async fn read(connection: &mut PgConnection, keys: &[&Key]) -> Result<HashMap<usize, Entry>, sqlx::Error> {
    fn column<'a, T>(keys: &[&'a Key], of: impl Fn(&'a Key) -> T) -> Vec<T> {
        keys.iter().copied().map(of).collect()
    }
    let rows = sqlx::query!(
        r#"select k.ordinal as "ordinal!", e.value, e.version
        from unnest($1::text[], $2::text[], $3::text[], $4::text[])
            with ordinality as k (tenant, component, bucket, key, ordinal)
        join keyvalue_entry e
            on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key"#,
        &column(keys, |key| key.tenant.as_str()) as &[&str],
        &column(keys, |key| &*key.component) as &[&str],
        &column(keys, |key| &*key.bucket) as &[&str],
        &column(keys, |key| &*key.key) as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let place = |ordinal: i64| usize::try_from(ordinal).unwrap_or(0).wrapping_sub(1);
    Ok(rows
        .into_iter()
        .map(|row| (place(row.ordinal), Entry { version: Version(row.version), value: row.value }))
        .collect())
}
