//! What all hosts of a simulation share, and what can go wrong between them and the database.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aster_core::id::{ReleaseId, WorkflowId};
use aster_core::plan::Plan;
use aster_core::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Counts;
use super::tables::Tables;
use aster_runner::ports::Release;
use aster_runner::random::Random;

/// A lease and its margin, and what is late on its way.
const RECOVERY: Duration = Duration::from_secs(15);

/// More than there are runs at once: each may be refused for one that is made, or for a fault.
const MOST_IN_VAIN: u32 = 30;

/// Where the database's clock stands at the beginning.
const EPOCH_MS: i64 = 1_700_000_000_000;

#[derive(Debug)]
pub(super) struct World {
    tables: Mutex<Tables>,
    random: Mutex<Random>,
    began: Instant,
    /// Whether all runs want one key, and no guest takes its time.
    pub(super) is_hot: bool,
    /// Whether anything goes wrong.
    troubled: AtomicBool,
    /// Since when nothing does.
    healed_at: Mutex<Option<Instant>>,
    /// Commits that were refused since the newest one that was made.
    in_vain: AtomicU32,
    pub(super) releases: BTreeMap<ReleaseId, Release>,
    pub(super) counts: Mutex<Counts>,
    /// Guests that are running: of which run, on which machine.
    running: Mutex<BTreeMap<(WorkflowId, u64), usize>>,
    violations: Mutex<Vec<String>>,
    /// A hash of everything that was done, in order.
    trace: Mutex<u64>,
}

/// A machine with a host on it. Another start is another machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) number: usize,
    dead: AtomicBool,
    died: Notify,
    cut_until: Mutex<Instant>,
}

/// What happens to one statement on its way.
struct Fate {
    there: Duration,
    back: Duration,
    /// It never arrives.
    vanishes: bool,
    /// It is done, and the answer never arrives.
    unanswered: bool,
    /// The machine dies before it is sent.
    dies_before: bool,
    /// The machine dies when it is done, before it hears of it.
    dies_after: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer")]
pub(super) struct Lost;

impl World {
    pub(super) fn new(random: Random, tables: Tables, plans: Vec<Plan>, is_hot: bool) -> Self {
        let releases = (1..).map(ReleaseId).zip(plans);
        Self {
            tables: Mutex::new(tables),
            random: Mutex::new(random),
            began: Instant::now(),
            is_hot,
            troubled: AtomicBool::new(true),
            healed_at: Mutex::default(),
            in_vain: AtomicU32::new(0),
            releases: releases
                .map(|(id, plan)| (id, Release { id, plan: Arc::new(plan), code: Arc::new(()) }))
                .collect(),
            counts: Mutex::default(),
            running: Mutex::default(),
            violations: Mutex::default(),
            trace: Mutex::new(0xcbf2_9ce4_8422_2325),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(EPOCH_MS).plus_millis(elapsed)
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("nothing panics while it is held")
    }

    pub(super) fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().expect("nothing panics while it is held")
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.counts.lock().expect("nothing panics while it is held"));
    }

    pub(super) fn heal(&self) {
        self.troubled.store(false, Ordering::Relaxed);
        *self.healed_at.lock().expect("nothing panics while it is held") = Some(Instant::now());
    }

    /// Whether nothing has gone wrong for so long that no trace of it may be left.
    pub(super) fn is_well(&self) -> bool {
        let healed_at = *self.healed_at.lock().expect("nothing panics while it is held");
        healed_at.is_some_and(|at| at.elapsed() > RECOVERY)
    }

