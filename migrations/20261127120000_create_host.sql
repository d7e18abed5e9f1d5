create table host (
    host_id uuid not null,
    name text not null,
    started_at timestamptz not null,
    lease_ends_at timestamptz not null,
    retired_at timestamptz,
    orderly boolean not null default false,
    constraint host_pkey primary key (host_id)
);

comment on table host is 'Holds one row for each start of a host. The lease stands here and not on each run, so a waiting run costs no renewal.';
comment on column host.host_id is 'A UUIDv7. The host draws it when it starts, so two starts on one machine are two hosts.';
comment on column host.name is 'A name for people to read. Two hosts may have the same name.';
comment on column host.lease_ends_at is 'Until this instant no other host drives the runs that this host owns. The host itself moves it forward, by Postgres''s clock.';
comment on column host.retired_at is 'The instant when the host left, or when another host found it dead. From then on the host can''t renew its lease, and other hosts take its runs. Null while the host lives.';
comment on column host.orderly is 'True means that the host stopped its runs and then left by itself. False means that it lives, or that another host found it dead.';
