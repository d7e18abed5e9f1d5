//! What one attempt at a step reads and writes of the key-value state, over all of its calls.
//!
//! Reads see the attempt's own writes first, then the committed state, and the same of it each time. Nothing is written
//! anywhere: [`Session::effects`] is what the step's transition carries to the commit, where the versions that were read
//! are compared. Listings are not compared.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aster_core::id::TenantId;
use aster_core::keyvalue::{Effects, Entry, Key, MAX_NAME_BYTES, Read, Version, Write};

/// Largest value of a key.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// All values together that one attempt may write: they travel in one commit with others'.
pub const MAX_WRITTEN_BYTES: usize = 4 << 20;
/// How many keys one attempt may read and write: the commit locks them all.
pub const MAX_KEYS: usize = 10_000;
/// Values that were read are kept up to this, so that a key reads the same twice. Beyond it a key may read differently,
/// and then the commit refuses the attempt.
const MAX_KEPT_BYTES: usize = 8 << 20;
const PAGE_KEYS: usize = 1_000;
const MAX_PAGES: usize = 10_000;

/// The committed state, as the store serves it.
#[async_trait::async_trait]
pub trait KeyValueReader: Send + Sync {
    /// What a key holds, with its version; [`Version::ABSENT`] and no value for a key that was never written.
    async fn read(&self, key: &Key) -> Result<Entry, Unavailable>;

    /// The first `limit` keys of a bucket that have a value, after `after` if given, in the order of their bytes.
    async fn list_keys(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Unavailable>;
}

/// The state can't be read now. No verdict on the step: its attempt is to be repeated, unseen.
#[derive(Debug, thiserror::Error)]
#[error("the key-value state can't be read")]
pub struct Unavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Why an operation gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest asked for what can't be; it is told, and may go on.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// One attempt's view. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    tenant: TenantId,
    reader: Arc<dyn KeyValueReader>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The first version that was seen of each key, with the value while there is room for it.
    reads: BTreeMap<Key, (Version, Kept)>,
    writes: BTreeMap<Key, Option<Vec<u8>>>,
    written_bytes: usize,
    kept_bytes: usize,
    /// Where listings go on: the cursor `n` stands for the `n`th of these, and means nothing to another attempt.
    cursors: Vec<String>,
}

enum Kept {
    Value(Option<Vec<u8>>),
    TooMuch,
}

/// A page of keys, and the cursor of the next one if there may be one.
#[derive(Debug)]
pub struct Page {
    pub keys: Vec<String>,
    pub cursor: Option<u64>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(tenant: TenantId, reader: Arc<dyn KeyValueReader>) -> Self {
        Self { tenant, reader, state: Arc::default() }
    }

    /// All that was read and written so far, each key once, in the order of keys.
    pub fn effects(&self) -> Effects {
        let state = self.state();
        Effects {
            reads: state
                .reads
                .iter()
                .map(|(key, (version, _))| Read { key: key.clone(), version: *version })
                .collect(),
            writes: state
                .writes
                .iter()
                .map(|(key, value)| Write { key: key.clone(), value: value.clone() })
                .collect(),
        }
    }

    pub async fn get(
        &self,
        component: &Arc<str>,
        bucket: &Arc<str>,
        key: String,
    ) -> Result<Option<Vec<u8>>, Error> {
        let key = self.key(component, bucket, key)?;
        self.read(&key).await
    }

    /// Sets or deletes.
    pub fn set(
        &self,
        component: &Arc<str>,
        bucket: &Arc<str>,
        key: String,
        value: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let key = self.key(component, bucket, key)?;
        self.state().write(key, value)
    }

    /// Reads the decimal text of a counter, adds, and writes it back; an absent one counts as 0.
    pub async fn increment(
        &self,
        component: &Arc<str>,
        bucket: &Arc<str>,
        key: String,
        delta: u64,
    ) -> Result<u64, Error> {
        let key = self.key(component, bucket, key)?;
        let before = match self.read(&key).await? {
            None => 0,
            Some(value) => counter(&value).ok_or_else(|| {
                Error::Refused(format!("`{}` is no counter: expected the decimal text of a u64", key.key))
            })?,
        };
        let after = before
            .checked_add(delta)
            .ok_or_else(|| Error::Refused(format!("`{}` would be more than a u64 holds", key.key)))?;
        self.state().write(key, Some(after.to_string().into_bytes()))?;
        Ok(after)
    }

