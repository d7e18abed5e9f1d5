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

-- Takes an order for a run that is in one of p_statuses, and lets the run be claimed now if nobody drives it. The run's row
-- is locked first and the rest sees what the lock holds still. An order that comes just before its run is given back, to wait or
-- for good, is found there by Store::settle_stray_orders.
create function order_run(
    p_tenant text,
    p_workflow_id uuid,
    p_order_id uuid,
    p_content text,
    p_release_id bigint,
    p_at timestamptz,
    p_statuses text[]
)
returns table (taken boolean, current_status text)
language plpgsql
volatile
as $$
declare
    v_status text;
begin
    select r.status into v_status
    from workflow_run r
    where r.tenant = p_tenant and r.workflow_id = p_workflow_id
    for update;
    if not found then
        return;
    end if;
    if v_status = any (p_statuses) then
        insert into workflow_order (workflow_id, order_id, content, ordered_at)
        values (p_workflow_id, p_order_id, p_content::json, p_at)
        on conflict do nothing;
        if p_release_id is not null then
            insert into workflow_pin (workflow_id, release_id) values (p_workflow_id, p_release_id)
            on conflict do nothing;
        end if;
        update workflow_run r
        set wake_at = least(r.wake_at, p_at)
        where r.workflow_id = p_workflow_id and r.owner is null;
    end if;
    return query select v_status = any (p_statuses), v_status;
end;
$$;
