-- The functions that hosts of the release before this one call count, too: as before, and with run_count.

create or replace function accept_run(
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
        -- Unless this is the second call, and the first one came through before the registry moved.
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
        -- The key went meanwhile.
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

    -- Not inserted: the first call came through meanwhile.
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

create or replace function commit_transitions(
    p_workflow_ids uuid[],
    p_hosts uuid[],
    p_fences bigint[],
    p_last_sequences bigint[],
    p_new_sequences bigint[],
    p_instants timestamptz[],
    p_statuses text[],
    p_causes text[],
    p_results text[],
    p_errors text[],
    p_stays boolean[],
    p_wake_ats timestamptz[],
    -- Of each event: the ordinal of its transition, and itself.
    p_event_runs integer[],
    p_event_sequences bigint[],
    p_event_types text[],
    p_event_payloads text[],
    -- Of each key: the ordinal of its transition, its name, the version that was read (null: overwrite whatever is there),
    -- and what is written.
    p_key_runs integer[],
    p_key_tenants text[],
    p_key_components text[],
    p_key_buckets text[],
    p_key_names text[],
    p_key_versions bigint[],
    p_key_written boolean[],
    p_key_values bytea[]
)
returns table (refused_run integer, refused_key integer, current_fence bigint, current_sequence bigint)
language plpgsql
volatile
-- Every lookup is by primary key. Plans are made while the tables are still small and kept, so nothing else may look cheaper.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    if cardinality(p_key_names) > 0 then
        insert into keyvalue_entry (tenant, component, bucket, key)
        select k.tenant, k.component, k.bucket, k.key
        from unnest(p_key_tenants, p_key_components, p_key_buckets, p_key_names)
            with ordinality as k (tenant, component, bucket, key, ordinal)
        order by k.ordinal
        on conflict do nothing;

        perform
        from unnest(p_key_tenants, p_key_components, p_key_buckets, p_key_names) as k (tenant, component, bucket, key)
        join keyvalue_entry e
            on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key
        order by e.tenant, e.component, e.bucket, e.key
        for update of e;
    end if;

    perform
    from workflow_run r
    where r.workflow_id = any (p_workflow_ids)
    order by r.workflow_id
    for update;

    return query
    select t.ordinal::integer, null::integer, r.fence, r.last_sequence
    from unnest(p_workflow_ids, p_hosts, p_fences, p_last_sequences)
        with ordinality as t (workflow_id, host, fence, last_sequence, ordinal)
    left join workflow_run r on r.workflow_id = t.workflow_id
    where r.fence is distinct from t.fence
        or r.owner is distinct from t.host
        or r.last_sequence is distinct from t.last_sequence
    union all
    select k.run, k.ordinal::integer, null, null
    from unnest(p_key_runs, p_key_tenants, p_key_components, p_key_buckets, p_key_names, p_key_versions)
        with ordinality as k (run, tenant, component, bucket, key, version, ordinal)
    join keyvalue_entry e
        on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key
    where k.version <> e.version;

    if found then
        return;
    end if;

    if cardinality(p_key_names) > 0 then
        update keyvalue_entry e
        set value = k.value, version = e.version + 1
        from unnest(p_key_tenants, p_key_components, p_key_buckets, p_key_names, p_key_written, p_key_values)
            as k (tenant, component, bucket, key, written, value)
        where e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key
            and k.written;
    end if;

    insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
    select p_workflow_ids[e.run], e.sequence, e.event_type, e.payload::json, p_instants[e.run]
    from unnest(p_event_runs, p_event_sequences, p_event_types, p_event_payloads)
        as e (run, sequence, event_type, payload);

    insert into run_count as c (host_id, by_acceptance, tenant, definition, status, n)
    select '00000000-0000-0000-0000-000000000000', false, moved.tenant, moved.definition, moved.status, sum(moved.n)
    from unnest(p_workflow_ids, p_statuses) as t (workflow_id, status)
    join workflow_run r on r.workflow_id = t.workflow_id and r.status <> t.status
    cross join lateral (values (r.tenant, r.definition, t.status, 1), (r.tenant, r.definition, r.status, -1))
        as moved (tenant, definition, status, n)
    group by moved.tenant, moved.definition, moved.status
    order by moved.tenant, moved.definition, moved.status
    on conflict (tenant, definition, status, host_id, by_acceptance) do update set n = c.n + excluded.n;

    update workflow_run r
    set
        status = t.status,
        cause = t.cause,
        result = t.result::json,
        error = t.error::json,
        updated_at = t.at,
        owner = case when t.stays then r.owner end,
        -- A change of owner: so it can be told from a run that was handed back and claimed again.
        fence = case when t.stays then r.fence else r.fence + 1 end,
        wake_at = t.wake_at,
        last_sequence = t.new_sequence,
        host_lost = false
    from unnest(p_workflow_ids, p_new_sequences, p_instants, p_statuses, p_causes, p_results, p_errors, p_stays, p_wake_ats)
        as t (workflow_id, new_sequence, at, status, cause, result, error, stays, wake_at)
    where r.workflow_id = t.workflow_id;
end;
$$;
