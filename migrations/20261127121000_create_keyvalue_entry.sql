create table keyvalue_entry (
    tenant text collate "C" not null,
    component text collate "C" not null,
    bucket text collate "C" not null,
    key text collate "C" not null,
    value bytea,
    version bigint not null default 0,
    constraint keyvalue_entry_pkey primary key (tenant, component, bucket, key),
    constraint keyvalue_entry_version check (version >= 0)
) with (
    fillfactor = 80,
    -- Each write of a key leaves a row version.
    autovacuum_vacuum_scale_factor = 0.05
);

comment on table keyvalue_entry is 'Holds what components keep through wasi:keyvalue. Its names are in the C collation: SQL then orders them by bytes, as Rust does, and commits lock them in that order.';
comment on column keyvalue_entry.component is 'The name under which the component is registered.';
comment on column keyvalue_entry.value is 'Null means that the key has no value. The row of a deleted key stays, so that a commit can lock it and no version comes twice.';
comment on column keyvalue_entry.version is 'Each write and each deletion adds 1. It is 0 before the first write.';