    /// Watches that commits are made, and not only refused.
    pub(super) fn note_commit(&self, is_made: bool) {
        if is_made {
            self.in_vain.store(0, Ordering::Relaxed);
            return;
        }
        let in_vain = self.in_vain.fetch_add(1, Ordering::Relaxed) + 1;
        self.count(|counts| counts.most_in_vain = counts.most_in_vain.max(u64::from(in_vain)));
        if in_vain == MOST_IN_VAIN {
            self.violation(format!("{in_vain} commits were refused one after the other, and none was made"));
        }
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    pub(super) fn violation(&self, what: String) {
        self.violations.lock().expect("nothing panics while it is held").push(what);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("nothing panics while it is held").clone()
    }

    /// FNV-1a over what happens, so that two simulations can be compared.
    pub(super) fn trace(&self, what: &str) -> u64 {
        tracing::debug!(at = %self.now(), "{what}");
        let mut trace = self.trace.lock().expect("nothing panics while it is held");
        let instant = self.now().as_millis().to_le_bytes();
        for byte in what.bytes().chain(instant) {
            *trace = (*trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        *trace
    }

    /// A guest begins on a machine; it has ended when this is dropped. Two machines that live never run one attempt each of
    /// the same run.
    pub(super) fn enter(self: &Arc<Self>, machine: &Arc<Machine>, run: WorkflowId) -> Running {
        let mut running = self.running.lock().expect("nothing panics while it is held");
        let others = running.iter().filter(|((id, _), on)| *id == run && **on != machine.number);
        if let Some((_, other)) = others.into_iter().next() {
            self.violation(format!("run {run} runs on machine {} and on {other}", machine.number));
        }
        self.trace(&format!("a guest of {run} begins on {}", machine.number));
        let place = (run, running.keys().map(|(_, n)| n + 1).max().unwrap_or(0));
        running.insert(place, machine.number);
        Running { world: Arc::clone(self), place }
    }

    /// Ends a machine: nothing that it asked and wasn't sent arrives, and no answer reaches it.
    pub(super) fn kill(&self, machine: &Machine) {
        if !machine.dead.swap(true, Ordering::Relaxed) {
            self.trace(&format!("machine {} dies", machine.number));
            self.running
                .lock()
                .expect("nothing panics while it is held")
                .retain(|_, on| *on != machine.number);
            machine.died.notify_waiters();
        }
    }

    fn fate(&self, machine: &Machine) -> Fate {
        let mut random = self.random();
        let mut fate = Fate {
            there: random.millis(0, 3),
            back: random.millis(0, 3),
            vanishes: false,
            unanswered: false,
            dies_before: false,
            dies_after: false,
        };
        if !self.is_troubled() {
            return fate;
        }
        if random.per_mille(20) {
            fate.there = random.millis(20, 6_000);
        }
        if random.per_mille(20) {
            fate.back = random.millis(20, 6_000);
        }
        let cut_until = *machine.cut_until.lock().expect("nothing panics while it is held");
        let left = cut_until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // Either it is gone, or it was on its way and comes late.
            fate.vanishes = random.per_mille(500);
            fate.there += left;
        }
        fate.vanishes |= random.per_mille(4);
        fate.unanswered = random.per_mille(8);
        fate.dies_before = random.per_mille(1);
        fate.dies_after = random.per_mille(1);
        fate
    }

    /// Sends a statement from a machine to the database. What was sent is done even if who asked doesn't wait for it.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        patience: Duration,
        what: String,
        statement: impl FnOnce(&mut Tables, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        machine.if_alive().await;
        let fate = self.fate(machine);
        if fate.dies_before {
            self.count(|counts| counts.killed_before_statement += 1);
            self.kill(machine);
        }
        machine.if_alive().await;
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (world, sender) = (Arc::clone(self), Arc::clone(machine));
        tokio::spawn(async move {
            sleep(fate.there).await;
            if fate.vanishes {
                world.count(|counts| counts.lost_statements += 1);
                return;
            }
            let now = world.now();
            let answered = statement(&mut world.tables(), now);
            world.trace(&format!("{what} of {}", sender.number));
            if fate.dies_after {
                world.count(|counts| counts.killed_after_statement += 1);
                world.kill(&sender);
            }
            sleep(fate.back).await;
            match fate.unanswered {
                true => world.count(|counts| counts.lost_answers += 1),
                false => drop(answer.send(answered)),
            }
        });
        let answered = tokio::time::timeout(patience, answered).await;
        machine.if_alive().await;
        match answered {
            Ok(Ok(answered)) => Ok(answered),
            // Broken off: noticed after a while.
            Ok(Err(_)) => Err(Lost),
            Err(_) => Err(Lost),
        }
    }
}

/// A guest that is running.
#[derive(Debug)]
pub(super) struct Running {
    world: Arc<World>,
    place: (WorkflowId, u64),
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.running.lock().expect("nothing panics while it is held").remove(&self.place);
        self.world.trace(&format!("a guest of {} ends", self.place.0));
    }
}

impl Machine {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            dead: AtomicBool::new(false),
            died: Notify::new(),
            cut_until: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Goes on at once on a machine that lives, and never on a dead one.
    pub(super) async fn if_alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Does `what` unless the machine dies meanwhile: then it goes nowhere.
    pub(super) async fn while_alive<T>(&self, what: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.died.notified() => std::future::pending().await,
            done = what => {
                self.if_alive().await;
                done
            }
        }
    }

    /// Cuts it off from the database for a while.
    pub(super) fn cut(&self, lasts: Duration) {
        *self.cut_until.lock().expect("nothing panics while it is held") = Instant::now() + lasts;
    }
}
