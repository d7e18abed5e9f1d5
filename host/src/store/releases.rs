//! What a run pins, and the registry as a host keeps it in memory.

use std::collections::BTreeMap;

use aster_core::id::{Digest, ReleaseId, TenantId};
use aster_core::plan::Plan;
use aster_core::wit::Exports;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection, PgConnection};

use super::components::current_generation;
use super::runs::parse_tenant;
use super::{Error, Store, check_name, digest, parse_json};

/// A version of a definition, and of every component that it can call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub tenant: TenantId,
    /// The full name.
    pub definition: String,
    pub definition_digest: Digest,
    /// By registered name.
    pub components: BTreeMap<String, Digest>,
}

impl Release {
    /// Every part is preceded by its length, so that no two contents look alike.
    fn content_digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(self.tenant.as_str().as_bytes());
        add(self.definition.as_bytes());
        add(&self.definition_digest.0);
        for (name, digest) in &self.components {
            add(name.as_bytes());
            add(&digest.0);
        }
        Digest(hash.finalize().into())
    }
}

/// A tenant's registry at one generation: what acceptance resolves releases from.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub generation: i64,
    /// By registered name; only those with an active version.
    pub components: BTreeMap<String, ActiveComponent>,
    /// By full name.
    pub definitions: BTreeMap<String, CurrentDefinition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveComponent {
    pub digest: Digest,
    pub exports: Exports,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CurrentDefinition {
    pub digest: Digest,
    /// Holds the trigger.
    pub plan: Plan,
}

impl Store {
    /// The id of a release, which is new or has been interned before.
    ///
    /// # Errors
    /// [`Error::Refused`] if the definition's version doesn't exist.
    pub async fn intern_release(&self, release: &Release) -> Result<ReleaseId, Error> {
        check_name("definition's name", &release.definition)?;
        let content = release.content_digest();
        let names: Vec<&str> = release.components.keys().map(String::as_str).collect();
        let digests: Vec<&[u8]> = release.components.values().map(|digest| &digest.0[..]).collect();
        if let Some(id) = self.find_release(content).await? {
            return Ok(id);
        }
        let inserted = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"with new as (
                        insert into release (tenant, definition, definition_digest, content_digest)
                        values ($1, $2, $3, $4)
                        on conflict (content_digest) do nothing
                        returning release_id
                    ), parts as (
                        insert into release_component (release_id, component, digest)
                        select new.release_id, part.component, part.digest
                        from new, unnest($5::text[], $6::bytea[]) as part (component, digest)
                    )
                    select release_id as "release_id!" from new"#,
                    release.tenant.as_str(),
                    release.definition,
                    &release.definition_digest.0[..],
                    &content.0[..],
                    &names as &[&str],
                    &digests as &[&[u8]],
                )
                .fetch_optional(connection)
            })
            .await?;
        if let Some(id) = inserted {
            return Ok(ReleaseId(id));
        }
        // Another host was first; a new statement sees its row.
        self.find_release(content).await?.ok_or_else(|| Error::corrupt("an interned release is gone"))
    }

    pub async fn load_release(&self, id: ReleaseId) -> Result<Option<Release>, Error> {
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select r.tenant, r.definition, r.definition_digest,
                        array(
                            select c.component from release_component c where c.release_id = r.release_id order by c.component
                        ) as "components!",
                        array(
                            select c.digest from release_component c where c.release_id = r.release_id order by c.component
                        ) as "digests!"
                    from release r
                    where r.release_id = $1"#,
                    id.0,
                )
                .fetch_optional(connection)
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        let components = row.components.into_iter().zip(&row.digests);
        Ok(Some(Release {
            tenant: parse_tenant(&row.tenant)?,
            definition: row.definition,
            definition_digest: digest(&row.definition_digest)?,
            components: components
                .map(|(name, bytes)| Ok((name, digest(bytes)?)))
                .collect::<Result<_, Error>>()?,
        }))
    }

    /// Which generation of a tenant's registry is current; 0 if nothing was ever activated or deployed.
    pub async fn generation(&self, tenant: &TenantId) -> Result<i64, Error> {
        self.connection().await?.ask(|connection| current_generation(connection, tenant)).await
    }

    /// The registry as of one instant.
    pub async fn registry_snapshot(&self, tenant: &TenantId) -> Result<Snapshot, Error> {
        self.connection().await?.ask(|connection| snapshot(connection, tenant)).await
    }

    async fn find_release(&self, content: Digest) -> Result<Option<ReleaseId>, Error> {
        let id = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select release_id from release where content_digest = $1",
                    &content.0[..]
                )
                .fetch_optional(connection)
            })
            .await?;
        Ok(id.map(ReleaseId))
    }
}

async fn snapshot(connection: &mut PgConnection, tenant: &TenantId) -> Result<Snapshot, Error> {
    let mut view = connection.begin_with("begin isolation level repeatable read read only").await?;
    let generation = current_generation(&mut view, tenant).await?;
    let components = sqlx::query!(
        r#"select c.name, v.digest, v.exports::text as "exports!"
        from component c
        join component_version v on v.tenant = c.tenant and v.name = c.name and v.digest = c.active_digest
        where c.tenant = $1"#,
        tenant.as_str(),
    )
    .fetch_all(&mut *view)
    .await?;
    let definitions = sqlx::query!(
        r#"select d.name, v.digest, v.plan::text as "plan!"
        from definition d
        join definition_version v on v.tenant = d.tenant and v.name = d.name and v.digest = d.current_digest
        where d.tenant = $1"#,
        tenant.as_str(),
    )
    .fetch_all(&mut *view)
    .await?;
    view.commit().await?;

    // A tenant may have so much of both that reading it would hold a thread that serves.
    let read = tokio::task::spawn_blocking(move || {
        let components = components.into_iter().map(|row| {
            let exports = parse_json("the exports of a component", &row.exports)?;
            Ok((row.name, ActiveComponent { digest: digest(&row.digest)?, exports }))
        });
        let definitions = definitions.into_iter().map(|row| {
            let plan = parse_json("a plan", &row.plan)?;
            Ok((row.name, CurrentDefinition { digest: digest(&row.digest)?, plan }))
        });
        Ok(Snapshot {
            generation,
            components: components.collect::<Result<_, Error>>()?,
            definitions: definitions.collect::<Result<_, Error>>()?,
        })
    });
    read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
