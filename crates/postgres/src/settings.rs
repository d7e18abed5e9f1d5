//! How the server is set up. Settings are given on its command line: they are as this code says at every start,
//! and what an operator adds to `postgresql.conf` beside them holds too.

use std::path::Path;

use crate::{Options, socket};

pub(crate) fn of(options: &Options, socket_dir: &Path) -> Vec<(&'static str, String)> {
    // The setting is a list, whose entries are quoted like SQL's names.
    let socket_dir = format!("\"{}\"", socket_dir.to_string_lossy().replace('"', "\"\""));
    let durable = if options.durable { "on" } else { "off" };
    let mut settings = vec![
        // A Unix socket and nothing else: what can't be connected to needs no password.
        ("listen_addresses", String::new()),
        ("unix_socket_directories", socket_dir),
        ("port", socket::PORT.to_string()),
        ("max_connections", options.max_connections.to_string()),
        // A transition is acted on when its commit has returned: it must be on the disk by then.
        ("synchronous_commit", durable.into()),
        ("fsync", durable.into()),
        // A page that a power failure tears is restored from its image in the log.
        ("full_page_writes", durable.into()),
        // What is hot (unfinished runs, key-value rows, the newest events) fits; the rest is in the system's cache.
        // The default of 128 MB is for sharing a machine with much else.
        ("shared_buffers", "256MB".into()),
        // With the default of 1 GB a busy host forces a checkpoint every minute, and each makes every page that is
        // touched next go into the log as a whole. Costs disk space, and at worst some 20 s of recovery after a crash.
        ("max_wal_size", "2GB".into()),
        // Statements are short and many: planning a query for several processes, or compiling it, costs more than it
        // brings, and the shared memory of a container is too small for the former.
        ("max_parallel_workers_per_gather", "0".into()),
        ("jit", "off".into()),
        // Of the instants that an operator reads, none depends on where the machine stands.
        ("timezone", "UTC".into()),
        ("log_timezone", "UTC".into()),
        // One line for each checkpoint is noise in a log that nobody rotates but we.
        ("log_checkpoints", "off".into()),
        // The log is the server's standard error, which it shares with us.
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
    ];
    if !options.durable {
        // No replica and no archive will read the log of a test.
        settings.extend([("wal_level", "minimal".into()), ("max_wal_senders", "0".into())]);
    }
    settings
}
