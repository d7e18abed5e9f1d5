create table workflow_events (
    workflow_id uuid not null,
    sequence bigint not null,
    event_type text collate "C" not null,
    payload json not null,
    occurred_at timestamptz not null,
    constraint workflow_events_pkey primary key (workflow_id, sequence),
    constraint workflow_events_sequence check (sequence >= 1)
) partition by range (workflow_id);

comment on table workflow_events is 'Holds the log of each run. The host only appends to it. Its partitions are ranges of ids, which are ranges of time, so the host can drop old ones whole.';
comment on column workflow_events.sequence is 'It counts from 1 without a gap within a run. The run''s fence and owner decide which host may append, and append_batch refuses an event whose predecessor isn''t there.';
comment on column workflow_events.event_type is 'The name of the event, such as STEP_COMPLETED.';
comment on column workflow_events.payload is 'The rest of the event. Its field v is the version of its format, and hosts read every version forever. It isn''t jsonb, because no query looks inside and text costs less.';
comment on column workflow_events.occurred_at is 'The instant of the transition, by the database''s clock. It is for people: nothing orders events by it.';

create table workflow_events_default partition of workflow_events default;

comment on table workflow_events_default is 'Holds the events of runs for which no range was made.';
