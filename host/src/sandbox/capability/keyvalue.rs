//! `wasi:keyvalue@0.2.0-draft` (store and atomics) over a [`Session`](aster_runner::session::Session).

use std::sync::Arc;

use aster_runner::session;
use wasmtime::component::{Resource, ResourceTableError};

use super::State;
use super::bindings::wasi::keyvalue::{atomics, store};

/// An open bucket: its checked name. Buckets need no making; one without keys is empty.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Bucket {
    name: Arc<str>,
}

/// What a guest is told, or what ends its call.
#[expect(unreachable_pub, reason = "the generated bindings name it")]
pub enum Error {
    /// For the guest, which may go on.
    Refused(String),
    /// Ends the attempt without a verdict on the step.
    Unavailable(session::Unavailable),
    /// The guest named a bucket that it hasn't opened, or holds too many handles.
    Handle(ResourceTableError),
}

impl From<session::Error> for Error {
    fn from(error: session::Error) -> Self {
        match error {
            session::Error::Refused(message) => Self::Refused(message),
            session::Error::Unavailable(error) => Self::Unavailable(error),
        }
    }
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Self {
        Self::Handle(error)
    }
}

impl State {
    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<Arc<str>, Error> {
        Ok(Arc::clone(&self.table.get(bucket)?.name))
    }
}

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        session::check_name("bucket", &identifier)?;
        Ok(self.table.push(Bucket { name: identifier.into() })?)
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        match error {
            Error::Refused(message) => Ok(store::Error::Other(message)),
            Error::Unavailable(error) => Err(error.into()),
            Error::Handle(error) => Err(error.into()),
        }
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Error> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.session.get(&self.component, &bucket, key).await?)
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Error> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.session.set(&self.component, &bucket, key, Some(value))?)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Error> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.session.set(&self.component, &bucket, key, None)?)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Error> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.session.get(&self.component, &bucket, key).await?.is_some())
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, Error> {
        let bucket = self.bucket(&bucket)?;
        let page = self.session.list_keys(&self.component, &bucket, cursor).await?;
        Ok(store::KeyResponse { keys: page.keys, cursor: page.cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, Error> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.session.increment(&self.component, &bucket, key, delta).await?)
    }
}
