//! What this host knows of key-value entries without asking the database: what transitions in line will write, what depends on
//! what, and what was committed or read last.
//!
//! Nothing here is the truth. A step may read what another one has written whose commit isn't answered yet. The version of that
//! value is *tentative*: the negated ticket of that commit. It stands for the version that the entry will have if the commit is
//! made. A commit that depends on a refused one is refused with it, whatever versions the database has meanwhile. The database
//! notices what another host has committed: it compares the versions that were read.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use aster_core::keyvalue::{Entry, Key, Version};
use tokio::time::Instant;

use super::{KeyUse, Value};

/// A commit's place in line, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) i64);

impl Ticket {
    /// The version that a step sees which reads what this commit writes.
    fn tentative(self) -> Version {
        Version(-self.0)
    }

    fn of_tentative(version: Version) -> Option<Self> {
        (version.0 < 0).then_some(Self(-version.0))
    }
}

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The writes of each key that aren't answered yet, in line order.
    on_the_way: HashMap<Key, VecDeque<(Ticket, Value)>>,
    /// The commits with keys that aren't answered yet.
    open: HashMap<Ticket, Open>,
    /// Those of them whose answer was lost, and since when.
    settling: HashMap<Ticket, Instant>,
    committed: Generations,
    /// A planted bug: see [`super::Options`].
    #[cfg(any(test, feature = "simulation"))]
    leaves_followers: bool,
}

/// A commit that isn't answered yet, among those that it depends on and that depend on it.
#[derive(Debug, Default)]
struct Open {
    /// Commits whose tentative values it has read.
    depends_on: Vec<Ticket>,
    /// Commits that have read its tentative values.
    followers: Vec<Ticket>,
}

/// The version that a step has read, as it stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Committed(Version),
    /// Written by a commit that isn't answered yet.
    OnTheWay(Ticket),
    /// Its commit was refused, or its version isn't known any more.
    Gone,
}

/// What a step sees that reads a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Known(Entry),
    /// The database has to be asked.
    Unknown,
    /// Its newest write depends on a commit that is being settled.
    Suspended,
}

impl Entries {
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn leaving_followers(self, leaves_followers: bool) -> Self {
        Self { leaves_followers, ..self }
    }

    pub(super) fn read(&self, key: &Key) -> Reading {
        let (version, value) = match self.on_the_way.get(key).and_then(VecDeque::back) {
            Some((ticket, _)) if self.is_suspended(*ticket) => return Reading::Suspended,
            Some((ticket, value)) => (ticket.tentative(), value),
            None => match self.committed.get(key) {
                Some(known) => (known.version, &known.value),
                None => return Reading::Unknown,
            },
        };
        Reading::Known(Entry { version, value: value.as_deref().map(<[u8]>::to_vec) })
    }

    /// Whether a commit is being settled, or depends on one that is.
    fn is_suspended(&self, ticket: Ticket) -> bool {
        if self.settling.is_empty() || self.leaves_followers() {
            return false;
        }
        let mut seen = HashSet::from([ticket]);
        let mut todo = vec![ticket];
        while let Some(ticket) = todo.pop() {
            if self.settling.contains_key(&ticket) {
                return true;
            }
            let open = self.open.get(&ticket);
            todo.extend(open.iter().flat_map(|open| &open.depends_on).filter(|on| seen.insert(**on)));
        }
        false
    }

    /// Remembers what the database has answered, unless something newer is known.
    pub(super) fn learn(&mut self, key: &Key, entry: &Entry) {
        if self.committed.get(key).is_none_or(|known| known.version < entry.version) {
            let known =
                Known { version: entry.version, ticket: None, value: entry.value.as_deref().map(Arc::from) };
            self.committed.insert(key.clone(), known);
        }
    }

    /// Forgets a key that another host or an operator has written.
    pub(super) fn forget(&mut self, key: &Key) {
        self.committed.remove(key);
    }

    /// The keys that were read in a version that is known not to be the newest any more.
    pub(super) fn stale(&self, keys: &[KeyUse]) -> Vec<Key> {
        let is_stale = |key: &&KeyUse| {
            let Some(read) = key.read else { return false };
            let newest = self.on_the_way.get(&key.key).and_then(VecDeque::back);
            match (newest, Ticket::of_tentative(read)) {
                (Some((newest, _)), Some(ticket)) => ticket != *newest,
                (Some(_), None) => true,
                (None, Some(ticket)) => self.standing(&key.key, ticket) == Standing::Gone,
                (None, None) => self.committed.get(&key.key).is_some_and(|known| known.version > read),
            }
        };
        keys.iter().filter(is_stale).map(|key| key.key.clone()).collect()
    }

