//! Which transitions go together in one statement, and what that does with each key.

use std::collections::{HashMap, HashSet};

use aster_core::id::{HostId, WorkflowId};
use aster_core::keyvalue::{Key, Version};

use super::entries::{Entries, Standing, Ticket};
use super::{Prepared, Value};
use crate::Error;

/// What a batch does with one key: its transitions one after the other.
#[derive(Clone, Debug)]
pub struct Chain {
    pub key: Key,
    /// What the first one has read. `None` means that the key is overwritten whatever it holds.
    pub read: Option<Version>,
    pub writes: i64,
    /// What the last one writes.
    pub value: Value,
    /// The last one that writes the key.
    ticket: Ticket,
}

/// Why a batch wasn't committed.
#[derive(Debug, Default)]
pub struct Refusals {
    /// By their places in the batch.
    pub runs: Vec<(usize, Error)>,
    /// The keys whose versions aren't those that were read.
    pub keys: HashSet<Key>,
    /// What was in the way is gone.
    pub again: bool,
}

impl Refusals {
    pub(super) fn is_none(&self) -> bool {
        self.runs.is_empty() && self.keys.is_empty() && !self.again
    }
}

/// A batch as it grows.
#[derive(Debug, Default)]
pub(super) struct Plan {
    chains: HashMap<Key, Chain>,
    runs: HashSet<WorkflowId>,
    host: Option<HostId>,
}

/// Whether a transition can go with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Taken,
    /// Not with this one.
    Later,
    /// It has read what was never committed, or isn't there any more.
    Stale(Vec<Key>),
}

impl Plan {
    /// Takes a transition into the batch, behind those that it has already, and notes in it which versions its keys will
    /// have.
    pub(super) fn take<P>(&mut self, transition: &mut Prepared<P>, ticket: Ticket, entries: &Entries) -> Fit {
        if self.host.is_some_and(|host| host != transition.host)
            || self.runs.contains(&transition.workflow_id)
        {
            return Fit::Later;
        }
        let mut stale = Vec::new();
        let mut reads = Vec::with_capacity(transition.keys.len());
        for key in &transition.keys {
            let chain = self.chains.get(&key.key);
            let standing = key.read.map(|read| entries.standing_of(&key.key, read));
            match (standing, chain) {
                (Some(Standing::Gone), _) => stale.push(key.key.clone()),
                (Some(Standing::OnTheWay(read)), Some(chain)) if chain.ticket == read => reads.push(None),
                (Some(Standing::OnTheWay(_)), _) => return Fit::Later,
                (Some(Standing::Committed(read)), Some(chain)) => match chain.writes {
                    0 if chain.read == Some(read) => reads.push(None),
                    // One of the two is stale, and the database knows which.
                    0 => return Fit::Later,
                    _ => stale.push(key.key.clone()),
                },
                (Some(Standing::Committed(read)), None) => reads.push(Some(read)),
                (None, _) => reads.push(None),
            }
        }
        if !stale.is_empty() {
            return Fit::Stale(stale);
        }
        self.host = Some(transition.host);
        self.runs.insert(transition.workflow_id);
        for (key, read) in transition.keys.iter_mut().zip(reads) {
            let chain = self.chains.entry(key.key.clone()).or_insert_with(|| Chain {
                key: key.key.clone(),
                read,
                writes: 0,
                value: None,
                ticket: Ticket::default(),
            });
            if let Some(value) = &key.write {
                chain.writes += 1;
                chain.value = value.clone();
                chain.ticket = ticket;
                key.written = chain.read.map(|read| Version(read.0 + chain.writes));
            }
        }
        Fit::Taken
    }

    /// In the order in which every batch locks them.
    pub(super) fn into_chains(self) -> Vec<Chain> {
        let mut chains: Vec<Chain> = self.chains.into_values().collect();
        chains.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        chains
    }
}
