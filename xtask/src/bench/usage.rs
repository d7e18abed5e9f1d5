//! The processor time of a process: proc(5), in hundredths of a second.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The processor time up to an instant.
#[derive(Clone, Copy)]
pub(super) struct Usage(Duration);

/// The fields of `/proc/PID/stat` after the name, from the third on.
struct Stat(Vec<u64>);

impl Usage {
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        Ok(Stat::read(&pid.to_string())?.own())
    }

    /// Sums up all children of a process, running or ended, without the children's own children.
    pub(super) fn of_children_of(parent: u32) -> Result<Self> {
        let mut usage = Stat::read(&parent.to_string())?.of_ended_children().0;
        for entry in fs::read_dir("/proc").context("only Linux reports the processor time of processes")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
                continue;
            };
            // A process that ended meanwhile is skipped.
            let Ok(stat) = Stat::read(pid) else { continue };
            if stat.parent() == u64::from(parent) {
                usage += stat.own().0;
            }
        }
        Ok(Self(usage))
    }

    /// Sums up the processes that this one has started and waited for.
    pub(super) fn of_ended_children() -> Result<Self> {
        Ok(Stat::read("self")?.of_ended_children())
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Stat {
    fn read(pid: &str) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .context("only Linux reports the processor time of processes")?;
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
        // The state is a letter, and counts as 0, like negative values.
        Ok(Self(fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect()))
    }

    fn parent(&self) -> u64 {
        self.field(4)
    }

    fn own(&self) -> Usage {
        Usage(Duration::from_millis((self.field(14) + self.field(15)) * 10))
    }

    fn of_ended_children(&self) -> Usage {
        Usage(Duration::from_millis((self.field(16) + self.field(17)) * 10))
    }

    /// Returns a field by its number in the manual, where the first is the process's id.
    fn field(&self, number: usize) -> u64 {
        self.0.get(number - 3).copied().unwrap_or(0)
    }
}
