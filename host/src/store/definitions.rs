//! Definitions, their versions, and the paths that trigger them.

use aster_core::id::{Digest, TenantId};
use aster_core::plan::Plan;
use aster_core::time::Timestamp;
use sqlx::PgConnection;

use super::components::{Registered, change_registry, current_generation, raise_generation};
use super::{Error, Listed, Store, check_name, count, digest, instant, parse_json, to_json};

/// One function of a source file that is to be deployed.
#[derive(Clone, Copy, Debug)]
pub struct NewDefinition<'a> {
    /// SHA-256 of `source`.
    pub digest: Digest,
    /// Of the whole file.
    pub source: &'a str,
    pub file_name: &'a str,
    /// Holds the full name and the trigger.
    pub plan: &'a Plan,
}

/// A definition and what it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The full name.
    pub name: String,
    /// When its current version became current.
    pub deployed_at: Timestamp,
    pub trigger_path: Option<String>,
    pub current: DefinitionVersion,
    /// All versions, and when each was first deployed, newest first.
    pub versions: Vec<(Digest, Timestamp)>,
}

/// A definition in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDefinition {
    /// The full name.
    pub name: String,
    /// When its current version became current.
    pub deployed_at: Timestamp,
    pub trigger_path: Option<String>,
    /// The current version.
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DefinitionVersion {
    /// SHA-256 of the source.
    pub digest: Digest,
    pub source: String,
    pub file_name: String,
    pub plan: Plan,
    pub deployed_at: Timestamp,
}

/// What came of one definition of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    pub name: String,
    pub digest: Digest,
    /// False if this version was the current one already.
    pub is_new: bool,
}

impl Store {
    /// Deploys definitions, all or none. `checked_at` is the registry's generation against which they were checked.
    /// The same source again is the same version, with the plan that it got first.
    ///
    /// # Errors
    /// [`Error::PathTaken`], [`Error::RegistryMoved`].
    pub async fn deploy_definitions(
        &self,
        tenant: &TenantId,
        definitions: &[NewDefinition<'_>],
        deployed_at: Timestamp,
        checked_at: i64,
    ) -> Result<(Vec<Deployed>, Registered), Error> {
        self.connection()
            .await?
            .ask(|connection| deploy(connection, tenant, definitions, deployed_at, checked_at))
            .await
    }

    /// A tenant's definitions after the full name `after`, in the order of their names.
    pub async fn list_definitions(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<ListedDefinition>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    "select name, deployed_at, trigger_path, current_digest
                    from definition
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
            Ok(ListedDefinition {
                digest: digest(&row.current_digest)?,
                name: row.name,
                deployed_at: row.deployed_at.into(),
                trigger_path: row.trigger_path,
            })
        });
        Ok(Listed::first(limit, found.collect::<Result<_, Error>>()?))
    }

    /// The definition with this full name, or else those whose function has it: more than one means that it isn't unique.
    pub async fn find_definitions(&self, tenant: &TenantId, name: &str) -> Result<Vec<Definition>, Error> {
        if name.contains('\0') {
            return Ok(Vec::new());
        }
        let found = self.definitions(tenant, name).await?;
        match found.iter().position(|definition| definition.name == name) {
            Some(i) => Ok(found.into_iter().skip(i).take(1).collect()),
            None => Ok(found),
        }
    }

    /// One version of a definition, by its full name.
    pub async fn load_definition_version(
        &self,
        tenant: &TenantId,
        name: &str,
        digest: Digest,
    ) -> Result<Option<DefinitionVersion>, Error> {
        if name.contains('\0') {
            return Ok(None);
        }
        let row = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select source, file_name, plan::text as "plan!", deployed_at
                    from definition_version
                    where tenant = $1 and name = $2 and digest = $3"#,
                    tenant.as_str(),
                    name,
                    &digest.0[..],
                )
                .fetch_optional(connection)
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(DefinitionVersion {
            digest,
            source: row.source,
            file_name: row.file_name,
            plan: parse_json("a plan", &row.plan)?,
            deployed_at: row.deployed_at.into(),
        }))
    }

    /// The full name of the definition that answers a path.
    pub async fn find_trigger(&self, tenant: &TenantId, path: &str) -> Result<Option<String>, Error> {
        if path.contains('\0') {
            return Ok(None);
        }
        let name = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select name from definition where tenant = $1 and trigger_path = $2",
                    tenant.as_str(),
                    path,
                )
                .fetch_optional(connection)
            })
            .await?;
        Ok(name)
    }

    async fn definitions(&self, tenant: &TenantId, name: &str) -> Result<Vec<Definition>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select d.name, d.deployed_at, d.trigger_path, d.current_digest, c.source, c.file_name,
                        c.plan::text as "plan!", c.deployed_at as version_deployed_at,
                        array(
                            select v.digest
                            from definition_version v
                            where v.tenant = d.tenant and v.name = d.name
                            order by v.deployed_at desc, v.digest
                        ) as "digests!",
                        array(
                            select v.deployed_at
                            from definition_version v
                            where v.tenant = d.tenant and v.name = d.name
                            order by v.deployed_at desc, v.digest
                        ) as "instants!"
                    from definition d
                    join definition_version c on c.tenant = d.tenant and c.name = d.name and c.digest = d.current_digest
                    where d.tenant = $1
                        and (d.name = $2 or right(d.name, length($2) + 1) = '.' || $2)
                    order by d.name"#,
                    tenant.as_str(),
                    name,
                )
                .fetch_all(connection)
            })
            .await?;
        rows.into_iter()
            .map(|row| {
                let current = DefinitionVersion {
                    digest: digest(&row.current_digest)?,
                    source: row.source,
                    file_name: row.file_name,
                    plan: parse_json("a plan", &row.plan)?,
                    deployed_at: row.version_deployed_at.into(),
                };
                let versions = row.digests.iter().zip(row.instants);
                Ok(Definition {
                    name: row.name,
                    deployed_at: row.deployed_at.into(),
                    trigger_path: row.trigger_path,
                    current,
                    versions: versions
                        .map(|(bytes, at)| Ok((digest(bytes)?, at.into())))
                        .collect::<Result<_, Error>>()?,
                })
            })
            .collect()
    }
}

