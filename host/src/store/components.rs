//! Components: names, their versions, and the bytes that versions share.

use aster_core::id::{Digest, TenantId};
use aster_core::time::Timestamp;
use aster_core::wit::Exports;
use aster_runner::Fault;
use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::error::fault;
use super::{Error, Listed, Store, check_name, count, digest, instant, parse_json, to_json, unsigned};

/// A name and what is known under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    /// The version that new runs pin; none until one is activated.
    pub active: Option<Digest>,
    /// Newest first.
    pub versions: Vec<ComponentVersion>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentVersion {
    pub digest: Digest,
    pub uploaded_at: Timestamp,
    pub size_bytes: u64,
}

/// What a version offers to workflows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub exports: Exports,
    /// The exports as WIT text.
    pub wit: String,
}

/// What is uploaded under a name.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    pub name: &'a str,
    /// SHA-256 of `bytes`.
    pub digest: Digest,
    pub bytes: &'a [u8],
    pub exports: &'a Exports,
    pub wit: &'a str,
    pub uploaded_at: Timestamp,
    /// The registry's generation against which the activation was checked; none: the version is only staged.
    pub activate_at: Option<i64>,
}

/// What a change of the registry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Whether it wasn't so before.
    pub is_new: bool,
    /// Of the registry, after it.
    pub generation: i64,
}

impl Store {
    /// Keeps a version of a component, and activates it where that is asked for, all or nothing. The same bytes twice are one
    /// version, uploaded when they first were.
    ///
    /// # Errors
    /// [`Error::RegistryMoved`] if the activation was checked against another generation.
    pub async fn put_component_version(
        &self,
        tenant: &TenantId,
        upload: Upload<'_>,
    ) -> Result<Registered, Error> {
        check_name("component's name", upload.name)?;
        let exports = to_json("the exports", upload.exports)?;
        // Before the registry is locked: acceptance doesn't wait for bytes. Without a version they do no harm, and are there
        // for who uploads them again.
        self.connection().await?.patiently().ask(|connection| insert_bytes(connection, upload)).await?;
        self.connection()
            .await?
            .patiently()
            .ask(|connection| put_version(connection, tenant, upload, &exports))
            .await
    }

    /// Makes a version the one that new runs pin. `checked_at` is the generation against which its fitness was checked.
    ///
    /// # Errors
    /// [`Error::RegistryMoved`]: check again. [`Error::NotFound`]: no such version.
    pub async fn activate_component(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: Digest,
        checked_at: i64,
    ) -> Result<Registered, Error> {
        check_name("component's name", name)?;
        self.connection()
            .await?
            .ask(|connection| activate(connection, tenant, name, digest, checked_at))
            .await
    }

    /// The names of a tenant's components after `after`, in their order, each with its active version.
    pub async fn list_components(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<(String, Option<Digest>)>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    "select name, active_digest
                    from component
                    where tenant = $1
                        and ($2::text is null or name > $2)
                    order by name
                    limit $3",
                    tenant.as_str(),
                    after,
                    count(limit + 1),
                )
                .fetch_all(connection)
            })
            .await?;
        let found = rows.into_iter().map(|row| {
            let active = row.active_digest.as_deref().map(digest).transpose()?;
            Ok((row.name, active))
        });
        Ok(Listed::first(limit, found.collect::<Result<_, Error>>()?))
    }

    /// A component with all its versions.
    pub async fn get_component(&self, tenant: &TenantId, name: &str) -> Result<Option<Component>, Error> {
        if name.contains('\0') {
            return Ok(None);
        }
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    "select c.active_digest, v.digest, v.uploaded_at, b.size_bytes
                    from component c
                    join component_version v on v.tenant = c.tenant and v.name = c.name
                    join component_bytes b on b.digest = v.digest
                    where c.tenant = $1
                        and c.name = $2
                    order by v.uploaded_at desc, v.digest",
                    tenant.as_str(),
                    name,
                )
                .fetch_all(connection)
            })
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let active = first.active_digest.as_deref().map(digest).transpose()?;
        let versions = rows.iter().map(|row| {
            Ok(ComponentVersion {
                digest: digest(&row.digest)?,
                uploaded_at: row.uploaded_at.into(),
                size_bytes: unsigned(row.size_bytes),
            })
        });
        let versions = versions.collect::<Result<_, Error>>()?;
        Ok(Some(Component { name: name.to_owned(), active, versions }))
    }

    /// What a version of a component offers; `None` if there is no such version.
    pub async fn load_offer(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: Digest,
    ) -> Result<Option<Offer>, Error> {
        if name.contains('\0') {
            return Ok(None);
        }
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select exports::text as "exports!", wit
                    from component_version
                    where tenant = $1 and name = $2 and digest = $3"#,
                    tenant.as_str(),
                    name,
                    &digest.0[..],
                )
                .fetch_optional(connection)
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Offer { exports: parse_json("the exports of a component", &row.exports)?, wit: row.wit }))
    }

    /// The bytes of a component that some tenant has uploaded.
    pub async fn load_component_bytes(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.connection()
            .await?
            .patiently()
            .ask(|connection| {
                sqlx::query_scalar!("select bytes from component_bytes where digest = $1", &digest.0[..])
                    .fetch_optional(connection)
            })
            .await
    }

    /// Deletes a version, and its bytes if no other name or tenant has them.
    ///
    /// # Errors
    /// [`Error::InUse`] if it is active, or pinned by a run that is unfinished or COMPENSATION_FAILED.
    pub async fn delete_component_version(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: Digest,
    ) -> Result<Registered, Error> {
        check_name("component's name", name)?;
        // A version of the same bytes that comes in meanwhile makes the deletion of the bytes fail; then they stay.
        for with_bytes in [true, false] {
            let deleted = self
                .connection()
                .await?
                .ask(|connection| delete_version(connection, tenant, name, digest, with_bytes))
                .await?;
            if let Some(deleted) = deleted {
                return Ok(deleted);
            }
        }
        Err(Error::corrupt(format!("version {digest} of component `{name}` can't be deleted")))
    }
}

