//! What this host knows of key-value entries without asking Postgres: what transitions on their way will write, and what was
//! committed or read last.
//!
//! Nothing here is the truth. A step may read what another one has written whose commit isn't answered yet: its version is then
//! a *tentative* one, the negated ticket of that commit, and it stands for the version that the entry will have if that commit is
//! made. A commit that depends on one that was refused is refused here, whatever versions Postgres has meanwhile. What was
//! committed by another host is noticed by Postgres, which compares the versions that were read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aster_core::keyvalue::{Entry, Key, Version};

use super::commit::KeyUse;

/// Of a commit in line, from 1, in the order of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) i64);

impl Ticket {
    /// What a step sees that reads what this commit writes.
    fn tentative(self) -> Version {
        Version(-self.0)
    }

    fn of_tentative(version: Version) -> Option<Self> {
        (version.0 < 0).then_some(Self(-version.0))
    }
}

/// A value as it waits to be written: shared by the commit and those who read it meanwhile.
pub(super) type Value = Option<Arc<[u8]>>;

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The newest write of each key that isn't answered yet.
    on_the_way: HashMap<Key, (Ticket, Value)>,
    /// The commits whose writes aren't answered yet.
    open: HashSet<Ticket>,
    committed: Generations,
}

/// What a version that was read stands for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Committed(Version),
    /// Written by a commit that isn't answered yet.
    OnTheWay(Ticket),
    /// It was refused, or its version isn't known any more.
    Gone,
}

impl Entries {
    /// What a read of the key would give, if it is known.
    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        let (version, value) = match self.on_the_way.get(key) {
            Some((ticket, value)) => (ticket.tentative(), value),
            None => {
                let known = self.committed.get(key)?;
                (known.version, &known.value)
            }
        };
        Some(Entry { version, value: value.as_deref().map(<[u8]>::to_vec) })
    }

    /// Remembers what Postgres has answered, unless something newer is known.
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
            match (self.on_the_way.get(&key.key), Ticket::of_tentative(read)) {
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
        if self.open.contains(&ticket) {
            return Standing::OnTheWay(ticket);
        }
        match self.committed.get(key) {
            Some(known) if known.ticket == Some(ticket) => Standing::Committed(known.version),
            _ => Standing::Gone,
        }
    }

    /// A commit has got its place in line.
    pub(super) fn enter(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        for key in keys {
            if let Some(value) = &key.write {
                self.on_the_way.insert(key.key.clone(), (ticket, value.clone()));
                self.open.insert(ticket);
            }
        }
    }

    /// A commit was made; of each key that it wrote the version that it has since, if that is known.
    pub(super) fn committed(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        for key in keys {
            let Some(value) = &key.write else { continue };
            match key.written {
                // Those of a batch come in any order.
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

    /// A commit wasn't made, and never will be.
    pub(super) fn refused(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        self.leave(ticket, keys);
    }

    fn leave(&mut self, ticket: Ticket, keys: &[KeyUse]) {
        if !self.open.remove(&ticket) {
            return;
        }
        for key in keys {
            if self.on_the_way.get(&key.key).is_some_and(|(newest, _)| *newest == ticket) {
                self.on_the_way.remove(&key.key);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    version: Version,
    /// Of the commit of this host that wrote it.
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

/// Of one generation.
const MAX_BYTES: usize = 16 << 20;
/// Larger values are read from Postgres each time.
const MAX_VALUE_BYTES: usize = 64 << 10;
/// Of an entry beside its value: names and tables.
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
        let entry = entries.get(&key(name))?;
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
        // Who has read what was there before comes too late, who has read this one doesn't.
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
    fn who_depends_on_a_refused_commit_is_refused_whatever_postgres_has() {
        let mut entries = Entries::default();
        let first = writes("a", Some(7), "never");
        entries.enter(Ticket(1), &first);
        entries.refused(Ticket(1), &first);
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
        assert!(entries.get(&key("large")).is_none());
    }
}
