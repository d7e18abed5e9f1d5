-- A later version of this view may add columns at its end and do nothing else: hosts read the whole row by position
-- (store::runs::RunRow).
create view run_row as
select r.workflow_id, r.tenant, r.definition, e.definition_digest, r.release_id, r.key, r.previous_workflow_id,
    r.input::text as input, r.status, r.cause, r.result::text as result, r.error::text as error, r.accepted_at, r.updated_at,
    r.deadline, r.owner, r.fence, r.last_sequence, r.wake_at
from workflow_run r
join release e on e.release_id = r.release_id;

comment on view run_row is 'Shows a run as the store reads it.';
