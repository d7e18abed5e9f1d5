//! A model of the database: what the statements of the store do, each as a whole.

use std::collections::{BTreeMap, BTreeSet};

use aster_core::event::Event;
use aster_core::id::{Fence, HostId, TenantId, WorkflowId};
use aster_core::journal::{Acceptance, ClaimedRun, Claims, Committed, NewRun, Ordered, Position, Replay};
use aster_core::keyvalue::{Entry, Key, Version};
use aster_core::order::Order;
use aster_core::state::{Accepted, Status};
use aster_core::time::Timestamp;
use aster_core::transition::{Driver, RunRecord, Transition};
use aster_runner::Error;
use uuid::Uuid;

use super::Bug;
use aster_runner::line::{Chain, Refusals};

#[derive(Debug, Default)]
pub struct Tables {
    pub runs: BTreeMap<WorkflowId, Row>,
    pub(crate) keys: BTreeMap<(String, String), (WorkflowId, [u8; 32])>,
    pub entries: BTreeMap<Key, Entry>,
    pub orders: BTreeMap<WorkflowId, Vec<Order>>,
    pub(crate) hosts: BTreeMap<HostId, HostRow>,
    /// Every statement that wrote key-value data, for the oracle: by which run, and with which events.
    pub(crate) effects: Vec<(WorkflowId, Vec<&'static str>)>,
    pub(crate) bug: Option<Bug>,
}

#[derive(Debug)]
pub struct Row {
    pub tenant: TenantId,
    key: Option<String>,
    pub accepted: Accepted,
    pub status: Status,
    /// What was written last of what a transition makes of a run; none before the first.
    pub record: Option<RunRecord>,
    pub owner: Option<HostId>,
    pub fence: Fence,
    pub last_sequence: u64,
    pub wake_at: Option<Timestamp>,
    pub host_lost: bool,
    pub accepted_at: Timestamp,
    /// The failed run from which it took the key.
    previous: Option<WorkflowId>,
    /// Each with its sequence, as a table without constraints would keep them.
    pub events: Vec<(u64, Event)>,
}

/// What a batch does with one key.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    key: Key,
    /// `None` means that the key is overwritten whatever it holds.
    read: Option<Version>,
    writes: i64,
    value: Option<Vec<u8>>,
}

impl From<&Chain> for Changed {
    fn from(chain: &Chain) -> Self {
        let Chain { key, read, writes, value, .. } = chain;
        Self { key: key.clone(), read: *read, writes: *writes, value: value.as_deref().map(<[u8]>::to_vec) }
    }
}

#[derive(Debug)]
pub(crate) struct HostRow {
    lease_ends_at: Timestamp,
    retired: bool,
    orderly: bool,
}

impl Tables {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn register_host(&mut self, lease_ends_at: Timestamp) -> HostId {
        let host = HostId(Uuid::from_u128(1 + self.hosts.len() as u128));
        self.enter_host(host, lease_ends_at);
        host
    }

    pub fn enter_host(&mut self, host: HostId, lease_ends_at: Timestamp) {
        self.hosts.insert(host, HostRow { lease_ends_at, retired: false, orderly: false });
    }

    pub(crate) fn renew_lease(&mut self, host: HostId, until: Timestamp) -> Result<(), Error> {
        match self.hosts.get_mut(&host) {
            Some(row) if !row.retired => {
                row.lease_ends_at = until;
                Ok(())
            }
            _ => Err(Error::HostRetired),
        }
    }

    pub fn retire_host(&mut self, host: HostId, now: Timestamp) -> u64 {
        if let Some(row) = self.hosts.get_mut(&host).filter(|row| !row.retired) {
            row.retired = true;
            row.orderly = true;
        }
        self.release(now, usize::MAX)
    }

    /// `silent_before`: when the lease of a host must have ended for it to be taken for dead.
    pub fn fence_off(&mut self, silent_before: Timestamp, now: Timestamp, limit: usize) -> u64 {
        let hasty = self.has(Bug::LeaseIsIgnored);
        for row in self.hosts.values_mut().filter(|row| !row.retired) {
            row.retired = row.lease_ends_at < silent_before || hasty;
        }
        self.release(now, limit)
    }

