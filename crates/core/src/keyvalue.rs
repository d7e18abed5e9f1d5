//! The entries that a step read and wrote through `wasi:keyvalue`, as its transition carries them to the commit.

use std::sync::Arc;

use crate::id::TenantId;

/// The longest name of a bucket and the longest key, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 512;

/// The key of one entry. Commits lock entries in the order of this type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub tenant: TenantId,
    /// The registered name of the component. A component sees only its own buckets.
    pub component: Arc<str>,
    pub bucket: Arc<str>,
    pub key: Arc<str>,
}

/// The version of an entry. It grows with every change, a deletion included, and never repeats for a key. A negative
/// version stands for a change that isn't committed yet; only the store that gave it out knows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i64);

impl Version {
    /// The version of a key that was never written.
    pub const ABSENT: Version = Version(0);
}

/// The content of a key when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: Version,
    /// `None` means that the key is absent or deleted.
    pub value: Option<Vec<u8>>,
}

/// The first version of a key that an attempt saw. The commit is refused if it isn't the current one any more.
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

/// All reads and writes of an attempt at a step. A key occurs at most once in each list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
}

impl Effects {
    /// The reads without the writes. A failed attempt leaves only its reads to be validated.
    pub fn without_writes(self) -> Self {
        Self { reads: self.reads, writes: Vec::new() }
    }

    /// All keys that were read or written. A key that was both occurs twice.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let read = self.reads.iter().map(|read| &read.key);
        read.chain(self.writes.iter().map(|write| &write.key))
    }

    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }
}