    /// What a version that a step has read stands for.
    pub(super) fn standing_of(&self, key: &Key, read: Version) -> Standing {
        match Ticket::of_tentative(read) {
            Some(ticket) => self.standing(key, ticket),
            None => Standing::Committed(read),
        }
    }

    fn standing(&self, key: &Key, ticket: Ticket) -> Standing {
        if self.open.contains_key(&ticket) {
            return Standing::OnTheWay(ticket);
        }
        match self.committed.get(key) {
            Some(known) if known.ticket == Some(ticket) => Standing::Committed(known.version),
            _ => Standing::Gone,
        }
    }

    /// A commit has got its place in line.
    pub(super) fn enter(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        if keys.is_empty() {
            return;
        }
        let mut depends_on = Vec::new();
        for key in keys {
            if let Some(read) = key.read.and_then(Ticket::of_tentative)
                && let Some(open) = self.open.get_mut(&read)
                && !depends_on.contains(&read)
            {
                open.followers.push(ticket);
                depends_on.push(read);
            }
            if let Some(value) = &key.write {
                self.on_the_way.entry(key.key.clone()).or_default().push_back((ticket, value.clone()));
            }
        }
        self.open.insert(ticket, Open { depends_on, followers: Vec::new() });
    }

    /// The answer to a commit was lost.
    pub(super) fn settling(&mut self, ticket: Ticket) {
        if self.open.contains_key(&ticket) {
            self.settling.insert(ticket, Instant::now());
        }
    }

    /// Since when the oldest lost answer is missing. `None` means that none is.
    pub(super) fn settling_since(&self) -> Option<Instant> {
        self.settling.values().min().copied()
    }

    /// A commit was made. Each key that it wrote has a new version, if that is known.
    pub(super) fn committed(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        for key in keys {
            let Some(value) = &key.write else { continue };
            match key.written {
                // An operator's write may have been learnt meanwhile.
                Some(version)
                    if self.committed.get(&key.key).is_some_and(|known| known.version >= version) => {}
                Some(version) => {
                    let known = Known { version, ticket: Some(ticket), value: value.clone() };
                    self.committed.insert(key.key.clone(), known);
                }
                None => self.committed.remove(&key.key),
            }
        }
        self.leave(ticket, keys);
    }

    /// All commits that depend on one, in line order.
    pub(super) fn followers_of(&self, ticket: Ticket) -> BTreeSet<Ticket> {
        let mut found = BTreeSet::new();
        if self.leaves_followers() {
            return found;
        }
        let mut todo = vec![ticket];
        while let Some(ticket) = todo.pop() {
            let followers = self.open.get(&ticket).into_iter().flat_map(|open| &open.followers);
            todo.extend(
                followers.filter(|follower| self.open.contains_key(follower) && found.insert(**follower)),
            );
        }
        found
    }

    /// A commit is answered: nothing that it wrote is on its way any more.
    pub(super) fn leave(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        if self.open.remove(&ticket).is_none() {
            return;
        }
        self.settling.remove(&ticket);
        for key in keys.iter().filter(|key| key.write.is_some()) {
            let Some(writes) = self.on_the_way.get_mut(&key.key) else { continue };
            if let Ok(i) = writes.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
                writes.remove(i);
            }
            if writes.is_empty() {
                self.on_the_way.remove(&key.key);
            }
        }
    }

    pub(super) fn leaves_followers(&self) -> bool {
        #[cfg(any(test, feature = "simulation"))]
        return self.leaves_followers;
        #[cfg(not(any(test, feature = "simulation")))]
        false
    }

    /// Whether nothing is on its way.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.on_the_way.is_empty() && self.open.is_empty() && self.settling.is_empty()
    }

    /// Nothing is read from a commit that is answered.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for (key, writes) in &self.on_the_way {
            assert!(!writes.is_empty(), "{key:?} has an empty queue");
            assert!(writes.iter().is_sorted_by_key(|(ticket, _)| *ticket), "{key:?} is out of line");
            for (ticket, _) in writes {
                assert!(self.open.contains_key(ticket), "{key:?} is read from {ticket:?}, which is answered");
            }
        }
        for ticket in self.settling.keys() {
            assert!(self.open.contains_key(ticket), "{ticket:?} is answered and being settled");
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    version: Version,
    /// The commit of this host that wrote it.
    ticket: Option<Ticket>,
    value: Value,
}

/// Two generations: when the young one is full it becomes the old one, and what was the old one goes.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Known>,
    old: HashMap<Key, Known>,
    young_bytes: usize,
}

/// What one generation may hold.
const MAX_BYTES: usize = 16 << 20;
/// Larger values are read from Postgres each time.
const MAX_VALUE_BYTES: usize = 64 << 10;
/// What an entry holds beside its value: names and tables.
const ENTRY_BYTES: usize = 256;

