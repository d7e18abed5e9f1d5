-- Lists by status served whole tenants, and those of one definition or cause had to look for their runs among all others.

-- Store::list_runs and Store::run_ids_by_status by status or definition, and which unfinished runs pin a component version.
-- By release and not by definition, because its number is short; a list goes through the releases of its definition or tenant.
create index workflow_run_by_release on workflow_run (release_id, status, workflow_id);
-- Store::list_runs by cause. A run that goes well costs this index nothing.
create index workflow_run_by_cause on workflow_run (release_id, cause, status, workflow_id) where cause is not null;
-- Had (tenant, status, workflow_id), but for COMPLETED.
drop index workflow_run_by_status;
