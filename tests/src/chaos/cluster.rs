//! Several hosts on one database, each behind its own network. A host that has ended is replaced after a while.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Handle;

use super::bell::Bell;
use super::inject::wait_until;
use super::postgres::NAME;
use super::proxy::{Mode, Proxy};
use crate::host::{Host, Options, free_address};
use crate::{Answer, Client};

pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// The limit is low, so that runs also wait for a slot and are claimed.
const ACTIVE_RUNS: &str = "32";
/// After this time a client counts an answer as lost. A frozen host gives none.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause before a host that ended by itself is replaced. It may have found no database.
const PAUSE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(50);
/// A stopping host drains its runs and hands them over, which takes some seconds more without a database.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The time for hosts to become ready when nothing hinders them.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long clients prefer other hosts to one that has just failed them.
const AVOIDED: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    began: Instant,
}

#[derive(Debug)]
struct Member {
    /// The address of all processes in this place, which is also the host's name in the database.
    listen: SocketAddr,
    proxy: Proxy,
    client: Client,
    logs: PathBuf,
    place: Mutex<Place>,
    /// Until this time, in milliseconds from the beginning, clients prefer other hosts.
    avoided_until: AtomicU64,
    /// The number of requests that the host hasn't answered yet.
    asked: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    process: Option<Host>,
    /// When the next process starts, if there is none now.
    start_at: Instant,
    started: u32,
    /// The number of processes that ended by themselves before they were ready, as they do without a database.
    failed_starts: u32,
    /// Processes that ended by themselves later, which must not happen.
    ended_by_themselves: Vec<String>,
    /// Processes that were asked to stop, didn't, and were killed.
    slow_stops: u32,
}

/// The counts of all processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    pub(crate) started: u32,
    pub(crate) failed_starts: u32,
    pub(crate) ended_by_themselves: Vec<String>,
    pub(crate) slow_stops: u32,
}

