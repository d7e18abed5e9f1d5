//! Keeps a server running for as long as its host lives.

use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::Error;
use crate::postmaster::{Launch, stop_fast, stop_immediately};

/// A server that ends sooner than this after its start has failed quickly.
const QUICK: Duration = Duration::from_secs(10);
/// After this many quick failures in a row another start is hopeless. The waits between them add up to 13 s. In that time
/// the processes of a killed server notice that it is gone; until then they keep a new one from starting.
const MOST_FAILURES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A fast shutdown that takes longer writes a checkpoint that the disk can't cope with. Recovery works without it.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Signalled and reaped only under this lock, so its number can't belong to another process.
    server: Option<Child>,
    stopping: bool,
    given_up: Option<String>,
}

impl Supervisor {
    /// Starts the server, waits until it is ready, and watches it from then on.
    pub(crate) fn start(launch: Launch) -> Result<Self, Error> {
        let mut server = launch.spawn()?;
        if let Err(error) = launch.wait_until_ready(&mut server) {
            let _ = stop_immediately(pid_of(&server));
            let _ = server.wait();
            return Err(error);
        }
        let state = State { server: Some(server), stopping: false, given_up: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("postgres-supervisor".into())
            .spawn(move || watched.supervise(&launch))
            .expect("the system can start a thread where it has just started a server");
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.shared.lock().server.as_ref().map(Child::id)
    }

    pub(crate) fn given_up(&self) -> Option<String> {
        self.shared.lock().given_up.clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // If the thread has panicked, the server has ended, or the next host stops it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock never leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn supervise(&self, launch: &Launch) {
        let mut failures = 0;
        let mut started = Instant::now();
        loop {
            let ended = self.wait_for_end();
            let mut state = self.lock();
            if state.stopping {
                return;
            }
            failures = if started.elapsed() < QUICK { failures + 1 } else { 1 };
            if failures > MOST_FAILURES {
                let reason = format!(
                    "Postgres ended {failures} times shortly after its start and isn't started again; \
                     the end of its log `{}`:\n{}",
                    launch.log.path().display(),
                    launch.log.tail()
                );
                tracing::error!("{reason}");
                state.given_up = Some(reason);
                return;
            }
            let wait = FIRST_WAIT * 2_u32.pow(failures - 1).min(32);
            match ended {
                Some(status) => {
                    tracing::warn!(
                        failures,
                        wait_ms = wait.as_millis(),
                        "Postgres ended ({status}): starting it again"
                    );
                }
                None => {
                    tracing::warn!(failures, wait_ms = wait.as_millis(), "trying again to start Postgres")
                }
            }
            let (mut state, _) = self
                .changed
                .wait_timeout_while(state, wait, |state| !state.stopping)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stopping {
                return;
            }
            started = Instant::now();
            match launch.spawn() {
                Ok(server) => state.server = Some(server),
                Err(error) => tracing::error!(error = %error, "Postgres can't be started"),
            }
        }
    }

    /// Waits until the server ends and reaps it. Returns `None` at once if there is no server.
    fn wait_for_end(&self) -> Option<ExitStatus> {
        let pid = self.lock().server.as_ref().map(pid_of)?;
        // Leaves the process as a zombie, so that its number isn't reused before the lock is held.
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        let status = self.lock().server.take().and_then(|mut server| server.wait().ok());
        self.changed.notify_all();
        status
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        self.changed.notify_all();
        if let Some(server) = &state.server {
            let _ = stop_fast(pid_of(server));
        }
        let (state, waited) = self
            .changed
            .wait_timeout_while(state, STOP_PATIENCE, |state| state.server.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        if let (Some(server), true) = (&state.server, waited.timed_out()) {
            tracing::warn!("Postgres takes too long to stop: the next start will recover from its log");
            let _ = stop_immediately(pid_of(server));
        }
    }
}

fn pid_of(server: &Child) -> Pid {
    Pid::from_child(server)
}
