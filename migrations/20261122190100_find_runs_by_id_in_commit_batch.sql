-- As before, but runs are found by their ids, whatever Postgres believes. While few rows had an owner when it last looked, it took
-- workflow_run_by_owner for as good as the primary key, and went through all that the host drives, and has driven since the last
-- vacuum, for each transition of a batch.
--
-- Commits a batch of transitions of one host as a whole, or changes nothing and returns why: see 20261122180100.
create or replace function commit_batch(
    p_host uuid,
    p_workflow_ids uuid[],
    p_fences bigint[],
    p_last_sequences bigint[],
    p_new_sequences bigint[],
    p_instants timestamptz[],
    -- Before and after.
    p_old_statuses text[],
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
    -- Of each key: its name, the version that was read (null: overwrite whatever is there; 0: it was never written), how many
    -- transitions of the batch write it one after the other, and what the last one writes.
    p_key_tenants text[],
    p_key_components text[],
    p_key_buckets text[],
    p_key_names text[],
    p_key_versions bigint[],
    p_key_writes bigint[],
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
declare
    v_done bigint;
    v_constraint text;
begin
    begin
        if cardinality(p_key_names) > 0 then
            -- What was only read is written as it is: that holds it still until the commit, and costs no more than a lock.
            merge into keyvalue_entry e
            using (
                select *
                from unnest(
                    p_key_tenants, p_key_components, p_key_buckets, p_key_names, p_key_versions, p_key_writes, p_key_values
                ) as k (tenant, component, bucket, key, version, writes, value)
            ) k
            on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key
            when matched and (k.version is null or e.version = k.version) then
                update set
                    value = case when k.writes > 0 then k.value else e.value end,
                    version = e.version + k.writes
            when not matched and (k.version is null or k.version = 0) then
                insert (tenant, component, bucket, key, value, version)
                values (k.tenant, k.component, k.bucket, k.key, k.value, k.writes);
            get diagnostics v_done = row_count;
            if v_done <> cardinality(p_key_names) then
                raise sqlstate 'AS001';
            end if;
        end if;

        with changed as (
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
            from unnest(
                p_workflow_ids, p_fences, p_last_sequences, p_new_sequences, p_instants, p_old_statuses, p_statuses, p_causes,
                p_results, p_errors, p_stays, p_wake_ats
            ) as t (
                workflow_id, fence, last_sequence, new_sequence, at, old_status, status, cause, result, error, stays, wake_at
            )
            where r.workflow_id = t.workflow_id
                and r.fence = t.fence
                -- Not `=`, which an index could serve: see above.
                and r.owner is not distinct from p_host
                and r.last_sequence = t.last_sequence
            returning r.tenant, r.definition, t.old_status, t.status
        ),
        counted as (
            insert into run_count as c (host_id, tenant, definition, status, n)
            select p_host, moved.tenant, moved.definition, moved.status, sum(moved.n)
            from (
                select tenant, definition, status, 1 as n from changed where status <> old_status
                union all
                select tenant, definition, old_status, -1 from changed where status <> old_status
            ) as moved
            group by moved.tenant, moved.definition, moved.status
            order by moved.tenant, moved.definition, moved.status
            on conflict (tenant, definition, status, host_id) do update set n = c.n + excluded.n
        )
        select count(*) into v_done from changed;
        if v_done <> cardinality(p_workflow_ids) then
            raise sqlstate 'AS001';
        end if;

        insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
        select p_workflow_ids[e.run], e.sequence, e.event_type, e.payload::json, p_instants[e.run]
        from unnest(p_event_runs, p_event_sequences, p_event_types, p_event_payloads)
            as e (run, sequence, event_type, payload);
        return;
    exception
        when sqlstate 'AS001' then
            null;
        when unique_violation then
            -- Another host was first to write a key that was never written. Everything else that is there twice is a fault.
            get stacked diagnostics v_constraint = constraint_name;
            if v_constraint <> 'keyvalue_entry_pkey' then
                raise;
            end if;
    end;

    return query
    select t.ordinal::integer, null::integer, r.fence, r.last_sequence
    from unnest(p_workflow_ids, p_fences, p_last_sequences)
        with ordinality as t (workflow_id, fence, last_sequence, ordinal)
    left join workflow_run r on r.workflow_id = t.workflow_id
    where r.fence is distinct from t.fence
        or r.owner is distinct from p_host
        or r.last_sequence is distinct from t.last_sequence
    union all
    select null, k.ordinal::integer, null, null
    from unnest(p_key_tenants, p_key_components, p_key_buckets, p_key_names, p_key_versions)
        with ordinality as k (tenant, component, bucket, key, version, ordinal)
    left join keyvalue_entry e
        on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key
    where k.version <> coalesce(e.version, 0);
    if not found then
        return query select null::integer, null::integer, null::bigint, null::bigint;
    end if;
end;
$$;
