//! Key-value data outside of commits: what steps read, and what operators see and set.

use std::sync::Arc;

use aster_core::id::TenantId;
use aster_core::keyvalue::{Entry, Key, Version};
use tokio::time::timeout;

use super::commit::check_key;
use super::connections::no_answer;
use super::listed::{Listed, PAGE_BYTES};
use super::{Error, Store, check_name, count};

/// A live entry in a list of its bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    pub key: Arc<str>,
    pub value: Vec<u8>,
    pub version: Version,
}

impl Store {
    /// What a key holds for a step that reads it; version 0 and no value if it was never written. A negative version is that of a
    /// write that is on its way to the database, and as good as any other: a commit that depends on it is made with it or not at all.
    pub async fn read_entry(&self, key: &Key) -> Result<Entry, Error> {
        check_key(key)?;
        self.line.read(key, self.reads.read(key.clone())).await
    }

    /// What a key holds in the database.
    pub async fn load_entry(&self, key: &Key) -> Result<Entry, Error> {
        check_key(key)?;
        let limit = self.connections.patience.answer;
        let entry =
            timeout(limit, self.reads.read(key.clone())).await.unwrap_or_else(|_| Err(no_answer().into()))?;
        self.line.learn(key, &entry);
        Ok(entry)
    }

    /// The live keys of a bucket after `after`, in the order of their bytes.
    pub async fn list_keys(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Arc<str>>, Error> {
        check_place(component, bucket, after)?;
        let keys = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select key
                    from keyvalue_entry
                    where tenant = $1 and component = $2 and bucket = $3
                        and ($4::text is null or key > $4)
                        and value is not null
                    order by key
                    limit $5",
                    tenant.as_str(),
                    component,
                    bucket,
                    after,
                    count(limit),
                )
                .fetch_all(connection)
            })
            .await?;
        Ok(keys.into_iter().map(Arc::from).collect())
    }

    /// The same with values and versions.
    pub async fn list_entries(
        &self,
        tenant: &TenantId,
        component: &str,
        bucket: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<ListedEntry>, Error> {
        check_place(component, bucket, after)?;
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select e.key as "key!", e.value as "value!", e.version as "version!", e.found as "found!"
                    from (
                        select key, value, version, count(*) over () as found,
                            sum(octet_length(value)) over (order by key) - octet_length(value) as bytes_before
                        from (
                            select key, value, version
                            from keyvalue_entry
                            where tenant = $1 and component = $2 and bucket = $3
                                and ($4::text is null or key > $4)
                                and value is not null
                            order by key
                            limit $5
                        ) page
                    ) e
                    where e.bytes_before < $6
                    order by e.key"#,
                    tenant.as_str(),
                    component,
                    bucket,
                    after,
                    count(limit + 1),
                    PAGE_BYTES,
                )
                .fetch_all(connection)
            })
            .await?;
        let found = rows.first().map_or(0, |row| row.found);
        let entries = rows.into_iter().map(|row| ListedEntry {
            key: row.key.into(),
            value: row.value,
            version: Version(row.version),
        });
        Ok(Listed::first_of(found, limit, entries.collect()))
    }

    /// An operator's write: overwrites whatever is there. Steps in flight that have read the key will run again.
    pub async fn put_entry(&self, key: &Key, value: &[u8]) -> Result<Version, Error> {
        check_key(key)?;
        let version = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "insert into keyvalue_entry as e (tenant, component, bucket, key, value, version)
                    values ($1, $2, $3, $4, $5, 1)
                    on conflict (tenant, component, bucket, key)
                    do update set value = excluded.value, version = e.version + 1
                    returning version",
                    key.tenant.as_str(),
                    &*key.component,
                    &*key.bucket,
                    &*key.key,
                    value,
                )
                .fetch_one(connection)
            })
            .await?;
        self.line.forget(key);
        Ok(Version(version))
    }

    /// An operator's deletion. Returns whether there was a value.
    pub async fn delete_entry(&self, key: &Key) -> Result<bool, Error> {
        check_key(key)?;
        let deleted = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    "update keyvalue_entry
                    set value = null, version = version + 1
                    where tenant = $1 and component = $2 and bucket = $3 and key = $4
                        and value is not null",
                    key.tenant.as_str(),
                    &*key.component,
                    &*key.bucket,
                    &*key.key,
                )
                .execute(connection)
            })
            .await?;
        self.line.forget(key);
        Ok(deleted.rows_affected() > 0)
    }
}

fn check_place(component: &str, bucket: &str, after: Option<&str>) -> Result<(), Error> {
    check_name("component", component)?;
    check_name("bucket", bucket)?;
    after.map_or(Ok(()), |after| check_name("key", after))
}
