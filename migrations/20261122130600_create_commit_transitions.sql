-- Commits a batch of transitions as a whole, or changes nothing and returns why: one row for each run that isn't owned
-- as expected or whose log ends elsewhere (refused_key is null), and for each key that was read in another version
-- (refused_run is the transition that read it). Ordinals are from 1.
--
-- Called as one autocommit statement. It is a function because every statement in it takes a new snapshot: what is
-- compared and written is what the locks hold still. In one statement with CTEs the snapshot would be older than the locks
-- (docs/decisions/0001).
--
-- The arrays of keys are sorted by key. Every batch locks keys first, then runs, each in order: so no two ever wait for each
-- other. (Claims and takeovers lock runs in no certain order, and are repeated if that ends in a deadlock.) A key is written by one transition of a batch at most, and then
-- no other one of the batch reads it. No two transitions are of one run.
create function commit_transitions(
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
