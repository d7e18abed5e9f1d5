//! Compiled code that hosts share. What it is and whether it can be trusted is the sandbox's business.

use aster_core::id::Digest;
use aster_core::time::Timestamp;

use super::{Error, Store, count, digest, instant};

/// Machine code, and what shows who has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledCode {
    pub code: Vec<u8>,
    pub tag: Vec<u8>,
}

impl Store {
    /// The code of a component for hosts of that compatibility, if one of them has kept it.
    pub async fn load_code(
        &self,
        component: Digest,
        compatibility: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<CompiledCode>, Error> {
        self.connection()
            .await?
            .patiently()
            .ask(|connection| {
                sqlx::query_as!(
                    CompiledCode,
                    "with touched as (
                        update compiled_code
                        set used_at = $3
                        where digest = $1 and compatibility = $2
                            and used_at < $3::timestamptz - interval '1 day'
                    )
                    select code, tag
                    from compiled_code
                    where digest = $1 and compatibility = $2",
                    &component.0[..],
                    &compatibility[..],
                    instant(now),
                )
                .fetch_optional(connection)
            })
            .await
    }

    /// Keeps the code of a component, in the place of what is there under that compatibility. Does nothing for a component whose
    /// bytes are not kept.
    ///
    /// What was compiled for other hosts stays while there may be such: hosts are brought to a new version one after the other,
    /// and may go back. So what none has taken for 30 days goes, and goes only when a component is compiled for hosts of another
    /// kind: what is the newest stays, however long no host has been started.
    pub async fn put_code(
        &self,
        component: Digest,
        compatibility: [u8; 32],
        compiled: &CompiledCode,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.connection()
            .await?
            .patiently()
            .ask(|connection| {
                sqlx::query!(
                    "with outdated as (
                        delete from compiled_code
                        where digest = $1 and compatibility <> $2
                            and used_at < $5::timestamptz - interval '30 days'
                    )
                    insert into compiled_code (digest, compatibility, code, tag, used_at)
                    select b.digest, $2, $3, $4, $5
                    from component_bytes b
                    where b.digest = $1
                    on conflict (digest, compatibility) do update
                    set code = excluded.code, tag = excluded.tag, used_at = excluded.used_at",
                    &component.0[..],
                    &compatibility[..],
                    &compiled.code,
                    &compiled.tag,
                    instant(now),
                )
                .execute(connection)
            })
            .await?;
        Ok(())
    }

    /// Those of `components` without code for hosts of that compatibility.
    pub async fn missing_code(
        &self,
        components: &[Digest],
        compatibility: [u8; 32],
    ) -> Result<Vec<Digest>, Error> {
        let components: Vec<&[u8]> = components.iter().map(|component| &component.0[..]).collect();
        let missing = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"select wanted.digest as "digest!"
                    from unnest($1::bytea[]) as wanted (digest)
                    where not exists (
                        select from compiled_code c where c.digest = wanted.digest and c.compatibility = $2
                    )"#,
                    &components as &[&[u8]],
                    &compatibility[..],
                )
                .fetch_all(connection)
            })
            .await?;
        missing.iter().map(|bytes| digest(bytes)).collect()
    }

    /// The components that some tenant's new runs may call, those that were uploaded last first.
    pub async fn active_components(&self, limit: usize) -> Result<Vec<Digest>, Error> {
        let active = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select v.digest
                    from component c
                    join component_version v on v.tenant = c.tenant and v.name = c.name and v.digest = c.active_digest
                    group by v.digest
                    order by max(v.uploaded_at) desc
                    limit $1",
                    count(limit),
                )
                .fetch_all(connection)
            })
            .await?;
        active.iter().map(|bytes| digest(bytes)).collect()
    }

    /// The names under which tenants have that component active, as `name` or `tenant/name`, a few at most.
    pub async fn active_names(&self, component: Digest) -> Result<Vec<String>, Error> {
        self.connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"select case c.tenant when 'default' then c.name else c.tenant || '/' || c.name end as "name!"
                    from component c
                    where c.active_digest = $1
                    order by c.tenant, c.name
                    limit 5"#,
                    &component.0[..],
                )
                .fetch_all(connection)
            })
            .await
    }
}
