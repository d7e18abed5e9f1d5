create table release (
    release_id bigint not null generated always as identity,
    tenant text collate "C" not null,
    definition text collate "C" not null,
    definition_digest bytea not null,
    content_digest bytea not null,
    constraint release_pkey primary key (release_id),
    constraint release_content unique (content_digest),
    constraint release_definition foreign key (tenant, definition, definition_digest)
        references definition_version (tenant, name, digest)
);

comment on table release is 'What a run pins: a definition''s version and a version of every component that it can call. Interned: the same content is one row.';
comment on column release.content_digest is 'SHA-256 over tenant, definition, its digest, and the components in order of their names.';

create table release_component (
    release_id bigint not null,
    component text collate "C" not null,
    digest bytea not null,
    constraint release_component_pkey primary key (release_id, component),
    constraint release_component_release foreign key (release_id) references release (release_id) on delete cascade,
    constraint release_component_digest check (octet_length(digest) = 32)
);

comment on table release_component is 'The components of a release. No foreign key to their versions: those go when only finished runs pin them.';

-- Store::delete_component_version: which releases hold this version?
create index release_component_by_digest on release_component (digest, component);

-- Only ever gets more columns, at its end: hosts read it whole, by position (store::runs::RunRow).
create view run_row as
select r.workflow_id, r.tenant, r.definition, e.definition_digest, r.release_id, r.key, r.previous_workflow_id,
    r.input::text as input, r.status, r.cause, r.result::text as result, r.error::text as error, r.accepted_at, r.updated_at,
    r.deadline, r.owner, r.fence, r.last_sequence, r.wake_at
from workflow_run r
join release e on e.release_id = r.release_id;

comment on view run_row is 'A run as the store reads it.';

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
