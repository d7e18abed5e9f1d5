create table component_bytes (
    digest bytea not null,
    bytes bytea not null,
    size_bytes bigint not null,
    constraint component_bytes_pkey primary key (digest),
    constraint component_bytes_digest check (octet_length(digest) = 32)
);

-- WebAssembly is sent as it is and read whole: compressing it again costs time at every upload and load.
alter table component_bytes alter column bytes set storage external;

comment on table component_bytes is 'Uploaded components, each once whatever tenants and names it has.';
comment on column component_bytes.digest is 'SHA-256 of the bytes.';

create table component (
    tenant text collate "C" not null,
    name text collate "C" not null,
    active_digest bytea,
    constraint component_pkey primary key (tenant, name)
);

comment on table component is 'The names under which workflows call components.';
comment on column component.active_digest is 'The version that new runs pin; null until one is activated.';

create table component_version (
    tenant text collate "C" not null,
    name text collate "C" not null,
    digest bytea not null,
    uploaded_at timestamptz not null,
    exports json not null,
    wit text not null,
    constraint component_version_pkey primary key (tenant, name, digest),
    constraint component_version_component foreign key (tenant, name) references component (tenant, name) on delete cascade,
    constraint component_version_bytes foreign key (digest) references component_bytes (digest)
);

comment on table component_version is 'Every upload under a name; the same bytes twice are one version.';
comment on column component_version.exports is 'The exported functions and types as data (aster_core::wit::Exports), computed once at the upload.';
comment on column component_version.wit is 'The same as WIT text, for people.';

-- The check of component_version_bytes when a version's bytes are deleted.
create index component_version_by_digest on component_version (digest);

alter table component
    add constraint component_active foreign key (tenant, name, active_digest)
    references component_version (tenant, name, digest) deferrable initially deferred;

create table compiled_code (
    digest bytea not null,
    compatibility bytea not null,
    code bytea not null,
    tag bytea not null,
    used_at timestamptz not null,
    constraint compiled_code_pkey primary key (digest, compatibility),
    constraint compiled_code_component foreign key (digest) references component_bytes (digest) on delete cascade,
    constraint compiled_code_compatibility check (octet_length(compatibility) = 32)
);

-- As component_bytes: read whole and written once, and hosts wait for it.
alter table compiled_code alter column code set storage external;

comment on table compiled_code is 'Components as machine code, which hosts compile for each other. No host runs it before it has checked the tag: who can write here has no key.';
comment on column compiled_code.compatibility is 'SHA-256 of all that decides whether the code fits a host: Wasmtime''s version, processor, configuration. Hosts of two versions have two rows.';
comment on column compiled_code.tag is 'HMAC-SHA-256 over digest, compatibility and code, by a key that hosts have from their environment (sandbox::CodeKey).';
comment on column compiled_code.used_at is 'When a host last took the code, within a day. The next host that writes code of this component under another compatibility removes what has not been used for 30 days.';
