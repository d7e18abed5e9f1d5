create table host (
    host_id uuid not null,
    name text not null,
    started_at timestamptz not null,
    lease_ends_at timestamptz not null,
    retired_at timestamptz,
    orderly boolean not null default false,
    constraint host_pkey primary key (host_id)
);

comment on table host is 'One row for each start of a host. The lease is here and not on the runs, so that waiting runs cost no renewals.';
comment on column host.name is 'For people; two hosts may have the same.';
comment on column host.lease_ends_at is 'Until then the host alone drives the runs that it owns. Moved forward by the host itself.';
comment on column host.retired_at is 'Set when the host left or was found dead: its lease can''t be renewed any more, and its runs are released.';
comment on column host.orderly is 'Whether it left by itself, after it had stopped its runs; false while it lives, and if it was found dead.';
