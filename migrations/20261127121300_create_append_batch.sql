-- Commits a batch of transitions of one host as a whole, or changes nothing and says why. No row means that the batch is committed.
-- Otherwise the function returns:
--   a row for each run that the host doesn't own under that fence, or whose log ends elsewhere. refused_run is the ordinal of its
--   transition, and current_fence and current_sequence are what the database has.
--   a row for each key whose version isn't the one that was read. refused_key is its ordinal.
--   one row of nulls if the obstacle is gone. The caller sends the batch again.
-- Ordinals count from 1.
--
-- A transition that leaves the run's row as it is only adds to the log: the function locks the row and doesn't write it, which costs
-- a quarter as much (docs/decisions/0003). While a host drives a run, its row's last_sequence and updated_at may therefore be behind
-- its log.
--
-- The caller sends the call as one autocommit statement. It is a function because each statement in it takes a new snapshot
-- (docs/decisions/0001). Each statement looks rows up by their primary keys. Postgres plans the statements while the tables may
-- still be small and keeps the plans, so the caller's connection forbids plans that would look cheaper then (Line::for_lookups).
-- That costs less than settings of the function, which would be set at each call.
--
-- The function writes keys at once and compares them as it locks them. It locks and compares runs in one statement. A statement that
-- waited for a lock compares with the row as it is afterwards. If one row isn't as expected, the function takes everything back.
--
-- The caller sorts the keys and the runs, and names no key and no run twice. Every batch takes keys first, then runs, then counts,
-- each in order, so that no two batches wait for each other. Claims and takeovers lock runs in no certain order, and hosts
-- repeat them after a deadlock.
create function append_batch(
    p_host uuid,
    p_workflow_ids uuid[],
    p_fences bigint[],
    p_last_sequences bigint[],
    p_instants timestamptz[],
    -- The events: each has the ordinal of its transition.
    p_event_runs integer[],
    p_event_sequences bigint[],
    p_event_types text[],
    p_event_payloads text[],
    -- The transitions that change their run's row: each has its ordinal, the status before, and the row's new values.
    p_changed integer[],
    p_new_sequences bigint[],
    p_old_statuses text[],
    p_statuses text[],
    p_causes text[],
    p_results text[],
    p_errors text[],
    p_stays boolean[],
    p_wake_ats timestamptz[],
    -- The keys: each has the version that was read, the number of transitions of the batch that write it, and the value that the
    -- last of these writes. A null version overwrites any version; version 0 means that nobody has written the key.
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
            -- A key that was only read is written as it is, which holds it still until the commit.
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

        -- The lock holds every run still until the commit, because every change of an owner or a fence updates this row.
        perform
        from unnest(p_workflow_ids, p_fences, p_last_sequences) as t (workflow_id, fence, last_sequence)
        join workflow_run r on r.workflow_id = t.workflow_id
        where r.fence = t.fence
            -- With `=` Postgres could use the index by owner, and would walk everything that the host owns for each run.
            and r.owner is not distinct from p_host
            and r.last_sequence <= t.last_sequence
        for no key update of r;
        get diagnostics v_done = row_count;
        if v_done <> cardinality(p_workflow_ids) then
            raise sqlstate 'AS001';
        end if;

        -- The preceding event of each run must be there, so this inserts nothing. A select by the runs' ids would lock and open all
        -- partitions. A log that goes further shows when the next event is inserted.
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
                -- The run loses its owner, so its fence rises: a host that claims it later has a higher one.
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
            -- Another host was first to write a new key, or a log goes further than its driver believes. Any other violation is a
            -- fault.
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
        -- Postgres plans this with the ids themselves, and so opens only their partitions.
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