/// Begins a change of what a tenant's new runs may pin: from here to its commit nothing is accepted and nothing else changes
/// the registry.
///
/// # Errors
/// [`Error::RegistryMoved`] if another generation than `expected` is current.
pub(super) async fn change_registry<'c>(
    connection: &'c mut PgConnection,
    tenant: &TenantId,
    expected: Option<i64>,
) -> Result<Transaction<'c, Postgres>, Error> {
    let mut change = connection.begin().await?;
    sqlx::query!(r#"select 1 as "locked" from pg_advisory_xact_lock(registry_lock($1))"#, tenant.as_str())
        .fetch_one(&mut *change)
        .await?;
    // A later statement, and so a later snapshot than the lock.
    let current = current_generation(&mut change, tenant).await?;
    match expected {
        Some(expected) if expected != current => Err(Error::RegistryMoved { current }),
        _ => Ok(change),
    }
}

/// Unless they are there.
async fn insert_bytes(connection: &mut PgConnection, upload: Upload<'_>) -> Result<(), sqlx::Error> {
    let known = sqlx::query_scalar!(
        r#"select exists (select from component_bytes where digest = $1) as "known!""#,
        &upload.digest.0[..],
    )
    .fetch_one(&mut *connection)
    .await?;
    if known {
        return Ok(());
    }
    sqlx::query!(
        "insert into component_bytes (digest, bytes, size_bytes)
        values ($1, $2, $3)
        on conflict do nothing",
        &upload.digest.0[..],
        upload.bytes,
        i64::try_from(upload.bytes.len()).unwrap_or(i64::MAX),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn put_version(
    connection: &mut PgConnection,
    tenant: &TenantId,
    upload: Upload<'_>,
    exports: &str,
) -> Result<Registered, Error> {
    let mut change = change_registry(connection, tenant, upload.activate_at).await?;
    // Waits for a deletion that takes them, and keeps others from it.
    let kept = sqlx::query_scalar!(
        r#"select 1 as "kept!" from component_bytes where digest = $1 for key share"#,
        &upload.digest.0[..],
    )
    .fetch_optional(&mut *change)
    .await?;
    if kept.is_none() {
        insert_bytes(&mut change, upload).await?;
    }
    sqlx::query!(
        "insert into component (tenant, name) values ($1, $2) on conflict do nothing",
        tenant.as_str(),
        upload.name,
    )
    .execute(&mut *change)
    .await?;
    let inserted = sqlx::query!(
        "insert into component_version (tenant, name, digest, uploaded_at, exports, wit)
        values ($1, $2, $3, $4, $5::text::json, $6)
        on conflict do nothing",
        tenant.as_str(),
        upload.name,
        &upload.digest.0[..],
        instant(upload.uploaded_at),
        exports,
        upload.wit,
    )
    .execute(&mut *change)
    .await?;
    if upload.activate_at.is_some() {
        set_active(&mut change, tenant, upload.name, upload.digest).await?;
    }
    let generation = current_generation(&mut change, tenant).await?;
    change.commit().await?;
    Ok(Registered { is_new: inserted.rows_affected() > 0, generation })
}

async fn activate(
    connection: &mut PgConnection,
    tenant: &TenantId,
    name: &str,
    digest: Digest,
    checked_at: i64,
) -> Result<Registered, Error> {
    let mut change = change_registry(connection, tenant, Some(checked_at)).await?;
    let known = sqlx::query_scalar!(
        r#"select exists (
            select from component_version where tenant = $1 and name = $2 and digest = $3
        ) as "known!""#,
        tenant.as_str(),
        name,
        &digest.0[..],
    )
    .fetch_one(&mut *change)
    .await?;
    if !known {
        return Err(Error::not_found(format!("version {digest} of component `{name}`")));
    }
    let is_new = set_active(&mut change, tenant, name, digest).await?;
    let generation = current_generation(&mut change, tenant).await?;
    change.commit().await?;
    Ok(Registered { is_new, generation })
}

/// None, and nothing was done, if the bytes were taken up by another version meanwhile.
async fn delete_version(
    connection: &mut PgConnection,
    tenant: &TenantId,
    name: &str,
    digest: Digest,
    with_bytes: bool,
) -> Result<Option<Registered>, Error> {
    let mut change = change_registry(connection, tenant, None).await?;
    let what = || format!("version {digest} of component `{name}`");
    let is_active = sqlx::query_scalar!(
        r#"select c.active_digest is not distinct from v.digest as "is_active!"
        from component_version v
        join component c on c.tenant = v.tenant and c.name = v.name
        where v.tenant = $1 and v.name = $2 and v.digest = $3"#,
        tenant.as_str(),
        name,
        &digest.0[..],
    )
    .fetch_optional(&mut *change)
    .await?
    .ok_or_else(|| Error::not_found(what()))?;
    if is_active {
        return Err(Error::InUse { what: what(), by: "it is the active version".into() });
    }
    let pinned_by = sqlx::query_scalar!(
        r#"with holding as (
            select c.release_id
            from release_component c
            join release e on e.release_id = c.release_id
            where e.tenant = $1 and c.component = $2 and c.digest = $3
        )
        select r.workflow_id as "workflow_id!"
        from holding h
        join workflow_run r on r.release_id = h.release_id
        where r.status in ('READY', 'RUNNING', 'COMPENSATING', 'COMPENSATION_FAILED')
        union all
        select r.workflow_id
        from holding h
        join workflow_pin p on p.release_id = h.release_id
        join workflow_run r on r.workflow_id = p.workflow_id
        where r.status in ('READY', 'RUNNING', 'COMPENSATING', 'COMPENSATION_FAILED')
        limit 1"#,
        tenant.as_str(),
        name,
        &digest.0[..],
    )
    .fetch_optional(&mut *change)
    .await?;
    if let Some(run) = pinned_by {
        return Err(Error::InUse { what: what(), by: format!("run {run} pins it") });
    }
    sqlx::query!(
        "delete from component_version where tenant = $1 and name = $2 and digest = $3",
        tenant.as_str(),
        name,
        &digest.0[..],
    )
    .execute(&mut *change)
    .await?;
    sqlx::query!(
        "delete from component c
        where c.tenant = $1 and c.name = $2
            and not exists (select from component_version v where v.tenant = c.tenant and v.name = c.name)",
        tenant.as_str(),
        name,
    )
    .execute(&mut *change)
    .await?;
    if with_bytes {
        let deleted = sqlx::query!(
            "delete from component_bytes b
            where b.digest = $1
                and not exists (select from component_version v where v.digest = b.digest)",
            &digest.0[..],
        )
        .execute(&mut *change)
        .await;
        match deleted {
            Err(error) if matches!(fault(&error), Fault::Data(_)) => return Ok(None),
            deleted => deleted?,
        };
    }
    let generation = raise_generation(&mut change, tenant).await?;
    change.commit().await?;
    Ok(Some(Registered { is_new: true, generation }))
}

