create table workflow_order (
    workflow_id uuid not null,
    order_id uuid not null,
    content json not null,
    ordered_at timestamptz not null,
    constraint workflow_order_pkey primary key (workflow_id, order_id)
);

comment on table workflow_order is 'Holds what people ask of runs, such as a cancellation, until the host that drives the run has carried it out. An event names the order that it carries out, so a row that is still there afterwards does nothing. The table is mostly empty.';
comment on column workflow_order.order_id is 'A UUIDv7. The host carries out the orders for a run in the order of their ids.';
comment on column workflow_order.content is 'The order (aster_core::order::Order). Its field v is the version of its format.';

create table workflow_pin (
    workflow_id uuid not null,
    release_id bigint not null,
    constraint workflow_pin_pkey primary key (workflow_id, release_id)
);

comment on table workflow_pin is 'Holds the releases that a run needs beside its own. An operator who has a compensation tried again with other components adds one.';

create index workflow_pin_by_release on workflow_pin (release_id);

comment on index workflow_pin_by_release is 'Serves Store::delete_component_version: finds the runs that need a release beside their own.';
