-- Accepts one run, or says which run already has its key. The outcomes are:
--   NEW       The run was inserted, or an earlier call inserted it. other_workflow_id is the failed run whose key it took, if any.
--   EXISTING  The key's newest run has the same input: it is the answer.
--   REUSED    The key's newest run has other input, and it didn't fail with everything undone.
--   MOVED     The registry has changed since the generation p_generation: the caller resolves the release again.
--
-- The function writes the key's row first, and only the call that inserts or updates that row inserts a run. Each statement takes
-- a new snapshot, so a call that loses a race sees the winner's rows. A caller whose answer was lost may send the same
-- p_workflow_id again: the later call finds the run of the earlier one.
create function accept_run(
    p_workflow_id uuid,
    p_tenant text,
    p_definition text,
    p_release_id bigint,
    p_generation bigint,
    p_key text,
    p_input text,
    p_input_digest bytea,
    p_accepted_at timestamptz,
    p_deadline timestamptz,
    p_status text,
    p_cause text,
    p_result text,
    p_error text,
    p_owner uuid,
    p_fence bigint,
    p_wake_at timestamptz,
    p_event_types text[],
    p_event_payloads text[]
)
returns table (outcome text, other_workflow_id uuid, other_status text, other_accepted_at timestamptz)
language plpgsql
volatile
as $$
declare
    v_previous uuid;
    v_newest record;
begin
    perform pg_advisory_xact_lock_shared(registry_lock(p_tenant));
    if coalesce((select g.generation from registry g where g.tenant = p_tenant), 0) <> p_generation then
        -- An earlier call may have inserted the run before the registry moved.
        return query
        select case when r.workflow_id is null then 'MOVED' else 'NEW' end, r.previous_workflow_id, null::text,
            null::timestamptz
        from (values (p_workflow_id)) as asked (workflow_id)
        left join workflow_run r on r.workflow_id = asked.workflow_id;
        return;
    end if;

    while p_key is not null loop
        insert into workflow_key (tenant, definition, key, workflow_id, input_digest)
        values (p_tenant, p_definition, p_key, p_workflow_id, p_input_digest)
        on conflict do nothing;
        exit when found;

        select k.workflow_id, k.input_digest, r.status, r.accepted_at, r.previous_workflow_id
        into v_newest
        from workflow_key k
        left join workflow_run r on r.workflow_id = k.workflow_id
        where k.tenant = p_tenant and k.definition = p_definition and k.key = p_key;
        -- Retention has deleted the key meanwhile.
        continue when not found;

        if v_newest.workflow_id = p_workflow_id then
            return query select 'NEW', v_newest.previous_workflow_id, null::text, null::timestamptz;
            return;
        elsif v_newest.status is not null and v_newest.input_digest = p_input_digest then
            return query select 'EXISTING', v_newest.workflow_id, v_newest.status, v_newest.accepted_at;
            return;
        elsif v_newest.status not in ('FAILED', 'COMPENSATED') then
            return query select 'REUSED', v_newest.workflow_id, v_newest.status, v_newest.accepted_at;
            return;
        end if;

        update workflow_key k
        set workflow_id = p_workflow_id, input_digest = p_input_digest
        where k.tenant = p_tenant and k.definition = p_definition and k.key = p_key
            and k.workflow_id = v_newest.workflow_id;
        if found then
            v_previous := v_newest.workflow_id;
            exit;
        end if;
    end loop;

    insert into workflow_run (
        workflow_id, tenant, definition, release_id, key, previous_workflow_id, input, status, cause, result, error,
        accepted_at, updated_at, deadline, owner, fence, last_sequence, wake_at
    )
    values (
        p_workflow_id, p_tenant, p_definition, p_release_id, p_key, v_previous, p_input::json, p_status, p_cause,
        p_result::json, p_error::json, p_accepted_at, p_accepted_at, p_deadline, p_owner, p_fence,
        cardinality(p_event_types), p_wake_at
    )
    on conflict (workflow_id) do nothing;

    -- No row was inserted if an earlier call came through meanwhile.
    if found then
        insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
        select p_workflow_id, e.sequence, e.event_type, e.payload::json, p_accepted_at
        from unnest(p_event_types, p_event_payloads) with ordinality as e (event_type, payload, sequence);

        insert into run_count as c (host_id, by_acceptance, tenant, definition, status, n)
        values (coalesce(p_owner, '00000000-0000-0000-0000-000000000000'), true, p_tenant, p_definition, p_status, 1)
        on conflict (tenant, definition, status, host_id, by_acceptance) do update set n = c.n + 1;
    end if;

    return query select 'NEW', v_previous, null::text, null::timestamptz;
end;
$$;