impl Generations {
    fn get(&self, key: &Key) -> Option<&Known> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn insert(&mut self, key: Key, known: Known) {
        let bytes = known.value.as_ref().map_or(0, |value| value.len());
        if bytes > MAX_VALUE_BYTES {
            self.remove(&key);
            return;
        }
        self.young_bytes += bytes + ENTRY_BYTES;
        self.young.insert(key, known);
        if self.young_bytes > MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn remove(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use aster_core::id::TenantId;

    use super::*;

    fn key(name: &str) -> Key {
        Key { tenant: TenantId::default(), component: "c".into(), bucket: "b".into(), key: name.into() }
    }

    fn writes(name: &str, read: Option<i64>, value: &str) -> Vec<KeyUse> {
        let value = Some(Arc::from(value.as_bytes()));
        vec![KeyUse { key: key(name), read: read.map(Version), write: Some(value), written: None }]
    }

    fn text(entries: &Entries, name: &str) -> Option<(i64, String)> {
        let Reading::Known(entry) = entries.read(&key(name)) else { return None };
        Some((entry.version.0, String::from_utf8(entry.value.unwrap_or_default()).unwrap()))
    }

    #[test]
    fn what_is_on_its_way_is_read_in_a_tentative_version_until_it_is_committed() {
        let mut entries = Entries::default();
        entries.learn(&key("a"), &Entry { version: Version(7), value: Some(b"old".to_vec()) });
        assert_eq!(text(&entries, "a"), Some((7, "old".into())));

        let mut first = writes("a", Some(7), "new");
        assert!(entries.stale(&first).is_empty());
        entries.enter(Ticket(1), &first);
        assert_eq!(text(&entries, "a"), Some((-1, "new".into())));
        // A commit that has read the value before comes too late; one that has read this value doesn't.
        assert_eq!(entries.stale(&writes("a", Some(7), "x")), [key("a")]);
        assert!(entries.stale(&writes("a", Some(-1), "x")).is_empty());
        assert!(entries.stale(&writes("a", None, "x")).is_empty(), "it overwrites whatever is there");

        first[0].written = Some(Version(8));
        entries.committed(Ticket(1), &first);
        assert_eq!(text(&entries, "a"), Some((8, "new".into())));
        assert_eq!(entries.standing_of(&key("a"), Version(-1)), Standing::Committed(Version(8)));
        assert!(entries.stale(&writes("a", Some(-1), "x")).is_empty());
    }

    #[test]
    fn a_reader_of_a_refused_commit_is_stale_whatever_the_database_has() {
        let mut entries = Entries::default();
        let first = writes("a", Some(7), "never");
        entries.enter(Ticket(1), &first);
        entries.leave(Ticket(1), &first);
        assert_eq!(text(&entries, "a"), None);
        // Another host has made version 8 meanwhile, which isn't what was read.
        entries.learn(&key("a"), &Entry { version: Version(8), value: None });
        assert_eq!(entries.standing_of(&key("a"), Version(-1)), Standing::Gone);
        assert_eq!(entries.stale(&writes("a", Some(-1), "x")), [key("a")]);
    }

    #[test]
    fn commits_of_one_batch_may_be_told_in_any_order() {
        let mut entries = Entries::default();
        let (mut first, mut second) = (writes("a", Some(7), "first"), writes("a", Some(-1), "second"));
        entries.enter(Ticket(1), &first);
        entries.enter(Ticket(2), &second);
        (first[0].written, second[0].written) = (Some(Version(8)), Some(Version(9)));
        entries.committed(Ticket(2), &second);
        entries.committed(Ticket(1), &first);
        assert_eq!(text(&entries, "a"), Some((9, "second".into())));
    }

    #[test]
    fn an_older_answer_of_postgres_replaces_nothing() {
        let mut entries = Entries::default();
        entries.learn(&key("a"), &Entry { version: Version(8), value: Some(b"8".to_vec()) });
        entries.learn(&key("a"), &Entry { version: Version(7), value: Some(b"7".to_vec()) });
        assert_eq!(text(&entries, "a"), Some((8, "8".into())));
        assert_eq!(entries.stale(&writes("a", Some(7), "x")), [key("a")]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut entries = Entries::default();
        let value = vec![0; MAX_VALUE_BYTES];
        for n in 0..2_000 {
            entries.learn(&key(&n.to_string()), &Entry { version: Version(1), value: Some(value.clone()) });
        }
        let all = entries.committed.young.len() + entries.committed.old.len();
        assert!(all * MAX_VALUE_BYTES <= 3 * MAX_BYTES, "{all}");
        assert!(text(&entries, "1999").is_some());
        entries
            .learn(&key("large"), &Entry { version: Version(1), value: Some(vec![0; MAX_VALUE_BYTES + 1]) });
        assert_eq!(entries.read(&key("large")), Reading::Unknown);
    }
}
