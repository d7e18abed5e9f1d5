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
