//! The server's settings. They are passed on its command line, so this code decides them at every start. Other settings
//! that an operator adds to `postgresql.conf` apply as well.

use std::path::Path;

use crate::{Options, socket};

pub(crate) fn of(options: &Options, socket_dir: &Path) -> Vec<(&'static str, String)> {
    // The setting is a list, whose entries are quoted like SQL's names.
    let socket_dir = format!("\"{}\"", socket_dir.to_string_lossy().replace('"', "\"\""));
    let durable = if options.durable { "on" } else { "off" };
    let mut settings = vec![
        // The server listens on a Unix socket only, so it needs no password.
        ("listen_addresses", String::new()),
        ("unix_socket_directories", socket_dir),
        ("port", socket::PORT.to_string()),
        ("max_connections", options.max_connections.to_string()),
        // The host acts on a transition as soon as its commit returns, so it must be on the disk by then.
        ("synchronous_commit", durable.into()),
        ("fsync", durable.into()),
        // A page that a power failure tears is restored from its image in the log.
        ("full_page_writes", durable.into()),
        // The hot data (unfinished runs, key-value rows, the newest events) fits, and the system's cache holds the rest.
        // The default of 128 MB is meant for a machine that runs many other programs.
        ("shared_buffers", "256MB".into()),
        // With the default of 1 GB a busy host forces a checkpoint every minute. After each, the first change of a page
        // writes the whole page into the log. This costs disk space, and at worst some 20 s of recovery after a crash.
        ("max_wal_size", "2GB".into()),
        // There are many short statements: parallel plans and compilation cost them more than they bring. The shared
        // memory of a container is also too small for parallel plans.
        ("max_parallel_workers_per_gather", "0".into()),
        ("jit", "off".into()),
        // The instants that an operator reads don't depend on the place of the machine.
        ("timezone", "UTC".into()),
        ("log_timezone", "UTC".into()),
        // A line for each checkpoint would be noise in a log that only this crate rotates.
        ("log_checkpoints", "off".into()),
        // The server logs to its standard error, which is the log file.
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
    ];
    if !options.durable {
        // No replica and no archive reads the log of a test.
        settings.extend([("wal_level", "minimal".into()), ("max_wal_senders", "0".into())]);
    }
    settings
}
