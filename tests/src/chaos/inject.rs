//! Carries out the faults, and undoes each when its time is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::bell::Bell;
use super::cluster::Cluster;
use super::faults::{Fault, Kind};
use super::postgres::Server;
use super::proxy::Mode;
use super::sql::Sql;
use super::takeover::{self, Takeover};

/// The time for an answer of a server that may be ending.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause between two times that all connections of a host are ended.
const TERMINATE_PAUSE: Duration = Duration::from_millis(100);
/// The time for a replacement process to be ready.
const START: Duration = Duration::from_secs(2);
/// How often the server is checked.
const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Injector<'a> {
    cluster: &'a Cluster,
    /// Locked while the server has a fault.
    server: &'a Mutex<Server>,
    sql: &'a Sql,
    say: &'a (dyn Fn(String) + Sync),
    began: Instant,
    done: Mutex<Done>,
}

/// The faults that were carried out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub(crate) faults: BTreeMap<Kind, u32>,
    /// The span of each fault, from its beginning until it was undone.
    pub(crate) in_force: Vec<(Instant, Instant)>,
    pub(crate) takeovers: Vec<Takeover>,
    /// How often Postgres ended by itself, for example because it couldn't write its log on a full disk.
    pub(crate) postgres_ended: u32,
    /// The reasons why faults couldn't be undone.
    pub(crate) failures: Vec<String>,
}

impl<'a> Injector<'a> {
    /// `say` is called for every fault.
    pub(crate) fn new(
        cluster: &'a Cluster,
        server: &'a Mutex<Server>,
        sql: &'a Sql,
        say: &'a (dyn Fn(String) + Sync),
    ) -> Self {
        Self { cluster, server, sql, say, began: Instant::now(), done: Mutex::default() }
    }

    /// Carries out each fault at its time, until `end` rings, which also ends the faults in force. When this returns,
    /// all faults are undone. In `watching`, the runs of a killed host are watched on until `watch_end` rings.
    pub(crate) fn run<'scope>(
        &'scope self,
        watching: &'scope Scope<'scope, '_>,
        faults: Vec<Fault>,
        end: &'scope Bell,
        watch_end: &'scope Bell,
    ) {
        thread::scope(|scope| {
            for fault in faults {
                if end.wait((self.began + fault.at).saturating_duration_since(Instant::now())) {
                    return;
                }
                scope.spawn(move || {
                    if let Err(error) = self.carry_out(fault, watching, end, watch_end) {
                        self.done().failures.push(format!("{}: {error:#}", fault.kind.name()));
                    }
                });
            }
        });
    }

    /// Starts the server again if it has ended by itself, until the bell rings.
    pub(crate) fn keep_server(&self, end: &Bell) {
        while !end.wait(POLL) {
            // If the lock is held, a fault is being carried out on the server.
            let Ok(mut server) = self.server.try_lock() else { continue };
            if server.has_ended() {
                self.done().postgres_ended += 1;
                if let Err(error) = server.ensure_running() {
                    self.done().failures.push(format!("{error:#}"));
                }
            }
        }
    }

    pub(crate) fn into_done(self) -> Done {
        self.done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u32 {
        self.done().faults.values().sum()
    }

    fn carry_out<'scope>(
        &'scope self,
        fault: Fault,
        watching: &'scope Scope<'scope, '_>,
        end: &'scope Bell,
        watch_end: &'scope Bell,
    ) -> Result<()> {
        let Fault { kind, host, lasts, .. } = fault;
        self.say(format_args!("{fault}"));
        let began = Instant::now();
        let was_done = match kind {
            Kind::Kill => {
                let name = self.cluster.name(host);
                let was_killed = self.cluster.kill(host, lasts);
                let killed_at = Instant::now();
                if was_killed {
                    watching.spawn(move || {
                        let takeover = takeover::watch(self.sql, &name, killed_at, watch_end);
                        if let Some(takeover) = &takeover {
                            self.say(format_args!("{takeover}"));
                        }
                        self.done().takeovers.extend(takeover);
                    });
                }
                was_killed
            }
            Kind::Stop => self.cluster.stop(host, lasts),
            Kind::Freeze => {
                let frozen = self.cluster.freeze(host);
                if let Some(pid) = frozen {
                    end.wait(lasts);
                    self.cluster.thaw(host, pid);
                }
                frozen.is_some()
            }
            Kind::Cut | Kind::Silence | Kind::Hold => {
                let mode = match kind {
                    Kind::Cut => Mode::Cut,
                    Kind::Silence => Mode::Silence,
                    _ => Mode::Hold,
                };
                self.cluster.set_network(host, mode);
                end.wait(lasts);
                self.cluster.set_network(host, Mode::Pass);
                true
            }
            Kind::Terminate => {
                let name = self.cluster.application_name(host);
                let until = Instant::now() + lasts;
                loop {
                    // A server that has a fault of its own ends connections by itself.
                    let _ = self.sql.ask(ANSWER, async |connection| {
                        let ended = sqlx::query(
                            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
                        );
                        ended.bind(&name).execute(connection).await?;
                        Ok(())
                    });
                    let left = until.saturating_duration_since(Instant::now());
                    if end.wait(TERMINATE_PAUSE.min(left)) || left.is_zero() {
                        break true;
                    }
                }
            }
            Kind::PostgresStop => {
                let mut server = self.server();
                server.stop_immediately()?;
                end.wait(lasts);
                server.ensure_running()?;
                true
            }
            Kind::DiskFull => {
                let mut server = self.server();
                server.fill_volume()?;
                end.wait(lasts / 2);
                // The next part of the log can't be created either. Postgres panics then, and this gets no answer.
                let _ = self.sql.ask(ANSWER, async |connection| {
                    sqlx::query("select pg_switch_wal()").execute(connection).await?;
                    Ok(())
                });
                end.wait(lasts / 2);
                server.empty_volume()?;
                if server.has_ended() {
                    self.done().postgres_ended += 1;
                    server.ensure_running()?;
                }
                true
            }
        };
        // A process that was killed or stopped is replaced after the fault's time.
        let undone = match kind {
            Kind::Kill | Kind::Stop => Instant::now() + lasts + START,
            _ => Instant::now(),
        };
        let mut done = self.done();
        done.in_force.push((began, undone));
        if was_done {
            *done.faults.entry(kind).or_default() += 1;
        }
        Ok(())
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        (self.say)(format!("{:>7.1} s  {what}", self.began.elapsed().as_secs_f64()));
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until `is_so` holds, for at most `longest`. Returns whether it does.
pub(crate) fn wait_until(longest: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if began.elapsed() > longest {
            return false;
        }
        thread::sleep(POLL);
    }
}
