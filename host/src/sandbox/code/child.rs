//! The compiler's process: what the program does when it was started to compile one component.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use super::compile::Budget;
use crate::sandbox::load::not_compiled;
use crate::sandbox::{Allocation, UploadError, engine};

/// The subcommand of `aster` that compiles. It is not for people to type.
pub const SUBCOMMAND: &str = "compile-component";
/// The lowest priority that there is.
const NICENESS: i32 = 19;

/// What to compile, and the limits for it.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub(super) allocation: Allocation,
    pub(super) size: usize,
    pub(super) budget: Budget,
}

/// How a compilation ended. The process exits with this as its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The code is on standard output.
    Compiled,
    /// Standard output says what is wrong with the component.
    Refused,
    /// Standard output says which feature the component would need.
    Unsupported,
    OutOfMemory,
    /// Standard output says what is wrong with the machine.
    Failed,
}

impl Ending {
    const ALL: [(Self, u8); 5] = [
        (Self::Compiled, 0),
        (Self::Refused, 10),
        (Self::Unsupported, 11),
        (Self::OutOfMemory, 12),
        (Self::Failed, 13),
    ];

    pub(super) fn of(code: i32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| i32::from(*known) == code).map(|(ending, _)| *ending)
    }

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or(1, |(_, code)| *code)
    }
}

impl Order {
    /// Returns the arguments for the child's command line.
    pub(super) fn arguments(&self) -> [String; 5] {
        let Self { allocation, size, budget: Budget { memory_bytes, processor_time } } = self;
        [
            SUBCOMMAND.to_owned(),
            format!("{allocation:?}"),
            size.to_string(),
            memory_bytes.to_string(),
            processor_time.as_secs().max(1).to_string(),
        ]
    }

    /// Parses the arguments of the subcommand.
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let [allocation, size, memory_bytes, seconds] = arguments else { return None };
        let known = [Allocation::Pool, Allocation::PoolDefaults, Allocation::OnDemand];
        let allocation = known.into_iter().find(|known| format!("{known:?}") == *allocation)?;
        let processor_time = Duration::from_secs(seconds.parse().ok()?);
        let budget = Budget { memory_bytes: memory_bytes.parse().ok()?, processor_time };
        Some(Self { allocation, size: size.parse().ok()?, budget })
    }
}

/// Compiles the component on standard input, and writes the code to standard output.
pub fn compile_ordered(order: &Order) -> ExitCode {
    let (ending, answer) = match limit_myself(order.budget).and_then(|()| read(order.size)) {
        Ok(bytes) => compile(order.allocation, &bytes),
        Err(error) => (Ending::Failed, error.to_string().into_bytes()),
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&answer).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::from(ending.code()),
        // Standard output is closed, so the host no longer waits.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Sets this process's limits, before anything is read. From then on the kernel enforces them.
fn limit_myself(budget: Budget) -> io::Result<()> {
    let limit = |resource, current: u64, maximum: u64| {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
    };
    // The limit is on writable memory, used or not. The compiler reserves no memory that it doesn't use.
    limit(Resource::Data, budget.memory_bytes, budget.memory_bytes)?;
    // The soft limit ends the process by SIGXCPU.
    let seconds = budget.processor_time.as_secs();
    limit(Resource::Cpu, seconds, seconds + 5)?;
    limit(Resource::Core, 0, 0)?;
    // Threads that are started later inherit the priority.
    nice(NICENESS).ok();
    // If the machine runs out of memory, the kernel kills this process first.
    #[cfg(target_os = "linux")]
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    Ok(())
}

/// Reads the component, and then starts to watch whether the host still waits for it.
fn read(size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    io::stdin().lock().take(size as u64).read_to_end(&mut bytes)?;
    if bytes.len() != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    thread::Builder::new().name("host-is-there".into()).spawn(|| {
        // The other end is closed when the host abandons the compilation, and also when the host dies.
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    })?;
    Ok(bytes)
}

fn compile(allocation: Allocation, bytes: &[u8]) -> (Ending, Vec<u8>) {
    let engine = match engine::for_compiling(allocation) {
        Ok(engine) => engine,
        Err(error) => return (Ending::Failed, format!("{error:#}").into_bytes()),
    };
    match engine.precompile_component(bytes) {
        Ok(code) => (Ending::Compiled, code),
        Err(error) if error.is::<wasmtime::OutOfMemory>() => (Ending::OutOfMemory, Vec::new()),
        Err(error) => match not_compiled(&error) {
            UploadError::Unsupported(what) => (Ending::Unsupported, what.into_bytes()),
            UploadError::Invalid(what) => (Ending::Refused, what.into_bytes()),
            other => (Ending::Refused, other.to_string().into_bytes()),
        },
    }
}
