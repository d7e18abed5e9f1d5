create table release (
    release_id bigint not null generated always as identity,
    tenant text collate "C" not null,
    definition text collate "C" not null,
    definition_digest bytea not null,
    content_digest bytea not null,
    constraint release_pkey primary key (release_id),
    constraint release_content unique (content_digest),
    constraint release_definition foreign key (tenant, definition, definition_digest)
        references definition_version (tenant, name, digest)
);

comment on table release is 'Holds what runs pin: the version of a definition, and a version of every component that the definition can call. The same content is one row.';
comment on column release.release_id is 'A short number, since each run and its indexes carry it.';
comment on column release.definition is 'The full name, module.function.';
comment on column release.definition_digest is 'The SHA-256 of the definition''s source.';
comment on column release.content_digest is 'The SHA-256 over the tenant, the definition, its digest, and the components in the order of their names. The host finds a release by it.';

create table release_component (
    release_id bigint not null,
    component text collate "C" not null,
    digest bytea not null,
    constraint release_component_pkey primary key (release_id, component),
    constraint release_component_release foreign key (release_id) references release (release_id) on delete cascade,
    constraint release_component_digest check (octet_length(digest) = 32)
);

comment on table release_component is 'Holds the components of each release. No foreign key leads to component_version, because a version may be deleted once only finished runs pin it.';
comment on column release_component.component is 'The name under which the component is registered.';
comment on column release_component.digest is 'The pinned version of the component.';

create index release_component_by_digest on release_component (digest, component);

comment on index release_component_by_digest is 'Serves Store::delete_component_version: finds the releases that hold a version.';
