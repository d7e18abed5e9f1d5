//! Buckets whose values have a type.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::bindings::wasi::keyvalue::store;

/// A bucket of JSON objects, all of type `E`.
pub struct Bucket<E> {
    raw: Raw,
    entries: PhantomData<E>,
}

impl<E: Serialize + DeserializeOwned> Bucket<E> {
    /// Opens the component's bucket `name`, which need not exist yet.
    pub fn open(name: &'static str) -> Result<Self, String> {
        Ok(Self { raw: Raw::open(name)?, entries: PhantomData })
    }

    /// Returns the entry under `key`, or `None` if there is none.
    pub fn get(&self, key: &str) -> Result<Option<E>, String> {
        let Some(bytes) = self.raw.get(key)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| format!("entry `{key}` of bucket `{}` is not readable: {error}", self.raw.name))
    }

    /// Writes `entry` under `key`, and replaces an earlier entry.
    pub fn set(&self, key: &str, entry: &E) -> Result<(), String> {
        let bytes = serde_json::to_vec(entry).map_err(|error| {
            format!("entry `{key}` of bucket `{}` is not writable: {error}", self.raw.name)
        })?;
        self.raw.set(key, &bytes)
    }
}

/// A bucket of whole numbers as decimal text, the form that `wasi:keyvalue/atomics` uses.
pub struct Counts(Raw);

impl Counts {
    /// Opens the component's bucket `name`, which need not exist yet.
    pub fn open(name: &'static str) -> Result<Self, String> {
        Raw::open(name).map(Self)
    }

    /// Returns the number under `key`. An absent key counts as 0.
    pub fn get(&self, key: &str) -> Result<i64, String> {
        let Some(bytes) = self.0.get(key)? else { return Ok(0) };
        str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| format!("`{key}` of bucket `{}` is not a whole number", self.0.name))
    }

    /// Writes `count` under `key`.
    pub fn set(&self, key: &str, count: i64) -> Result<(), String> {
        self.0.set(key, count.to_string().as_bytes())
    }
}

/// A bucket of the host, with its name for messages.
struct Raw {
    name: &'static str,
    bucket: store::Bucket,
}

impl Raw {
    fn open(name: &'static str) -> Result<Self, String> {
        let bucket = store::open(name).map_err(|error| explain(name, error))?;
        Ok(Self { name, bucket })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.bucket.get(key).map_err(|error| explain(self.name, error))
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.bucket.set(key, value).map_err(|error| explain(self.name, error))
    }
}

fn explain(name: &str, error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => format!("there is no bucket `{name}`"),
        store::Error::AccessDenied => format!("bucket `{name}` is not open to this component"),
        store::Error::Other(reason) => format!("bucket `{name}`: {reason}"),
    }
}
