create table workflow_order (
    workflow_id uuid not null,
    order_id uuid not null,
    content json not null,
    ordered_at timestamptz not null,
    constraint workflow_order_pkey primary key (workflow_id, order_id)
);

comment on table workflow_order is 'What people want of runs, until whoever drives the run has carried it out. An event names the order that it carries out, so a row that outlives it does nothing. Mostly empty.';
comment on column workflow_order.order_id is 'A UUIDv7: orders are carried out in the order in which they came.';
comment on column workflow_order.content is 'Versioned (field v): aster_core::order::Order.';

create table workflow_pin (
    workflow_id uuid not null,
    release_id bigint not null,
    constraint workflow_pin_pkey primary key (workflow_id, release_id)
);

comment on table workflow_pin is 'Releases that a run needs beside its own: an operator wants a compensation to be tried with other components.';

-- Store::delete_component_version: which runs need a release?
create index workflow_pin_by_release on workflow_pin (release_id);
