//! A bounded cache of recently used values.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// A cache of values by key. When the sum of the weights exceeds the bound, it drops the least recently used values.
///
/// A value that somebody holds stays, whatever the bound. Dropping it would free nothing, and the next caller would
/// make it a second time.
pub(crate) struct Recent<K, T> {
    bound: u64,
    /// INVARIANT: this is the sum of all weights.
    weight: u64,
    /// Every use raises this counter, which orders the values.
    uses: u64,
    entries: HashMap<K, Entry<T>>,
}

struct Entry<T> {
    value: Arc<T>,
    weight: u64,
    last_use: u64,
}

impl<K: Clone + Eq + Hash, T> Recent<K, T> {
    pub(crate) fn new(bound: u64) -> Self {
        Self { bound, weight: 0, uses: 0, entries: HashMap::new() }
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<Arc<T>>
    where
        K: Borrow<Q>,
    {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.last_use = self.uses;
        Some(Arc::clone(&entry.value))
    }

    pub(crate) fn insert(&mut self, key: K, value: Arc<T>, weight: u64) {
        self.uses += 1;
        self.weight += weight;
        let replaced = self.entries.insert(key, Entry { value, weight, last_use: self.uses });
        self.weight -= replaced.map_or(0, |entry| entry.weight);
        self.trim();
    }

    /// Drops values beyond the bound that nobody holds. Returns whether the remaining ones still exceed the bound.
    pub(crate) fn trim(&mut self) -> bool {
        while self.weight > self.bound && self.drop_oldest() {}
        self.weight > self.bound
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.entries.values().map(|entry| &entry.value)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.weight = 0;
    }

    /// Returns whether the next value will displace another.
    pub(crate) fn is_full(&self) -> bool {
        self.weight >= self.bound
    }

    /// Drops the least recently used value that nobody holds. Returns false if all values are held.
    ///
    /// This looks at all values, which is cheap compared to making the value that is inserted.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let unheld = self.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.value) == 1);
        let Some(key) = unheld.min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| key.clone()) else {
            return false;
        };
        let dropped = self.entries.remove(&key);
        self.weight -= dropped.map_or(0, |entry| entry.weight);
        true
    }
}

impl<K, T> std::fmt::Debug for Recent<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bound, weight, .. } = self;
        f.debug_struct("Recent").field("bound", bound).field("weight", weight).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(recent: &Recent<&'static str, u32>) -> Vec<&'static str> {
        let mut keys: Vec<_> = recent.entries.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_least_recently_used_value_is_dropped_first() {
        let mut recent = Recent::new(3);
        for name in ["a", "b", "c"] {
            recent.insert(name, Arc::new(0), 1);
        }
        assert!(recent.is_full());
        assert!(recent.get("a").is_some());
        recent.insert("d", Arc::new(0), 1);
        assert_eq!(kept(&recent), ["a", "c", "d"]);
        recent.insert("e", Arc::new(0), 3);
        assert_eq!(kept(&recent), ["e"]);
        recent.insert("e", Arc::new(0), 1);
        recent.insert("f", Arc::new(0), 2);
        assert_eq!(kept(&recent), ["e", "f"], "a replaced value has no weight");
    }

    #[test]
    fn a_value_that_is_held_stays() {
        let mut recent = Recent::new(1);
        let held = Arc::new(1);
        recent.insert("held", Arc::clone(&held), 1);
        for name in ["a", "b"] {
            recent.insert(name, Arc::new(0), 1);
        }
        assert_eq!(kept(&recent), ["held"]);
        assert!(Arc::ptr_eq(&held, &recent.get("held").expect("it is held")));
        drop(held);
        recent.insert("c", Arc::new(0), 1);
        assert_eq!(kept(&recent), ["c"]);
    }
}
