-- Takes an order for a run that is in one of p_statuses. If no host drives the run, any host may claim it from p_at on.
-- Returns whether the order was taken, and the run's status; no row means that the tenant has no such run.
--
-- The function locks the run's row first, and each later statement takes a new snapshot, so the lock holds still what they see.
-- An order may come just before a host gives its run back, to wait or for good. Store::settle_stray_orders finds it then.
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
