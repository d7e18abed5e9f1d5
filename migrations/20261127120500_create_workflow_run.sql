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
    -- No host claims a run that a host drives.
    constraint workflow_run_driven_or_waking check (owner is null or wake_at is null),
    -- A host drives an unfinished run, or a host will claim it: none is forgotten.
    constraint workflow_run_not_forgotten check (
        status in ('COMPLETED', 'FAILED', 'COMPENSATED', 'COMPENSATION_FAILED')
        or owner is not null
        or wake_at is not null
    )
) with (
    fillfactor = 80,
    -- A run that ends leaves a row version and an entry in the index by owner, which takeovers walk. A run that has waited leaves
    -- an entry in the index by wake_at, which claims walk. By default a vacuum waits until a fifth of the table is like that.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000
);

comment on table workflow_run is 'Holds one row for each accepted run: what was accepted, and what the run''s events make of it. Lists and claims read the row and replay nothing.';
comment on column workflow_run.workflow_id is 'A UUIDv7, which begins with the instant of the acceptance.';
comment on column workflow_run.definition is 'The full name, module.function.';
comment on column workflow_run.release_id is 'The pinned release. It has no foreign key, because the check would make every acceptance lock the same row.';
comment on column workflow_run.key is 'The caller''s idempotency key. workflow_key names the newest run of each key.';
comment on column workflow_run.previous_workflow_id is 'The failed run from which this run took the key.';
comment on column workflow_run.input is 'The run''s input, as JSON that fits the definition''s parameters.';
comment on column workflow_run.cause is 'Why the run failed: a step, a timeout, or a cancellation. Null means that it hasn''t failed.';
comment on column workflow_run.result is 'The value that a COMPLETED run returned. Null for every other run.';
comment on column workflow_run.error is 'The failure (aster_core::event::Failure) that ended the run, or the first one in undoing it.';
comment on column workflow_run.updated_at is 'The instant when a transition last wrote this row. An unfinished run may have a newer event.';
comment on column workflow_run.deadline is 'The instant at which a run that is still READY or RUNNING fails with the cause TIMEOUT.';
comment on column workflow_run.owner is 'The host that drives the run, which no other host may write. Null means that no host drives it. It has no foreign key, for the reason given at release_id.';
comment on column workflow_run.fence is 'Every change of the owner raises it, and so does a host that settles a lost answer or makes sure of a run (Store::adopt). A commit under an older fence is refused.';
comment on column workflow_run.last_sequence is 'The sequence of the run''s newest event when a transition last wrote this row, and 0 before the first event. The log of an unfinished run may be ahead.';
comment on column workflow_run.wake_at is 'From this instant on any host may claim the run. Null means that a host drives the run, or that the run is over.';
comment on column workflow_run.host_lost is 'True means that a host that drove the run was found dead since the run''s newest event, so that attempts may have been cut off. A host that leaves in order doesn''t set it.';

create index workflow_run_by_wake_at on workflow_run (wake_at) where wake_at is not null;
create index workflow_run_by_owner on workflow_run (owner) where owner is not null;
create index workflow_run_by_tenant on workflow_run (tenant, workflow_id);
-- The release stands first and not the definition, because its number is short. A list goes through the releases of its
-- definition or tenant.
create index workflow_run_by_release on workflow_run (release_id, status, workflow_id);
-- A run that goes well costs this index nothing.
create index workflow_run_by_cause on workflow_run (release_id, cause, status, workflow_id) where cause is not null;

comment on index workflow_run_by_wake_at is 'Serves Store::claim and Store::count_due: finds the runs that any host may claim now.';
comment on index workflow_run_by_owner is 'Serves Store::owned, Store::retire_host and Store::fence_off_dead_hosts: finds the runs that a host owns.';
comment on index workflow_run_by_tenant is 'Serves Store::list_runs without a filter: finds a tenant''s newest runs.';
comment on index workflow_run_by_release is 'Serves Store::list_runs by status or definition, Store::run_ids_by_status, and Store::delete_component_version, which looks for unfinished runs that pin a version.';
comment on index workflow_run_by_cause is 'Serves Store::list_runs by cause.';

create table workflow_key (
    tenant text collate "C" not null,
    definition text collate "C" not null,
    key text collate "C" not null,
    workflow_id uuid not null,
    input_digest bytea not null,
    constraint workflow_key_pkey primary key (tenant, definition, key),
    constraint workflow_key_input_digest check (octet_length(input_digest) = 32)
);

comment on table workflow_key is 'Holds the newest run of each idempotency key. An acceptance writes this row before the run, and only the acceptance that inserts or updates it inserts a run.';
comment on column workflow_key.definition is 'The full name, module.function. Each definition has its own keys.';
comment on column workflow_key.input_digest is 'The SHA-256 of that run''s input as canonical JSON (RFC 8785). The same key with the same input is the same run.';