async fn deploy(
    connection: &mut PgConnection,
    tenant: &TenantId,
    definitions: &[NewDefinition<'_>],
    deployed_at: Timestamp,
    checked_at: i64,
) -> Result<(Vec<Deployed>, Registered), Error> {
    let mut change = change_registry(connection, tenant, Some(checked_at)).await?;
    let mut deployed = Vec::new();
    for definition in definitions {
        let name = &definition.plan.name;
        check_name("definition's name", name)?;
        let path = definition.plan.trigger.as_ref().map(|trigger| trigger.path.as_str());
        path.map_or(Ok(()), |path| check_name("trigger's path", path))?;
        sqlx::query!(
            "insert into definition_version (tenant, name, digest, source, file_name, plan, deployed_at)
            values ($1, $2, $3, $4, $5, $6::text::json, $7)
            on conflict do nothing",
            tenant.as_str(),
            name,
            &definition.digest.0[..],
            definition.source,
            definition.file_name,
            to_json("the plan", definition.plan)?,
            instant(deployed_at),
        )
        .execute(&mut *change)
        .await?;
        let changed = sqlx::query!(
            "insert into definition as d (tenant, name, current_digest, trigger_path, deployed_at)
            values ($1, $2, $3, $4, $5)
            on conflict (tenant, name) do update
            set current_digest = excluded.current_digest,
                trigger_path = excluded.trigger_path,
                deployed_at = excluded.deployed_at
            where d.current_digest <> excluded.current_digest",
            tenant.as_str(),
            name,
            &definition.digest.0[..],
            path,
            instant(deployed_at),
        )
        .execute(&mut *change)
        .await?;
        deployed.push(Deployed {
            name: name.clone(),
            digest: definition.digest,
            is_new: changed.rows_affected() > 0,
        });
    }
    let taken = sqlx::query!(
        r#"select a.trigger_path as "path!", min(a.name) as "one!", max(a.name) as "other!"
        from definition a
        where a.tenant = $1 and a.trigger_path is not null
        group by a.trigger_path
        having count(*) > 1
        limit 1"#,
        tenant.as_str(),
    )
    .fetch_optional(&mut *change)
    .await?;
    if let Some(row) = taken {
        let is_deployed = deployed.iter().any(|definition| definition.name == row.one);
        let definition = if is_deployed { row.other } else { row.one };
        return Err(Error::PathTaken { path: row.path, definition });
    }
    let is_new = deployed.iter().any(|definition| definition.is_new);
    let generation = match is_new {
        true => raise_generation(&mut change, tenant).await?,
        false => current_generation(&mut change, tenant).await?,
    };
    change.commit().await?;
    Ok((deployed, Registered { is_new, generation }))
}
