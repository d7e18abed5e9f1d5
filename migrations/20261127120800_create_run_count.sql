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
    -- The table has a few rows, and every batch of acceptances and of endings writes them.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000
);

comment on table run_count is 'Says how many runs are in each status. Every statement that changes a run''s status changes it, once for a batch, because counting the runs of a long history takes too long. Each host writes rows of its own, so that no host waits for another. A reader sums them.';
comment on column run_count.host_id is 'The host that counted. All zeros stand for the counts that no living host keeps: acceptances that no host owns, runs that retention deleted, and the counts of hosts that are gone.';
comment on column run_count.by_acceptance is 'True means that acceptances count here, false that commits do. A host sends them over two connections, and with one row the one would wait until the other''s commit is on disk.';
comment on column run_count.definition is 'The full name, module.function.';
comment on column run_count.n is 'What the rows of one status add up to is the number of runs. One row alone may be negative: the host ended a run that another host accepted.';