    pub async fn list_keys(
        &self,
        component: &Arc<str>,
        bucket: &Arc<str>,
        cursor: Option<u64>,
    ) -> Result<Page, Error> {
        let after = match cursor {
            None => None,
            Some(n) => {
                let state = self.state();
                let place = usize::try_from(n).ok().and_then(|n| state.cursors.get(n));
                let place =
                    place.ok_or_else(|| Error::Refused(format!("{n} is no cursor of this attempt")))?;
                Some(place.clone())
            }
        };
        let committed =
            self.reader.list_keys(&self.tenant, component, bucket, after.as_deref(), PAGE_KEYS).await?;
        let last = if committed.len() < PAGE_KEYS { None } else { committed.last().cloned() };

        let mut state = self.state();
        let named = |key: &str| Key {
            tenant: self.tenant.clone(),
            component: Arc::clone(component),
            bucket: Arc::clone(bucket),
            key: key.into(),
        };
        // Own writes between the page's ends: deleted keys go, new ones come.
        let mut keys: BTreeMap<String, ()> = committed.into_iter().map(|key| (key, ())).collect();
        let start = named(after.as_deref().unwrap_or(""));
        for (key, value) in state.writes.range((Bound::Excluded(&start), Bound::Unbounded)) {
            let in_bucket =
                key.tenant == start.tenant && key.component == start.component && key.bucket == start.bucket;
            if !in_bucket || last.as_deref().is_some_and(|last| &*key.key > last) {
                break;
            }
            match value {
                Some(_) => keys.insert(key.key.as_ref().to_owned(), ()),
                None => keys.remove(&*key.key),
            };
        }
        let cursor = match last {
            None => None,
            Some(_) if state.cursors.len() >= MAX_PAGES => {
                return Err(Error::Refused(format!("an attempt may list at most {MAX_PAGES} pages")));
            }
            Some(last) => {
                state.cursors.push(last);
                Some(state.cursors.len() as u64 - 1)
            }
        };
        Ok(Page { keys: keys.into_keys().collect(), cursor })
    }

    async fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        {
            let state = self.state();
            if let Some(written) = state.writes.get(key) {
                return Ok(written.clone());
            }
            if let Some((_, Kept::Value(value))) = state.reads.get(key) {
                return Ok(value.clone());
            }
            state.check_room(key)?;
        }
        let Entry { version, value } = self.reader.read(key).await?;
        let mut state = self.state();
        if !state.reads.contains_key(key) {
            let bytes = value.as_ref().map_or(0, Vec::len);
            let kept = if state.kept_bytes + bytes <= MAX_KEPT_BYTES {
                state.kept_bytes += bytes;
                Kept::Value(value.clone())
            } else {
                Kept::TooMuch
            };
            state.reads.insert(key.clone(), (version, kept));
        }
        Ok(value)
    }

    fn key(&self, component: &Arc<str>, bucket: &Arc<str>, key: String) -> Result<Key, Error> {
        check_name("key", &key)?;
        Ok(Key {
            tenant: self.tenant.clone(),
            component: Arc::clone(component),
            bucket: Arc::clone(bucket),
            key: key.into(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, key: Key, value: Option<Vec<u8>>) -> Result<(), Error> {
        let bytes = value.as_ref().map_or(0, Vec::len);
        if bytes > MAX_VALUE_BYTES {
            return Err(Error::Refused(format!(
                "a value may have at most {MAX_VALUE_BYTES} bytes, this one has {bytes}"
            )));
        }
        self.check_room(&key)?;
        let before = self.writes.get(&key).and_then(Option::as_ref).map_or(0, Vec::len);
        let written = self.written_bytes - before + bytes;
        if written > MAX_WRITTEN_BYTES {
            return Err(Error::Refused(format!(
                "an attempt may write at most {MAX_WRITTEN_BYTES} bytes of values"
            )));
        }
        self.written_bytes = written;
        self.writes.insert(key, value);
        Ok(())
    }

    fn check_room(&self, key: &Key) -> Result<(), Error> {
        let known = self.reads.contains_key(key) || self.writes.contains_key(key);
        if !known && self.reads.len() + self.writes.len() >= MAX_KEYS {
            return Err(Error::Refused(format!("an attempt may read and write at most {MAX_KEYS} keys")));
        }
        Ok(())
    }
}

/// Names reach the database: 1 to 512 bytes, no NUL.
pub fn check_name(kind: &str, name: &str) -> Result<(), Error> {
    let fault = match name {
        "" => "must not be empty".to_owned(),
        name if name.len() > MAX_NAME_BYTES => {
            format!("may have at most {MAX_NAME_BYTES} bytes, this one has {}", name.len())
        }
        name if name.contains('\0') => "must not contain NUL".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::Refused(format!("a {kind} {fault}")))
}

fn counter(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// The committed state in memory: for tests, benchmarks, and components that are tried out.
#[derive(Debug, Default)]
pub struct InMemory {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl InMemory {
    /// Commits what an attempt wrote, without comparing what it read.
    pub fn apply(&self, effects: Effects) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for Write { key, value } in effects.writes {
            let entry = entries.entry(key).or_insert(Entry { version: Version::ABSENT, value: None });
            entry.version.0 += 1;
            entry.value = value;
        }
    }
}

#[async_trait::async_trait]
impl KeyValueReader for InMemory {
    async fn read(&self, key: &Key) -> Result<Entry, Unavailable> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.get(key).cloned().unwrap_or(Entry { version: Version::ABSENT, value: None }))
    }

    async fn list_keys(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Unavailable> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<String> = entries
            .iter()
            .filter(|(key, entry)| {
                key.tenant == *tenant
                    && &*key.component == component
                    && &*key.bucket == bucket
                    && entry.value.is_some()
                    && after.is_none_or(|after| &*key.key > after)
            })
            .map(|(key, _)| key.key.as_ref().to_owned())
            .collect();
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
