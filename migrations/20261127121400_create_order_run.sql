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
