-- Each run that ends leaves a row version, and an entry of the indexes by owner and by wake_at, which claims and takeovers walk over.
-- By default a vacuum waits until a fifth of the table is like that: at a million runs that is long.
alter table workflow_run set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
-- Each write of a key leaves a row version beside the others of its key.
alter table keyvalue_entry set (autovacuum_vacuum_scale_factor = 0.05);
-- A few rows that every batch of commits changes.
alter table run_count set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
