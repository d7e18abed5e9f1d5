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

comment on table definition_version is 'Holds every source that was deployed under a definition''s name.';
comment on column definition_version.name is 'The full name, module.function.';
comment on column definition_version.digest is 'The SHA-256 of the source.';
comment on column definition_version.source is 'The text of the whole file, which may have other definitions too.';
comment on column definition_version.file_name is 'The name of the file, as the deployment gave it.';
comment on column definition_version.plan is 'The plan (aster_core::plan::Plan) that the language made of the source. It carries its version, and the host never makes it again: a run in flight goes on with the plan with which it began.';
comment on column definition_version.deployed_at is 'The instant of the first deployment of this source.';

create table definition (
    tenant text collate "C" not null,
    name text collate "C" not null,
    current_digest bytea not null,
    trigger_path text collate "C",
    deployed_at timestamptz not null,
    constraint definition_pkey primary key (tenant, name),
    constraint definition_current foreign key (tenant, name, current_digest)
        references definition_version (tenant, name, digest),
    -- Postgres checks it at the commit, so that one deployment can hand a path from one definition to another.
    -- Its index serves Store::find_trigger.
    constraint definition_trigger_path unique (tenant, trigger_path) deferrable initially deferred
);

comment on table definition is 'Holds the current version of each definition.';
comment on column definition.name is 'The full name, module.function.';
comment on column definition.current_digest is 'The version that new runs pin.';
comment on column definition.trigger_path is 'The path at which the current version takes requests, copied from its plan. Null means that it has no trigger.';
comment on column definition.deployed_at is 'The instant when the current version became current.';
