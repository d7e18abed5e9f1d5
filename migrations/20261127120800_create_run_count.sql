-- How many runs are in each status: kept by whoever changes a run, since counting the rows of a large history takes longer than
-- anybody waits.
create table run_count (
    host_id uuid not null,
    by_acceptance boolean not null,
    tenant text collate "C" not null,
    definition text collate "C" not null,
    status text collate "C" not null,
    n bigint not null,
    constraint run_count_pkey primary key (tenant, definition, status, host_id, by_acceptance)
) with (
    fillfactor = 50,
    -- A few rows, written with every batch of acceptances and of endings.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000
);

comment on table run_count is 'Changed once for each batch of commits, and summed by who reads. A row for each host, so that hosts don''t wait for each other''s.';
comment on column run_count.host_id is 'Who counted. All zeros: the runs that were there before this table was, those that went by retention, and what hosts counted that are gone.';
comment on column run_count.by_acceptance is 'Whether acceptances count here, or commits: a host makes them over two connections, of which one would else wait for the flush of the other.';
comment on column run_count.n is 'A run that one host accepted and another one ended is less than nothing for the latter.';
