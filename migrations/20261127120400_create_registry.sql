create table registry (
    tenant text collate "C" not null,
    generation bigint not null,
    constraint registry_pkey primary key (tenant)
);

comment on table registry is 'Counts the changes to what a tenant''s new runs may pin.';
comment on column registry.generation is 'Raised by every activation, deployment and deletion, under the exclusive registry lock. A tenant without a row is at 0.';

-- The key of a tenant's registry lock, an advisory lock until the end of the transaction. Acceptance takes it shared and
-- then compares the generation; what changes the registry takes it exclusively. So the two can't cross, and no row is
-- locked by every acceptance.
create function registry_lock(p_tenant text) returns bigint
language sql immutable strict parallel safe
return hashtextextended(p_tenant, 4742);
