//! What a step read and wrote through `wasi:keyvalue`, as its transition carries it to the commit.

use std::sync::Arc;

use crate::id::TenantId;

/// Longest bucket name and longest key, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 512;

/// One entry. Its order is the order in which commits lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub tenant: TenantId,
    /// The component's registered name; each sees its own buckets only.
    pub component: Arc<str>,
    pub bucket: Arc<str>,
    pub key: Arc<str>,
}

/// Grows with every change of an entry, also with its deletion, and never repeats for one key. A negative one stands for a change
/// that is on its way: only the store that gave it knows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i64);

impl Version {
    /// Of a key that was never written.
    pub const ABSENT: Version = Version(0);
}

/// What a key held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: Version,
    /// `None`: absent or deleted.
    pub value: Option<Vec<u8>>,
}

/// The first version of a key that an attempt saw. Still right at the commit, or the commit is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub key: Key,
    pub version: Version,
}

/// The last value that an attempt gave a key; `None` deletes it.
///
/// A write without a read of the same key overwrites whatever is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub value: Option<Vec<u8>>,
}

/// All that an attempt at a step read and wrote. Each key stands at most once in either list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
}

impl Effects {
    /// The same reads without the writes: what an attempt that failed leaves to be validated.
    pub fn without_writes(self) -> Self {
        Self { reads: self.reads, writes: Vec::new() }
    }

    /// Every key that was read or written; one that was both stands twice.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let read = self.reads.iter().map(|read| &read.key);
        read.chain(self.writes.iter().map(|write| &write.key))
    }

    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }
}
