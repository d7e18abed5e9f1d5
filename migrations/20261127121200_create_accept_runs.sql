-- Accepts several runs, and returns the ordinals, from 1, of those that it accepted. It inserted no row for any other run, whose key
-- is known, or which was resolved before the registry moved. accept_run says what each of those is.
--
-- A run that an earlier call accepted, and whose answer was lost, makes the whole statement fail, since its key or its id is
-- already there. accept_run takes such a run for the same one.
--
-- As in accept_run, the function writes the keys' rows first, and only the call that inserts a key's row inserts its run. It takes
-- the keys in their order, so that no two batches wait for each other.
create function accept_runs(
    p_host uuid,
    p_workflow_ids uuid[],
    p_tenants text[],
    p_definitions text[],
    p_release_ids bigint[],
    p_generations bigint[],
    p_keys text[],
    p_inputs text[],
    p_input_digests bytea[],
    p_accepted_ats timestamptz[],
    p_deadlines timestamptz[],
    p_statuses text[],
    p_causes text[],
    p_results text[],
    p_errors text[],
    p_owners uuid[],
    p_fences bigint[],
    p_last_sequences bigint[],
    p_wake_ats timestamptz[],
    -- The events: each has the ordinal of its run.
    p_event_runs integer[],
    p_event_sequences bigint[],
    p_event_types text[],
    p_event_payloads text[]
)
returns setof integer
language plpgsql
volatile
as $$
declare
    -- True for each run that is accepted. Null means that all are.
    v_accepted boolean[];
begin
    perform pg_advisory_xact_lock_shared(registry_lock(t.tenant))
    from (select distinct tenant from unnest(p_tenants) as tenant order by tenant) as t;

    if exists (
        select
        from unnest(p_tenants, p_generations) as t (tenant, generation)
        where t.generation <> coalesce((select g.generation from registry g where g.tenant = t.tenant), 0)
    ) then
        return;
    end if;

    if array_remove(p_keys, null) <> '{}' then
        with won as (
            insert into workflow_key (tenant, definition, key, workflow_id, input_digest)
            select k.tenant, k.definition, k.key, k.workflow_id, k.input_digest
            from unnest(p_tenants, p_definitions, p_keys, p_workflow_ids, p_input_digests)
                as k (tenant, definition, key, workflow_id, input_digest)
            where k.key is not null
            order by k.tenant, k.definition, k.key
            on conflict do nothing
            returning workflow_id
        )
        select case when count(*) < cardinality(array_remove(p_keys, null)) then (
            select array_agg(t.key is null or t.workflow_id in (select won.workflow_id from won) order by t.ordinal)
            from unnest(p_workflow_ids, p_keys) with ordinality as t (workflow_id, key, ordinal)
        ) end
        into v_accepted
        from won;
    end if;

    with new as (
        insert into workflow_run (
            workflow_id, tenant, definition, release_id, key, input, status, cause, result, error, accepted_at, updated_at,
            deadline, owner, fence, last_sequence, wake_at
        )
        select
            t.workflow_id, t.tenant, t.definition, t.release_id, t.key, t.input::json, t.status, t.cause, t.result::json,
            t.error::json, t.accepted_at, t.accepted_at, t.deadline, t.owner, t.fence, t.last_sequence, t.wake_at
        from unnest(
            p_workflow_ids, p_tenants, p_definitions, p_release_ids, p_keys, p_inputs, p_statuses, p_causes, p_results, p_errors,
            p_accepted_ats, p_deadlines, p_owners, p_fences, p_last_sequences, p_wake_ats
        ) with ordinality as t (
            workflow_id, tenant, definition, release_id, key, input, status, cause, result, error,
            accepted_at, deadline, owner, fence, last_sequence, wake_at, ordinal
        )
        where v_accepted is null or v_accepted[t.ordinal]
        returning tenant, definition, status
    )
    insert into run_count as c (host_id, by_acceptance, tenant, definition, status, n)
    select p_host, true, new.tenant, new.definition, new.status, count(*)
    from new
    group by new.tenant, new.definition, new.status
    order by new.tenant, new.definition, new.status
    on conflict (tenant, definition, status, host_id, by_acceptance) do update set n = c.n + excluded.n;

    insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
    select p_workflow_ids[e.run], e.sequence, e.event_type, e.payload::json, p_accepted_ats[e.run]
    from unnest(p_event_runs, p_event_sequences, p_event_types, p_event_payloads) as e (run, sequence, event_type, payload)
    where v_accepted is null or v_accepted[e.run];

    return query
    select t.ordinal::integer
    from unnest(p_workflow_ids) with ordinality as t (workflow_id, ordinal)
    where v_accepted is null or v_accepted[t.ordinal];
end;
$$;
