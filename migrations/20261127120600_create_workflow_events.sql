create table workflow_events (
    workflow_id uuid not null,
    sequence bigint not null,
    event_type text collate "C" not null,
    payload json not null,
    occurred_at timestamptz not null,
    constraint workflow_events_pkey primary key (workflow_id, sequence),
    constraint workflow_events_sequence check (sequence >= 1)
) partition by range (workflow_id);

comment on table workflow_events is 'What happened to each run, append-only. Partitioned by ranges of ids, which are ranges of time, so that old ones can be dropped whole.';
comment on column workflow_events.sequence is 'Gapless from 1 within a run. The run''s fence and owner decide who may append, and the event before must be there.';
comment on column workflow_events.payload is 'Versioned (field v), read forever. Not jsonb: no query looks inside, and text costs less.';
comment on column workflow_events.occurred_at is 'By the database''s clock. For people; never compared to order events.';

create table workflow_events_default partition of workflow_events default;

comment on table workflow_events_default is 'Takes the runs that no range was made for.';
