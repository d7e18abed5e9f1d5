create table registry (
    tenant text collate "C" not null,
    generation bigint not null,
    constraint registry_pkey primary key (tenant)
);

comment on table registry is 'Counts the changes to what a tenant''s new runs may pin.';
comment on column registry.generation is 'Every activation, deployment and deletion raises it, under the exclusive registry lock. A tenant without a row is at 0.';

-- Returns the key of a tenant's registry lock, an advisory lock that is held until the end of the transaction.
-- An acceptance takes the lock shared and then compares the generation. A change of the registry takes it exclusively.
-- So an acceptance and a change never cross, and acceptances don't all lock one row.
create function registry_lock(p_tenant text) returns bigint
language sql immutable strict parallel safe
return hashtextextended(p_tenant, 4742);
