//! The whole engine under one seed: several hosts, a model of the database, guests, operators, and everything that goes wrong
//! between them, on a clock that is only told to move.
//!
//! What is simulated is the runner as it is (`aster_runner`) with the core; the model stands in for the store's SQL
//! (`tables`), its connections (`world`, `journal`) and the sandbox (`guests`). At the end an oracle looks at what is left
//! (`oracle`). The same seed is the same simulation, down to the order in which tasks run: so a seed that fails can be
//! looked at again. That the oracle would notice is shown by planting [bugs](Bug).

mod bugs;
mod guests;
mod journal;
mod oracle;
mod plans;
mod scenario;
mod tables;
#[cfg(test)]
mod tests;
mod world;

use std::cell::Cell;
use std::sync::Once;

pub use self::bugs::Bug;
pub use self::tables::{Row, Tables};

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// What must never happen and did; empty if all went as it should.
    pub violations: Vec<String>,
    pub counts: Counts,
    /// A hash of all that was done, in order.
    pub trace: u64,
}

/// What was done, and what went wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub runs: u64,
    pub completed: u64,
    pub failed: u64,
    pub compensated: u64,
    pub compensation_failed: u64,
    pub events: u64,
    pub duplicates: u64,
    pub cancels: u64,
    pub repairs: u64,
    /// Hosts that were killed between two statements, before one was sent, after one was done, or by a guest.
    pub killed: u64,
    pub killed_before_statement: u64,
    pub killed_after_statement: u64,
    pub killed_by_guest: u64,
    /// Hosts that were stopped in order.
    pub stopped: u64,
    pub cuts: u64,
    pub lost_statements: u64,
    pub lost_answers: u64,
    /// The most commits that were refused one after the other, without one that was made.
    pub most_in_vain: u64,
    /// Simulated time.
    pub seconds: u64,
}

macro_rules! each_count {
    ($($name:ident),* $(,)?) => {
        impl std::ops::AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                let most_in_vain = self.most_in_vain.max(other.most_in_vain);
                $(self.$name += other.$name;)*
                self.most_in_vain = most_in_vain;
            }
        }

        impl Counts {
            /// Each with its name.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

each_count! {
    runs, completed, failed, compensated, compensation_failed, events, duplicates, cancels, repairs, killed,
    killed_before_statement, killed_after_statement, killed_by_guest, stopped, cuts, lost_statements, lost_answers, most_in_vain, seconds,
}

/// Runs one simulation to its end, on this thread.
///
/// # Panics
/// In a runtime of tokio.
pub fn simulate(seed: u64, bug: Option<Bug>) -> Outcome {
    count_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    PANICS.set(0);
    let mut outcome = runtime.block_on(Box::pin(scenario::play(seed, bug)));
    drop(runtime);
    if PANICS.get() > 0 {
        outcome.violations.push(format!("{} tasks panicked", PANICS.get()));
    }
    outcome
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Tasks that panic are caught by their runtime: here they are counted.
fn count_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}