    fn release(&mut self, now: Timestamp, limit: usize) -> u64 {
        let mut released = 0;
        for row in self.runs.values_mut() {
            let owner = row.owner.and_then(|owner| self.hosts.get(&owner)).filter(|owner| owner.retired);
            let Some(owner) = owner else { continue };
            if released as usize >= limit {
                break;
            }
            row.host_lost |= !owner.orderly;
            row.owner = None;
            row.fence.0 += 1;
            row.wake_at = Some(now);
            released += 1;
        }
        released
    }

    pub fn accept(&mut self, run: &NewRun) -> Acceptance {
        let mut previous = None;
        if let Some(key) = &run.key {
            let place = (run.definition.clone(), key.clone());
            let newest = self.keys.get(&place).map(|(id, _)| *id);
            if newest == Some(run.workflow_id) {
                return Acceptance::New { previous: self.runs[&run.workflow_id].previous };
            }
            match self.known(&place, &run.input_digest) {
                Ok(known) => return known,
                Err(failed) => previous = failed,
            }
            self.keys.insert(place, (run.workflow_id, run.input_digest));
        }
        if self.runs.contains_key(&run.workflow_id) {
            return Acceptance::New { previous };
        }
        let start = run.start.as_ref();
        let (owner, wake_at) = match start.map(|start| (start.host, start.run.driver)) {
            None => (None, Some(run.accepted_at)),
            Some((host, Driver::Owner)) => (Some(host), None),
            Some((_, Driver::ClaimableAt(at))) => (None, Some(at)),
            Some((_, Driver::Nobody)) => (None, None),
        };
        let events: Vec<_> = (1..).zip(start.iter().flat_map(|start| start.events.iter().cloned())).collect();
        let row = Row {
            tenant: run.tenant.clone(),
            key: run.key.clone(),
            accepted: Accepted {
                workflow_id: run.workflow_id,
                definition: run.definition.clone(),
                definition_digest: super::plans::DIGEST,
                release: run.release.0,
                input: std::sync::Arc::new(serde_json::from_str(&run.input).unwrap_or_default()),
                deadline: run.deadline,
            },
            status: start.map_or(Status::Ready, |start| start.run.status),
            record: start.map(|start| start.run.clone()),
            owner,
            fence: start.map_or(Fence(0), |_| NewRun::FIRST_FENCE),
            last_sequence: events.len() as u64,
            wake_at,
            host_lost: false,
            accepted_at: run.accepted_at,
            previous,
            events,
        };
        self.runs.insert(run.workflow_id, row);
        Acceptance::New { previous }
    }

    /// The answer for a key that has a run; else the failed run from which it may be taken, if there is one.
    pub(crate) fn known(
        &self,
        place: &(String, String),
        input_digest: &[u8; 32],
    ) -> Result<Acceptance, Option<WorkflowId>> {
        let newest = self.keys.get(place).filter(|_| !self.has(Bug::KeysAreForgotten));
        let Some((id, digest)) = newest else { return Err(None) };
        let Row { status, accepted_at, previous, .. } = self.runs[id];
        match status {
            _ if digest == input_digest => {
                Ok(Acceptance::Existing { workflow_id: *id, status, accepted_at, previous })
            }
            Status::Failed | Status::Compensated => Err(Some(*id)),
            _ => Ok(Acceptance::KeyReused { workflow_id: *id, status }),
        }
    }

    /// One transition by itself, as a batch of one.
    pub fn commit(&mut self, host: HostId, transition: &Transition) -> Result<Committed, Error> {
        let effects = &transition.effects;
        let version = |key: &Key| effects.reads.iter().find(|read| read.key == *key).map(|read| read.version);
        let written = effects.writes.iter().map(|write| Changed {
            key: write.key.clone(),
            read: version(&write.key),
            writes: 1,
            value: write.value.clone(),
        });
        let mut keys: Vec<Changed> = written.collect();
        for read in &effects.reads {
            if keys.iter().all(|changed| changed.key != read.key) {
                let key = read.key.clone();
                keys.push(Changed { key, read: Some(read.version), writes: 0, value: None });
            }
        }
        let mut refusals = self.append(host, std::slice::from_ref(transition), &keys);
        if let Some((_, error)) = refusals.runs.pop() {
            return Err(error);
        }
        if !refusals.keys.is_empty() {
            return Err(Error::Conflict { keys: refusals.keys.into_iter().collect() });
        }
        Ok(Committed { fence: self.runs[&transition.workflow_id].fence })
    }

