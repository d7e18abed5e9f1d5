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

comment on table release is 'What a run pins: a definition''s version and a version of every component that it can call. Interned: the same content is one row.';
comment on column release.content_digest is 'SHA-256 over tenant, definition, its digest, and the components in order of their names.';

create table release_component (
    release_id bigint not null,
    component text collate "C" not null,
    digest bytea not null,
    constraint release_component_pkey primary key (release_id, component),
    constraint release_component_release foreign key (release_id) references release (release_id) on delete cascade,
    constraint release_component_digest check (octet_length(digest) = 32)
);

comment on table release_component is 'The components of a release. No foreign key to their versions: those go when only finished runs pin them.';

-- Store::delete_component_version: which releases hold this version?
create index release_component_by_digest on release_component (digest, component);
