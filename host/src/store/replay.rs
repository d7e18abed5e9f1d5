//! Reading runs to go on with them: what was accepted, and the whole log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aster_core::id::WorkflowId;
use aster_core::journal::Replay;
use aster_core::state::Accepted;
use uuid::Uuid;

use super::{Error, RecordedEvent, Run, Store, count, signed, unsigned};
use crate::store::JsonText;

/// Longer logs are read by themselves, piece by piece.
const SHORT_LOG: u64 = 64;

/// Events read at once of a longer log.
const EVENTS_AT_ONCE: usize = 1_000;

impl Store {
    /// Reads runs as they stand. Only who owns a run knows that nobody else adds to its log. Each by itself may be damaged; one
    /// that isn't there is left out.
    pub async fn replay(
        &self,
        ids: &[WorkflowId],
    ) -> Result<Vec<(WorkflowId, Result<Replay, Error>)>, Error> {
        let runs = self.load_runs(ids).await?;
        let short: Vec<Uuid> = runs
            .iter()
            .filter(|run| (1..=SHORT_LOG).contains(&run.last_sequence))
            .map(|run| run.workflow_id.0)
            .collect();
        let mut logs = self.load_short_logs(&short).await?;
        let ordered = self.ordered(ids).await?;
        let mut replays = Vec::with_capacity(runs.len());
        for run in runs {
            let id = run.workflow_id;
            let events = match run.last_sequence {
                0..=SHORT_LOG => logs.remove(&id).unwrap_or_default(),
                _ => self.load_long_log(id).await?,
            };
            replays.push((id, replay(run, &events, ordered.contains(&id))));
        }
        Ok(replays)
    }

    /// Those of `ids` for which there are orders.
    async fn ordered(&self, ids: &[WorkflowId]) -> Result<HashSet<WorkflowId>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select distinct workflow_id from workflow_order where workflow_id = any ($1)",
                    &ids,
                )
                .fetch_all(connection)
            })
            .await?;
        Ok(rows.into_iter().map(WorkflowId).collect())
    }

    async fn load_short_logs(&self, ids: &[Uuid]) -> Result<HashMap<WorkflowId, Vec<RecordedEvent>>, Error> {
        let mut logs: HashMap<WorkflowId, Vec<RecordedEvent>> = HashMap::new();
        if ids.is_empty() {
            return Ok(logs);
        }
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select workflow_id, sequence, event_type, payload::text as "payload!", occurred_at
                    from workflow_events
                    where workflow_id = any ($1)
                        and sequence <= $2
                    order by workflow_id, sequence
                    limit $3"#,
                    ids,
                    signed(SHORT_LOG),
                    count(ids.len() * SHORT_LOG as usize),
                )
                .fetch_all(connection)
            })
            .await?;
        for row in rows {
            let workflow_id = WorkflowId(row.workflow_id);
            logs.entry(workflow_id).or_default().push(RecordedEvent {
                workflow_id,
                sequence: unsigned(row.sequence),
                event_type: row.event_type,
                payload: JsonText::of("an event", row.payload)?,
                occurred_at: row.occurred_at.into(),
            });
        }
        Ok(logs)
    }

    async fn load_long_log(&self, id: WorkflowId) -> Result<Vec<RecordedEvent>, Error> {
        let mut events = Vec::new();
        loop {
            let more = self.load_events(id, events.len() as u64 + 1, EVENTS_AT_ONCE).await?;
            events.extend(more.items);
            if !more.more {
                return Ok(events);
            }
        }
    }
}

/// Events that came after the run was read are not its yet.
fn replay(run: Run, events: &[RecordedEvent], ordered: bool) -> Result<Replay, Error> {
    let id = run.workflow_id;
    let last = events.partition_point(|event| event.sequence <= run.last_sequence);
    let events = &events[..last];
    let is_gapless = (1..).zip(events).all(|(sequence, event)| event.sequence == sequence);
    if !is_gapless || events.len() as u64 != run.last_sequence {
        let (found, last) = (events.len(), run.last_sequence);
        return Err(Error::corrupt(format!("run {id}: its log has {found} events, its row says {last}")));
    }
    let input = run.input.parse();
    let input = input.map_err(|error| Error::corrupt(format!("the input of run {id}: {error}")))?;
    Ok(Replay {
        tenant: run.tenant,
        key: run.key,
        accepted: Accepted {
            workflow_id: id,
            definition: run.definition,
            definition_digest: run.definition_digest,
            release: run.release.0,
            input: Arc::new(input),
            deadline: run.deadline,
        },
        events: events.iter().map(RecordedEvent::event).collect::<Result<_, _>>()?,
        ordered,
    })
}