    /// A batch of transitions, no two of one run, and what they do together with each key: all of it or nothing.
    pub(crate) fn append(&mut self, host: HostId, transitions: &[Transition], keys: &[Changed]) -> Refusals {
        let mut refusals = Refusals::default();
        for (i, transition) in transitions.iter().enumerate() {
            if let Err(error) = self.may_append(host, transition) {
                refusals.runs.push((i, error));
            }
        }
        let version = |key: &Key| self.entries.get(key).map_or(Version::ABSENT, |entry| entry.version);
        let stale =
            keys.iter().filter(|changed| changed.read.is_some_and(|read| version(&changed.key) != read));
        refusals.keys = stale.map(|changed| changed.key.clone()).collect();
        if self.has(Bug::StaleReadsAreTaken) {
            refusals.keys.clear();
        }
        if !refusals.runs.is_empty() || !refusals.keys.is_empty() {
            return refusals;
        }
        for Changed { key, writes, value, .. } in keys.iter().filter(|changed| changed.writes > 0) {
            let absent = Entry { version: Version::ABSENT, value: None };
            let entry = self.entries.entry(key.clone()).or_insert(absent);
            entry.version.0 += writes;
            entry.value.clone_from(value);
        }
        transitions.iter().for_each(|transition| self.append_one(transition));
        refusals
    }

    fn may_append(&self, host: HostId, transition: &Transition) -> Result<(), Error> {
        let id = transition.workflow_id;
        let row = self.runs.get(&id).ok_or_else(|| Error::NotFound { what: format!("run {id}") })?;
        let is_owner = row.fence == transition.fence && row.owner == Some(host);
        let is_next = row.last_sequence == transition.last_sequence;
        match (is_owner && is_next) || self.has(Bug::FenceIsIgnored) {
            true => Ok(()),
            false => Err(Error::NotOwner { held: transition.fence, current: row.fence }),
        }
    }

    fn append_one(&mut self, transition: &Transition) {
        let id = transition.workflow_id;
        if !transition.effects.writes.is_empty() {
            let kinds = transition.events.iter().map(Event::event_type).collect();
            self.effects.push((id, kinds));
        }
        // A host that writes whatever it doesn't own knows nothing of the row.
        let is_quiet = transition.is_quiet && !self.has(Bug::FenceIsIgnored);
        let Some(row) = self.runs.get_mut(&id) else { return };
        if is_quiet {
            assert!(!row.host_lost, "{transition:?} forgets that a host was lost");
            assert_eq!(row.record.as_ref(), Some(&transition.run), "{transition:?} changes its row");
        }
        row.record = Some(transition.run.clone());
        row.events.extend((transition.last_sequence + 1..).zip(transition.events.iter().cloned()));
        row.last_sequence = transition.last_sequence + transition.events.len() as u64;
        row.status = transition.run.status;
        row.host_lost = false;
        match transition.run.driver {
            Driver::Owner => row.wake_at = None,
            Driver::ClaimableAt(at) => row.give_up(Some(at)),
            Driver::Nobody => row.give_up(None),
        }
    }

    /// A bug: wherever the logs end by now.
    pub(crate) fn append_again(
        &mut self,
        host: HostId,
        mut transitions: Vec<Transition>,
        keys: &[Changed],
    ) -> Refusals {
        for transition in &mut transitions {
            if let Some(row) = self.runs.get(&transition.workflow_id) {
                transition.last_sequence = row.last_sequence;
            }
        }
        self.append(host, &transitions, keys)
    }

    /// As `store::commit::settle` does it.
    pub fn settle(&mut self, host: HostId, id: WorkflowId, held: Fence) -> Result<Position, Error> {
        let row = self.runs.get_mut(&id).ok_or_else(|| Error::NotFound { what: format!("run {id}") })?;
        if row.fence == held && row.owner == Some(host) {
            row.fence.0 += 1;
        }
        Ok(Position { fence: row.fence, owner: row.owner, last_sequence: row.last_sequence })
    }