impl Cluster {
    /// Starts this many hosts, and waits until all are ready.
    pub(crate) fn start(runtime: &Handle, socket: &Path, hosts: usize, logs: &Path) -> Result<Self> {
        let member = |n: usize| -> Result<Member> {
            let listen = free_address();
            Ok(Member {
                listen,
                proxy: Proxy::start(runtime, socket.to_owned())?,
                client: Client::with_patience(format!("http://{listen}"), PATIENCE),
                logs: logs.join(format!("host-{n}")),
                place: Mutex::new(Place {
                    process: None,
                    start_at: Instant::now(),
                    started: 0,
                    failed_starts: 0,
                    ended_by_themselves: Vec::new(),
                    slow_stops: 0,
                }),
                avoided_until: AtomicU64::new(0),
                asked: AtomicUsize::new(0),
            })
        };
        let members = (0..hosts).map(member).collect::<Result<_>>()?;
        let cluster = Self { members, began: Instant::now() };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn client(&self, host: usize) -> &Client {
        &self.members[host].client
    }

    pub(crate) fn name(&self, host: usize) -> String {
        self.members[host].listen.to_string()
    }

    /// The name under which Postgres lists the host's connections.
    pub(crate) fn application_name(&self, host: usize) -> String {
        application_name(self.members[host].listen)
    }

    /// Chooses a host as a load balancer would: one that hasn't just failed a client, with the fewest open requests.
    /// Among equal ones, it takes the first from `wish` on.
    pub(crate) fn choose(&self, wish: usize) -> usize {
        let now = self.now();
        let all = (0..self.len()).map(|n| (wish + n) % self.len());
        let rank = |host: &usize| {
            let Member { avoided_until, asked, .. } = &self.members[*host];
            (avoided_until.load(Ordering::Relaxed) > now, asked.load(Ordering::Relaxed))
        };
        all.min_by_key(rank).expect("there is a host")
    }

    /// Sends a request to a host, and counts it as open until it is answered.
    pub(crate) fn ask(
        &self,
        host: usize,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let Member { client, asked, .. } = &self.members[host];
        asked.fetch_add(1, Ordering::Relaxed);
        let answer = client.request("POST", path, headers, body);
        asked.fetch_sub(1, Ordering::Relaxed);
        answer.ok()
    }

    /// Notes that the host has failed a client.
    pub(crate) fn avoid(&self, host: usize) {
        let until = self.now() + u64::try_from(AVOIDED.as_millis()).unwrap_or(u64::MAX);
        self.members[host].avoided_until.store(until, Ordering::Relaxed);
    }

    pub(crate) fn set_network(&self, host: usize, mode: Mode) {
        self.members[host].proxy.set(mode);
    }

    /// Kills the host with `kill -9`. The next process starts after `pause`. Returns false if there is no process now.
    pub(crate) fn kill(&self, host: usize, pause: Duration) -> bool {
        let mut place = self.members[host].place();
        let Some(mut process) = place.process.take() else { return false };
        process.kill();
        place.start_at = Instant::now() + pause;
        true
    }

    /// Asks the host to stop. The next process starts `pause` after it has ended. Returns false if there is no process
    /// now.
    pub(crate) fn stop(&self, host: usize, pause: Duration) -> bool {
        let member = &self.members[host];
        let mut process = {
            let mut place = member.place();
            let Some(process) = place.process.take() else { return false };
            // The host may take long to stop, and other threads look at the place meanwhile.
            place.start_at = Instant::now() + STOP_PATIENCE * 2;
            process
        };
        signal(process.pid(), Signal::TERM);
        let has_stopped = wait_until(STOP_PATIENCE, || process.has_ended());
        process.kill();
        let mut place = member.place();
        place.start_at = Instant::now() + pause;
        place.slow_stops += u32::from(!has_stopped);
        true
    }

    /// Sends SIGSTOP, and returns the process for [`Self::thaw`], or `None` if there is no process now.
    pub(crate) fn freeze(&self, host: usize) -> Option<u32> {
        let place = self.members[host].place();
        let pid = place.process.as_ref()?.pid();
        signal(pid, Signal::STOP);
        Some(pid)
    }

    /// Sends SIGCONT, if the process is still the one that was frozen.
    pub(crate) fn thaw(&self, host: usize, frozen: u32) {
        let place = self.members[host].place();
        if place.process.as_ref().is_some_and(|process| process.pid() == frozen) {
            signal(frozen, Signal::CONT);
        }
    }

    /// Replaces hosts that have ended, until the bell rings.
    pub(crate) fn keep(&self, end: &Bell) {
        while !end.wait(POLL) {
            self.members.iter().for_each(Member::look_after);
        }
    }

    /// Waits until every host is ready. All faults must have ended.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let began = Instant::now();
        for member in &self.members {
            let is_ready = || {
                let answer = member.client.request("GET", "/readyz", &[], &[]);
                answer.is_ok_and(|answer| answer.status == 200)
            };
            loop {
                member.look_after();
                if is_ready() {
                    break;
                }
                ensure!(
                    began.elapsed() < READY_PATIENCE,
                    "the host at {} isn't ready after {} s; see `{}`",
                    member.listen,
                    READY_PATIENCE.as_secs(),
                    member.logs.display()
                );
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    pub(crate) fn lives(&self) -> Lives {
        let mut lives = Lives::default();
        for member in &self.members {
            let place = member.place();
            lives.started += place.started;
            lives.failed_starts += place.failed_starts;
            lives.ended_by_themselves.extend(place.ended_by_themselves.iter().cloned());
            lives.slow_stops += place.slow_stops;
        }
        lives
    }

    /// Uploads the components and deploys the workflows.
    pub(crate) fn set_up(&self) -> Result<()> {
        let place = self.members[0].place();
        let host = place.process.as_ref().context("the first host runs")?;
        host.set_up();
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Member {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process if it is time for one, and notes if one has ended by itself.
    fn look_after(&self) {
        let mut place = self.place();
        if let Some(process) = &mut place.process
            && process.has_ended()
        {
            let log = process.log();
            match log.contains("ready at http://") {
                false => place.failed_starts += 1,
                true => {
                    let last = log.lines().last().unwrap_or_default();
                    let what = format!("the host at {} ended by itself: {last}", self.listen);
                    place.ended_by_themselves.push(what);
                }
            }
            place.process = None;
            place.start_at = Instant::now() + PAUSE;
        }
        if place.process.is_none() && place.start_at <= Instant::now() {
            place.started += 1;
            let log = self.logs.with_added_extension(format!("{}.log", place.started));
            place.process = Some(Host::spawn(&self.options(log)));
        }
    }

    fn options(&self, log: PathBuf) -> Options {
        let (address, name) = (self.proxy.address(), application_name(self.listen));
        let url = format!("postgres://{NAME}@{address}/{NAME}?sslmode=disable&application_name={name}");
        let lease = format!("{}ms", LEASE.as_millis());
        Options { listen: Some(self.listen), log: Some(log), ..Options::database(&url) }
            .argument("--lease")
            .argument(&lease)
            .argument("--max-active-runs")
            .argument(ACTIVE_RUNS)
    }
}

fn application_name(listen: SocketAddr) -> String {
    format!("aster-{}", listen.port())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}
