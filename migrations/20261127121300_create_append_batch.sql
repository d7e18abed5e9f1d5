-- Commits a batch of transitions of one host as a whole, or changes nothing and returns why: one row for each run that isn't owned
-- as expected or whose log ends elsewhere (refused_key is null), and for each key that isn't in the version that was read
-- (refused_run is null). Ordinals are from 1. One row of nulls: whatever was in the way is gone, and the batch is to be sent again.
--
-- A transition after which the run's row says what it has said before is only appended to the log: the row is locked and not written,
-- which costs a quarter as much (docs/decisions/0003). So while a host drives a run, last_sequence and updated_at of its row may be
-- behind its log.
--
-- Called as one autocommit statement. It is a function because every statement in it takes a new snapshot
-- (docs/decisions/0001). Every lookup is by primary key; plans are made while the tables are still small and kept, so whoever calls
-- this forbids everything that may look cheaper then (Line::for_lookups), which costs less than to do so here at each call.
-- Keys are written at once and compared as they are locked; runs are locked and compared by one statement. Who waited for a lock
-- compares with the row as it is then. If one of them isn't as expected, all of it is taken back.
--
-- The arrays of keys and runs are sorted, and no key and no run stands twice. Every batch takes keys first, then runs, then counts, each
-- in order: so no two ever wait for each other. (Claims and takeovers lock runs in no certain order, and are repeated if that ends
-- in a deadlock.)
create function append_batch(
    p_host uuid,
    p_workflow_ids uuid[],
    p_fences bigint[],
    p_last_sequences bigint[],
    p_instants timestamptz[],
    -- Of each event: the ordinal of its transition, and itself.
    p_event_runs integer[],
    p_event_sequences bigint[],
    p_event_types text[],
    p_event_payloads text[],
    -- Of each transition that changes the run's row: its ordinal, the status before, and what the row says from then on.
    p_changed integer[],
    p_new_sequences bigint[],
    p_old_statuses text[],
    p_statuses text[],
    p_causes text[],
    p_results text[],
    p_errors text[],
    p_stays boolean[],
    p_wake_ats timestamptz[],
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
as $$
declare
    v_done bigint;
    v_constraint text;
    v_table text;
begin
    begin
        if cardinality(p_key_names) > 0 then
            -- What was only read is written as it is: that holds it still until the commit.
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

        -- Holds every run still until the commit: who changes its owner or fence, or settles a lost answer, updates this row.
        perform
        from unnest(p_workflow_ids, p_fences, p_last_sequences) as t (workflow_id, fence, last_sequence)
        join workflow_run r on r.workflow_id = t.workflow_id
        where r.fence = t.fence
            -- Not `=`, for which there is an index: each run is looked up by its id, and not all that the host owns by each id.
            and r.owner is not distinct from p_host
            and r.last_sequence <= t.last_sequence
        for no key update of r;
        get diagnostics v_done = row_count;
        if v_done <> cardinality(p_workflow_ids) then
            raise sqlstate 'AS001';
        end if;

        -- The event before must be there, and so is found and not inserted: a look-up by each run's id would lock and open all
        -- partitions. That the log goes no further is seen as the next event is inserted.
        insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
        select t.workflow_id, t.last_sequence, '', '{}', p_instants[1]
        from unnest(p_workflow_ids, p_last_sequences) as t (workflow_id, last_sequence)
        where t.last_sequence > 0
        on conflict do nothing;
        if found then
            raise sqlstate 'AS001';
        end if;

        insert into workflow_events (workflow_id, sequence, event_type, payload, occurred_at)
        select p_workflow_ids[e.run], e.sequence, e.event_type, e.payload::json, p_instants[e.run]
        from unnest(p_event_runs, p_event_sequences, p_event_types, p_event_payloads)
            as e (run, sequence, event_type, payload);

        if cardinality(p_changed) > 0 then
            update workflow_run r
            set
                status = t.status,
                cause = t.cause,
                result = t.result::json,
                error = t.error::json,
                updated_at = p_instants[t.run],
                owner = case when t.stays then r.owner end,
                -- A change of owner: so it can be told from a run that was handed back and claimed again.
                fence = case when t.stays then r.fence else r.fence + 1 end,
                wake_at = t.wake_at,
                last_sequence = t.new_sequence,
                host_lost = false
            from unnest(
                p_changed, p_new_sequences, p_statuses, p_causes, p_results, p_errors, p_stays, p_wake_ats
            ) as t (run, new_sequence, status, cause, result, error, stays, wake_at)
            where r.workflow_id = p_workflow_ids[t.run];

            insert into run_count as c (host_id, by_acceptance, tenant, definition, status, n)
            select p_host, false, r.tenant, r.definition, moved.status, sum(moved.n)
            from unnest(p_changed, p_old_statuses, p_statuses) as t (run, old_status, new_status)
            join workflow_run r on r.workflow_id = p_workflow_ids[t.run]
            cross join lateral (values (t.old_status, -1), (t.new_status, 1)) as moved (status, n)
            where t.old_status <> t.new_status
            group by r.tenant, r.definition, moved.status
            order by r.tenant, r.definition, moved.status
            on conflict (tenant, definition, status, host_id, by_acceptance) do update set n = c.n + excluded.n;
        end if;
        return;
    exception
        when sqlstate 'AS001' then
            null;
        when unique_violation then
            -- Another host was first to write a key that was never written, or a log goes further than its driver believes. Everything
            -- else that is there twice is a fault.
            get stacked diagnostics v_constraint = constraint_name, v_table = table_name;
            if v_constraint <> 'keyvalue_entry_pkey' and v_table not like 'workflow_events%' then
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
        or r.last_sequence > t.last_sequence
    union all
    select null, k.ordinal::integer, null, null
    from unnest(p_key_tenants, p_key_components, p_key_buckets, p_key_names, p_key_versions)
        with ordinality as k (tenant, component, bucket, key, version, ordinal)
    left join keyvalue_entry e
        on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key
    where k.version <> coalesce(e.version, 0);
    if not found then
        -- Planned with the ids themselves, so that only their partitions are opened.
        return query execute
            'select t.ordinal::integer, null::integer, r.fence, coalesce(log.last_sequence, 0)
            from unnest($1, $2) with ordinality as t (workflow_id, last_sequence, ordinal)
            join workflow_run r on r.workflow_id = t.workflow_id
            left join (
                select e.workflow_id, max(e.sequence) as last_sequence
                from workflow_events e
                where e.workflow_id = any ($1)
                group by e.workflow_id
            ) log on log.workflow_id = t.workflow_id
            where coalesce(log.last_sequence, 0) <> t.last_sequence'
            using p_workflow_ids, p_last_sequences;
    end if;
    if not found then
        return query select null::integer, null::integer, null::bigint, null::bigint;
    end if;
end;
$$;