    pub fn claim(&mut self, host: HostId, limit: usize, now: Timestamp) -> Claims {
        let mut due: Vec<(Timestamp, WorkflowId)> = self
            .runs
            .iter()
            .filter_map(|(id, row)| row.wake_at.filter(|at| *at <= now).map(|at| (at, *id)))
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        if self.hosts.get(&host).is_none_or(|row| row.retired) {
            return Claims { seen: due.len(), runs: Vec::new() };
        }
        let mut claimed = Vec::with_capacity(due.len());
        for (_, id) in &due {
            let Some(row) = self.runs.get_mut(id) else { continue };
            row.owner = Some(host);
            row.fence.0 += 1;
            row.wake_at = None;
            claimed.push(ClaimedRun { workflow_id: *id, fence: row.fence, host_lost: row.host_lost });
        }
        Claims { seen: due.len(), runs: claimed }
    }

    /// The run's row, if it is the host's under that fence.
    fn owned_row(&mut self, host: HostId, id: WorkflowId, held: Fence) -> Result<&mut Row, Error> {
        let row = self.runs.get_mut(&id).ok_or_else(|| Error::NotFound { what: format!("run {id}") })?;
        match row.owner == Some(host) && row.fence == held {
            true => Ok(row),
            false => Err(Error::NotOwner { held, current: row.fence }),
        }
    }

    pub fn hand_back(
        &mut self,
        host: HostId,
        id: WorkflowId,
        held: Fence,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.owned_row(host, id, held)?.give_up(Some(at));
        Ok(())
    }

    pub fn adopt(&mut self, host: HostId, id: WorkflowId, held: Fence) -> Result<Fence, Error> {
        let row = self.owned_row(host, id, held)?;
        row.fence.0 += 2;
        Ok(row.fence)
    }

    pub(crate) fn owned(&self, host: HostId) -> Vec<(WorkflowId, Fence)> {
        let owned = self.runs.iter().filter(|(_, row)| row.owner == Some(host));
        owned.map(|(id, row)| (*id, row.fence)).collect()
    }

    pub(crate) fn replay(&self, ids: &[WorkflowId]) -> Vec<(WorkflowId, Result<Replay, Error>)> {
        let runs = ids.iter().filter_map(|id| Some((*id, self.runs.get(id)?)));
        runs.map(|(id, row)| {
            let events = row.events.iter().map(|(_, event)| event.clone()).collect();
            let ordered = self.orders.contains_key(&id);
            (
                id,
                Ok(Replay {
                    tenant: row.tenant.clone(),
                    key: row.key.clone(),
                    accepted: row.accepted.clone(),
                    events,
                    ordered,
                }),
            )
        })
        .collect()
    }

    pub fn order(&mut self, id: WorkflowId, order: Order, now: Timestamp) -> Option<Ordered> {
        use aster_core::order::What;
        let row = self.runs.get_mut(&id)?;
        let taken = match order.what {
            What::Cancel => !row.status.is_over(),
            _ => matches!(row.status, Status::Compensating | Status::CompensationFailed),
        };
        if taken {
            self.orders.entry(id).or_default().push(order);
            if row.owner.is_none() {
                row.wake_at = Some(row.wake_at.map_or(now, |at| at.min(now)));
            }
        }
        Some(Ordered { taken, status: row.status })
    }

    pub fn forget_order(&mut self, id: WorkflowId, order_id: Uuid) {
        if let Some(orders) = self.orders.get_mut(&id) {
            orders.retain(|order| order.author.order_id != Some(order_id));
            if orders.is_empty() {
                self.orders.remove(&id);
            }
        }
    }

    pub fn ordered_runs(&self, host: HostId, limit: usize) -> Vec<WorkflowId> {
        let ordered = self.orders.keys().filter(|id| self.runs[id].owner == Some(host));
        ordered.take(limit).copied().collect()
    }

    pub fn settle_stray_orders(&mut self, now: Timestamp) -> u64 {
        let ids: BTreeSet<WorkflowId> = self.orders.keys().copied().collect();
        let mut woken = 0;
        for id in ids {
            if self.has(Bug::StrayOrdersAreLeft) {
                break;
            }
            let Some(row) = self.runs.get_mut(&id) else { continue };
            let is_open = !row.status.is_over() || row.status == Status::CompensationFailed;
            if !is_open {
                self.orders.remove(&id);
            } else if row.owner.is_none() && row.wake_at.is_none_or(|at| at > now) {
                row.wake_at = Some(now);
                woken += 1;
            }
        }
        woken
    }
}

impl Row {
    fn give_up(&mut self, wake_at: Option<Timestamp>) {
        self.owner = None;
        self.fence.0 += 1;
        self.wake_at = wake_at;
    }
}
