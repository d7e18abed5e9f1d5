//! Drives the runs that this host owns: carries out the core's commands, and takes over what nobody drives.
//!
//! [`Runner::start`] registers the host and begins five loops: `lease` renews the host's lease, on a thread of its own, and with
//! it the reading of the database's clock, `claims` takes runs that are due, `sweep` finds those that nobody looks after, `orders`
//! tells drivers what people want of their runs, `watchdog` notices when nothing goes on. A run under way is one task (`drive`); one
//! that waits for an instant is in the database only. Clients that wait for a run's end are in `waiters`.
//!
//! Here are no SQL, no HTTP and no WebAssembly, and time is tokio's only: so all of this runs in a simulation, too.
//! - [`ports`]: what the runner asks of the database and of the guests. A host implements it.
//! - [`mod@line`]: the line of commits, for those who implement a journal.
//! - [`call`]: one call of a guest, as the runner asks for it and hears of it.
//! - [`session`]: what an attempt reads and writes through key-value data.
//! - [`crash`]: points at which tests let a host die.

mod admit;
mod alarm;
mod attempt;
mod backlog;
pub mod call;
mod claims;
mod clock;
pub mod crash;
mod drive;
mod drivers;
mod ends;
mod error;
mod in_flight;
mod key_queues;
mod lease;
mod lease_thread;
pub mod line;
mod measures;
mod orders;
pub mod ports;
#[cfg(any(test, feature = "simulation"))]
pub mod random;
mod runner;
pub mod session;
mod shared;
mod sweep;
mod waiters;
mod watchdog;

use std::time::Duration;

pub use self::admit::{Admitted, Candidate};
pub use self::backlog::Refusal;
pub use self::ends::cut;
pub use self::error::{Cause, Error, Fault};
pub use self::measures::{Distribution, Measured, Measures, Outcome};
pub use self::runner::{Runner, StartError};
pub use self::waiters::{End, Waited, Waiter};

#[derive(Clone, Debug)]
pub struct Options {
    /// Under which the host is listed, for people.
    pub name: String,
    /// How long other hosts leave this one's runs alone after its last sign of life. Renewed four times as often.
    pub lease: Duration,
    /// How much longer than its lease a silent host is waited for, because it stops its guests by its own clock.
    pub takeover_margin: Duration,
    /// Runs under way at the same time; more stay READY in the database.
    pub max_active_runs: usize,
    /// While so many runs wait in the database and this host is full, it takes no new ones.
    pub max_ready_runs: usize,
    /// How long a client that waits for a run's end is held at most.
    pub waiter_ttl: Duration,
    /// How often those that are held for longer are sent away.
    pub waiter_sweep: Duration,
    pub limits: Limits,
}

/// What a run and its steps may use, unless their plan sets other limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time limit of a run, from its acceptance.
    pub workflow_timeout: Duration,
    /// Time limit of an attempt, from its first call.
    pub step_timeout: Duration,
    /// Fuel of an attempt.
    pub step_fuel: u64,
    /// Memory of a component's instance.
    pub step_memory_bytes: u64,
    /// Largest value of a step, as JSON. A plan can't change it.
    pub value_bytes: u64,
}
