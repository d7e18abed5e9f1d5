create table workflow_run (
    workflow_id uuid not null,
    tenant text collate "C" not null,
    definition text collate "C" not null,
    release_id bigint not null,
    key text collate "C",
    previous_workflow_id uuid,
    input json not null,
    status text collate "C" not null,
    cause text collate "C",
    result json,
    error json,
    accepted_at timestamptz not null,
    updated_at timestamptz not null,
    deadline timestamptz not null,
    owner uuid,
    fence bigint not null,
    last_sequence bigint not null,
    wake_at timestamptz,
    host_lost boolean not null default false,
    constraint workflow_run_pkey primary key (workflow_id),
    constraint workflow_run_status check (
        status in ('READY', 'RUNNING', 'COMPLETED', 'FAILED', 'COMPENSATING', 'COMPENSATED', 'COMPENSATION_FAILED')
    ),
    constraint workflow_run_cause check (cause in ('STEP', 'TIMEOUT', 'CANCEL')),
    -- A run that is driven is not claimed, and one that is unfinished is driven or will be claimed: none is forgotten.
    constraint workflow_run_driven_or_waking check (owner is null or wake_at is null),
    constraint workflow_run_not_forgotten check (
        status in ('COMPLETED', 'FAILED', 'COMPENSATED', 'COMPENSATION_FAILED')
        or owner is not null
        or wake_at is not null
    )
) with (
    fillfactor = 80,
    -- Each run that ends leaves a row version and an entry in the index by owner, over which takeovers walk; one that has waited leaves one
    -- in that by wake_at, over which claims walk. By default a vacuum waits until a fifth of the table is like that.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000
);

comment on table workflow_run is 'One row for each accepted run: what was accepted, and what its events make of it, kept beside them so that lists and claims need no replay.';
comment on column workflow_run.workflow_id is 'A UUIDv7.';
comment on column workflow_run.definition is 'The full name, module.function.';
comment on column workflow_run.release_id is 'The pinned release. No foreign key: its check would make every acceptance lock the same row.';
comment on column workflow_run.key is 'The caller''s idempotency key; workflow_key says which run is its newest.';
comment on column workflow_run.previous_workflow_id is 'The failed run from which this one took the key.';
comment on column workflow_run.result is 'Only of a COMPLETED run.';
comment on column workflow_run.error is 'Why it failed, or what failed first in undoing it.';
comment on column workflow_run.updated_at is 'When a transition last wrote this row. While the run isn''t over its newest event may be younger.';
comment on column workflow_run.owner is 'The host that drives the run and alone may write it. No foreign key: see release_id.';
comment on column workflow_run.fence is 'Raised at each change of owner and when a lost answer is settled; a commit under an older one is refused.';
comment on column workflow_run.last_sequence is 'Of its newest event when this row was last written; 0 before the first. While the run isn''t over its log may be ahead.';
comment on column workflow_run.wake_at is 'From then on any host may claim the run. Null while it is driven or over.';
comment on column workflow_run.host_lost is 'Whether a host that drove the run was found dead since its newest event: attempts of it may have been cut off. Not set where a host left in order.';

-- Store::claim: whose turn has come?
create index workflow_run_by_wake_at on workflow_run (wake_at) where wake_at is not null;
-- Store::owned, Store::retire_host and Store::fence_off_dead_hosts: what does a host own?
create index workflow_run_by_owner on workflow_run (owner) where owner is not null;
-- Store::list_runs: the newest of a tenant, also those that are COMPLETED.
create index workflow_run_by_tenant on workflow_run (tenant, workflow_id);
-- Store::list_runs and Store::run_ids_by_status by status or definition, and which unfinished runs pin a component version.
-- By release and not by definition, because its number is short; a list goes through the releases of its definition or tenant.
create index workflow_run_by_release on workflow_run (release_id, status, workflow_id);
-- Store::list_runs by cause. A run that goes well costs this index nothing.
create index workflow_run_by_cause on workflow_run (release_id, cause, status, workflow_id) where cause is not null;

create table workflow_key (
    tenant text collate "C" not null,
    definition text collate "C" not null,
    key text collate "C" not null,
    workflow_id uuid not null,
    input_digest bytea not null,
    constraint workflow_key_pkey primary key (tenant, definition, key),
    constraint workflow_key_input_digest check (octet_length(input_digest) = 32)
);

comment on table workflow_key is 'The newest run of each key. Its row is inserted before the run, and only who inserts or updates it inserts a run.';
comment on column workflow_key.input_digest is 'SHA-256 of that run''s input as canonical JSON (RFC 8785): the same key with the same input is the same run.';
