create table component_bytes (
    digest bytea not null,
    bytes bytea not null,
    size_bytes bigint not null,
    constraint component_bytes_pkey primary key (digest),
    constraint component_bytes_digest check (octet_length(digest) = 32)
);

-- A host sends these bytes as they are and reads them whole. Postgres would spend time on compressing them at every upload and
-- on unpacking them at every load, and save little.
alter table component_bytes alter column bytes set storage external;

comment on table component_bytes is 'Holds the uploaded components. The same bytes are stored once, however many tenants and names have them.';
comment on column component_bytes.digest is 'The SHA-256 of the bytes.';
comment on column component_bytes.bytes is 'The WebAssembly component in its binary form, as it was uploaded.';
comment on column component_bytes.size_bytes is 'The length of the bytes. Lists of components show it without reading the bytes.';

create table component (
    tenant text collate "C" not null,
    name text collate "C" not null,
    active_digest bytea,
    constraint component_pkey primary key (tenant, name)
);

comment on table component is 'Holds the names under which workflows call components.';
comment on column component.active_digest is 'The version that new runs pin. Null means that no version is active yet.';

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

comment on table component_version is 'Holds every upload under a name. The same bytes uploaded twice under one name are one version.';
comment on column component_version.digest is 'The SHA-256 of the bytes, which are in component_bytes.';
comment on column component_version.uploaded_at is 'The instant of the first upload of these bytes under this name.';
comment on column component_version.exports is 'The exported functions and types as data (aster_core::wit::Exports). The host computes them once, at the upload.';
comment on column component_version.wit is 'The exports as WIT text, for people to read.';

create index component_version_by_digest on component_version (digest);

comment on index component_version_by_digest is 'Serves Store::delete_component_version, which keeps the bytes while another version has them, and the check of component_version_bytes when the bytes go.';

-- This constraint comes after both tables, because they refer to each other.
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

-- A host writes the code once and reads it whole, as it does with component_bytes, and other hosts wait for it.
alter table compiled_code alter column code set storage external;

comment on table compiled_code is 'Holds components as machine code, which hosts compile for each other. A host checks the tag before it runs the code, because a program that can write here doesn''t have the key.';
comment on column compiled_code.digest is 'The SHA-256 of the component''s bytes, not of the code.';
comment on column compiled_code.compatibility is 'The SHA-256 of everything that decides whether the code fits a host: the version of Wasmtime, the processor and the configuration. Hosts of two versions keep two rows.';
comment on column compiled_code.code is 'The machine code, as Wasmtime serialises it.';
comment on column compiled_code.tag is 'The HMAC-SHA-256 over digest, compatibility and code. Hosts have its key from their environment (sandbox::CodeKey).';
comment on column compiled_code.used_at is 'The instant when a host last took the code, to within a day. A host that writes code of this component under another compatibility removes the rows that no host has used for 30 days.';
