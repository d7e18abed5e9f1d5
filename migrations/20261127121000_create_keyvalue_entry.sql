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

comment on table keyvalue_entry is 'What components keep through wasi:keyvalue. Names are in the C collation, so that SQL orders them, and commits lock them, as Rust does: by bytes.';
comment on column keyvalue_entry.value is 'Null: absent or deleted. The row stays, so that the key can be locked and never repeats a version.';
comment on column keyvalue_entry.version is 'Grows by one with each write and deletion; 0 until the first write.';
