-- What keys hold, by their ordinals (from 1); a key that was never written has no row. A function, so that its plan is kept and looks
-- every key up by the primary key, however small the table was when it was made.
create function read_entries(p_tenants text[], p_components text[], p_buckets text[], p_keys text[])
returns table (ordinal bigint, value bytea, version bigint)
language plpgsql
stable
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    select k.ordinal, e.value, e.version
    from unnest(p_tenants, p_components, p_buckets, p_keys)
        with ordinality as k (tenant, component, bucket, key, ordinal)
    join keyvalue_entry e
        on e.tenant = k.tenant and e.component = k.component and e.bucket = k.bucket and e.key = k.key;
end;
$$;
