//! Compiles components, each in a process of its own.
//!
//! A compiler that is given hostile bytes may take any amount of time and memory, or crash. In a process of its own it
//! stays within its limits, crashes alone, and can be stopped at any moment.
//! `docs/decisions/0004-compile-in-a-child.md` says why the answer of that process is trusted.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use wasmtime::Engine;

use super::child::{Ending, Order};
use super::{Trusted, blocking};
use crate::sandbox::load::not_compiled;
use crate::sandbox::{Allocation, UploadError, engine, limits};

/// The largest code that is accepted.
const MAX_CODE_BYTES: u64 = 512 << 20;
/// Real components need at most this much.
const CODE_PER_BYTE: usize = 4;
const MAX_COMPLAINT_BYTES: u64 = 64 << 10;
/// How many times its processor time a compilation may take by the wall clock. It has the lowest priority.
const PATIENCE: u32 = 5;

/// How components are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// In a process of this program, which must call [`compile_ordered`](super::child::compile_ordered) when it is
    /// asked to.
    Child(PathBuf),
    /// In this process without limits, for measurements and for trusted components.
    InThisProcess,
}

/// The limits of one compilation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) memory_bytes: u64,
    /// The sum over all threads.
    pub(super) processor_time: Duration,
}

impl Compiler {
    /// Compiles in processes of the running program, which must be `aster`.
    pub fn of_this_program() -> Self {
        // This doesn't name the program by its path, where a newer version may have been installed meanwhile.
        #[cfg(target_os = "linux")]
        return Self::Child("/proc/self/exe".into());
        #[cfg(not(target_os = "linux"))]
        std::env::current_exe().map_or(Self::InThisProcess, Self::Child)
    }

    /// Compiles the component for an engine with this allocation.
    ///
    /// # Errors
    /// Returns what is wrong with the component, or [`UploadError::Host`].
    ///
    /// # Cancel safety
    /// Dropping the future kills the child.
    pub(super) async fn compile(
        &self,
        allocation: Allocation,
        budget: Budget,
        bytes: Bytes,
    ) -> Result<Trusted, UploadError> {
        match self {
            Self::Child(program) => in_child(program, allocation, budget, bytes).await,
            Self::InThisProcess => {
                blocking(move || {
                    let engine: Engine = engine::for_compiling(allocation)
                        .map_err(|error| UploadError::Host(format!("{error:#}")))?;
                    let code = engine.precompile_component(&bytes).map_err(|error| not_compiled(&error))?;
                    // This process made the code itself.
                    Ok(Trusted(code))
                })
                .await?
            }
        }
    }
}

async fn in_child(
    program: &Path,
    allocation: Allocation,
    budget: Budget,
    bytes: Bytes,
) -> Result<Trusted, UploadError> {
    let failed = |error: std::io::Error| UploadError::Host(format!("`{}`: {error}", program.display()));
    let order = Order { allocation, size: bytes.len(), budget };
    let mut child = Command::new(program)
        .args(order.arguments())
        // The child needs nothing from the environment, and mustn't learn the key for compiled code.
        .env_clear()
        // Memory that is reserved but unused would count against the limit.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(UploadError::Host("the compiler has no pipes".into()));
    };
    let mut code = Vec::with_capacity(bytes.len().saturating_mul(CODE_PER_BYTE));
    let mut complaint = Vec::new();
    let talk = async {
        let (mut stdout, mut stderr) = (stdout.take(MAX_CODE_BYTES + 1), stderr.take(MAX_COMPLAINT_BYTES));
        let (_fed, read, _) = tokio::join!(
            // A child that ends before it has read everything reports why in other ways.
            stdin.write_all(&bytes),
            stdout.read_to_end(&mut code),
            stderr.read_to_end(&mut complaint),
        );
        read?;
        if code.len() as u64 > MAX_CODE_BYTES {
            child.start_kill()?;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(budget.processor_time * PATIENCE, talk).await;
    // The pipe stays open until here, because its end tells the child that the host no longer waits.
    drop(stdin);
    match ended {
        Ok(ended) => verdict(ended.map_err(failed)?, budget, code, &String::from_utf8_lossy(&complaint)),
        Err(_) => {
            Err(UploadError::Busy("the host had no time to compile it: its processors are busy".into()))
        }
    }
}

/// Interprets how the child ended.
fn verdict(
    status: ExitStatus,
    budget: Budget,
    code: Vec<u8>,
    complaint: &str,
) -> Result<Trusted, UploadError> {
    let memory = || Err(UploadError::TooCostly(format!("{} of memory", limits::bytes(budget.memory_bytes))));
    let time = || Err(UploadError::TooCostly(format!("{:?} of processor time", budget.processor_time)));
    if code.len() as u64 > MAX_CODE_BYTES {
        return Err(UploadError::TooCostly(format!("{} of compiled code", limits::bytes(MAX_CODE_BYTES))));
    }
    if let Some(ending) = status.code().and_then(Ending::of) {
        return match ending {
            // This process started the child from its own program, and nobody else holds the other end of the pipe.
            Ending::Compiled => Ok(Trusted(code)),
            Ending::Refused => Err(UploadError::Invalid(String::from_utf8_lossy(&code).into_owned())),
            Ending::Unsupported => Err(UploadError::Unsupported(String::from_utf8_lossy(&code).into_owned())),
            Ending::OutOfMemory => memory(),
            Ending::Failed => Err(UploadError::Host(String::from_utf8_lossy(&code).into_owned())),
        };
    }
    match status.signal().and_then(rustix::process::Signal::from_named_raw) {
        Some(rustix::process::Signal::XCPU) => time(),
        // Rust ends a program like this when an allocation fails.
        Some(rustix::process::Signal::ABORT) if complaint.contains("memory allocation of") => memory(),
        // The kernel kills it when the machine runs out of memory; an operator may, too.
        Some(rustix::process::Signal::KILL) => Err(UploadError::Host(
            "the compiler was killed, probably because the machine ran out of memory".into(),
        )),
        _ => {
            let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            tracing::error!(%status, complaint, "the compiler crashed on a component");
            Err(UploadError::CompilerCrashed(format!(
                "{status}: {}",
                last.chars().take(200).collect::<String>()
            )))
        }
    }
}