/// Returns whether another version, or none, was active before; raises the generation then.
async fn set_active(
    change: &mut PgConnection,
    tenant: &TenantId,
    name: &str,
    digest: Digest,
) -> Result<bool, Error> {
    let changed = sqlx::query!(
        "update component
        set active_digest = $3
        where tenant = $1 and name = $2
            and active_digest is distinct from $3",
        tenant.as_str(),
        name,
        &digest.0[..],
    )
    .execute(&mut *change)
    .await?
    .rows_affected()
        > 0;
    if changed {
        raise_generation(change, tenant).await?;
    }
    Ok(changed)
}

pub(super) async fn current_generation(change: &mut PgConnection, tenant: &TenantId) -> Result<i64, Error> {
    let generation =
        sqlx::query_scalar!("select generation from registry where tenant = $1", tenant.as_str())
            .fetch_optional(change)
            .await?;
    Ok(generation.unwrap_or(0))
}

pub(super) async fn raise_generation(change: &mut PgConnection, tenant: &TenantId) -> Result<i64, Error> {
    let generation = sqlx::query_scalar!(
        "insert into registry as r (tenant, generation)
        values ($1, 1)
        on conflict (tenant) do update set generation = r.generation + 1
        returning generation",
        tenant.as_str(),
    )
    .fetch_one(change)
    .await?;
    Ok(generation)
}
