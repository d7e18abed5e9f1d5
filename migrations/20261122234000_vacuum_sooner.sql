-- Each run that ends leaves a row version and an entry in the index by owner, over which takeovers walk; one that has waited leaves one
-- in that by wake_at, over which claims walk. By default a vacuum waits until a fifth of the table is like that.
alter table workflow_run set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
-- Each write of a key leaves a row version.
alter table keyvalue_entry set (autovacuum_vacuum_scale_factor = 0.05);
-- A few rows, written with every batch of acceptances and of endings.
alter table run_count set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
