create table definition_version (
    tenant text collate "C" not null,
    name text collate "C" not null,
    digest bytea not null,
    source text not null,
    file_name text not null,
    plan json not null,
    deployed_at timestamptz not null,
    constraint definition_version_pkey primary key (tenant, name, digest),
    constraint definition_version_digest check (octet_length(digest) = 32)
);

comment on table definition_version is 'Every source that was deployed under a definition''s name.';
comment on column definition_version.digest is 'SHA-256 of the source text of the whole file.';
comment on column definition_version.plan is 'What the source was checked and lowered to (aster_core::plan::Plan): versioned, never made again for a run in flight.';
comment on column definition_version.deployed_at is 'When this source was first deployed.';

create table definition (
    tenant text collate "C" not null,
    name text collate "C" not null,
    current_digest bytea not null,
    trigger_path text collate "C",
    deployed_at timestamptz not null,
    constraint definition_pkey primary key (tenant, name),
    constraint definition_current foreign key (tenant, name, current_digest)
        references definition_version (tenant, name, digest),
    -- Deferred, so that one deployment can hand a path from one definition to another.
    constraint definition_trigger_path unique (tenant, trigger_path) deferrable initially deferred
);

comment on table definition is 'The current version of each definition.';
comment on column definition.name is 'The full name, module.function.';
comment on column definition.trigger_path is 'The path that the current version answers, from its plan; null without a trigger.';
comment on column definition.deployed_at is 'When the current version became current.';
