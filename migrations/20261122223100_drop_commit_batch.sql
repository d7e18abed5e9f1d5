-- Hosts that call these know nothing of logs that are ahead of their run's row. There was no release of them; one that still runs waits
-- with its commits until it is stopped, and then hands its runs over.
drop function commit_batch;
drop function commit_transitions;
