//! What happens in a simulation: who submits, who orders what, what breaks, and that all is well in the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aster_core::event::Author;
use aster_core::id::{ReleaseId, TenantId, WorkflowId};
use aster_core::journal::Acceptance;
use aster_core::order::{Order, What};
use aster_core::state::{Progress, RunState, Status, evolve};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::guests::Bank;
use super::journal::ModelStore;
use super::tables::Tables;
use super::world::{Machine, World};
use super::{Bug, Outcome, oracle, plans};
use aster_runner::ports::{Guests, Journal};
use aster_runner::random::Random;
use aster_runner::{Candidate, Limits, Options, Runner};

const LEASE: Duration = Duration::from_secs(3);

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);

const LIMITS: Limits = Limits {
    workflow_timeout: Duration::from_secs(3_600),
    step_timeout: Duration::from_secs(30),
    step_fuel: 1_000_000_000,
    step_memory_bytes: 64 << 20,
    value_bytes: 1 << 20,
};

/// What all waits, retries and timeouts of a run can come to at the most, and more.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// The hosts that live, and where the next one starts.
struct Cluster {
    world: Arc<World>,
    hosts: Mutex<Vec<(Arc<Machine>, Runner)>>,
    started: Mutex<usize>,
}

pub(super) async fn play(seed: u64, bug: Option<Bug>) -> Outcome {
    let mut random = Random::new(seed);
    let definitions = random.index(4) + 1;
    // In some simulations all want one key, and no guest takes its time.
    let is_hot = random.per_mille(250);
    let accounts = if is_hot { 1 } else { plans::ACCOUNTS };
    let plan =
        |n: usize, random: &mut Random| plans::random(random, format!("test.definition_{n}"), accounts);
    let plans = (0..definitions).map(|n| plan(n, &mut random)).collect();
    let tables = Tables { bug, ..Tables::default() };
    let world = Arc::new(World::new(random.split(), tables, plans, is_hot));
    let cluster =
        Arc::new(Cluster { world: Arc::clone(&world), hosts: Mutex::default(), started: Mutex::default() });
    let hosts = random.index(3) + 1;
    for _ in 0..hosts {
        cluster.start().await;
    }
    let submissions = if is_hot { random.between(20, 40) } else { random.between(4, 20) };
    let clients: Vec<_> = (0..submissions)
        .map(|n| tokio::spawn(submit(Arc::clone(&cluster), random.split(), n, definitions)))
        .collect();
    let operator = tokio::spawn(operate(Arc::clone(&cluster), random.split()));
    let trouble = break_things(&cluster, random.split(), hosts);
    // Trouble ends by itself.
    trouble.await;
    world.heal();
    let watching = tokio::spawn(watch_for_standstills(Arc::clone(&cluster)));
    // A task that panicked is counted as such.
    let mut people =
        std::pin::pin!(futures_util::future::join(futures_util::future::join_all(clients), operator));
    // What was sent in the time of trouble can still kill a machine.
    while tokio::time::timeout(Duration::from_secs(1), &mut people).await.is_err() {
        cluster.keep(hosts).await;
    }
    all_over(&cluster, hosts).await;
    settle_what_is_left(&cluster, random.split(), hosts).await;
    watching.abort();

    let mut violations = world.violations();
    {
        let tables = world.tables();
        violations
            .extend(oracle::examine(&tables, |id| world.releases[&ReleaseId(id)].plan.as_ref().clone()));
        world.count(|counts| {
            for row in tables.runs.values() {
                counts.runs += 1;
                counts.events += row.last_sequence;
                match row.status {
                    Status::Completed => counts.completed += 1,
                    Status::Failed => counts.failed += 1,
                    Status::Compensated => counts.compensated += 1,
                    Status::CompensationFailed => counts.compensation_failed += 1,
                    Status::Ready | Status::Running | Status::Compensating => {}
                }
            }
            counts.seconds = u64::try_from(world.now().as_millis() / 1_000).unwrap_or(0) - 1_700_000_000;
        });
    }
    let counts = *world.counts.lock().expect("nothing panics while it is held");
    Outcome { seed, violations, counts, trace: world.trace("the end") }
}

impl Cluster {
    async fn start(&self) {
        let number = {
            let mut started = self.started.lock().expect(UNPOISONED);
            *started += 1;
            *started
        };
        loop {
            let machine = Arc::new(Machine::new(number));
            let store = ModelStore::new(Arc::clone(&self.world), Arc::clone(&machine));
            let bank = Bank { world: Arc::clone(&self.world), machine: Arc::clone(&machine) };
            let max_active_runs = self.world.random().index(6) + 2;
            let max_ready_runs = self.world.random().index(6) + 2;
            let options = Options {
                name: format!("host {number}"),
                lease: LEASE,
                takeover_margin: LEASE / 5,
                max_active_runs,
                max_ready_runs,
                waiter_ttl: Duration::from_secs(60),
                waiter_sweep: Duration::from_secs(60),
                limits: LIMITS,
            };
            let (journal, guests): (Arc<dyn Journal>, Arc<dyn Guests>) = (Arc::new(store), Arc::new(bank));
            let starting = Runner::start_here(options, journal, guests);
            match tokio::time::timeout(Duration::from_secs(10), starting).await {
                Ok(Ok(runner)) => {
                    self.hosts.lock().expect(UNPOISONED).push((machine, runner));
                    return;
                }
                // The database didn't answer, or the machine died: somebody starts it again.
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// A host that lives, if there is one.
    fn any(&self, random: &mut Random) -> Option<(Arc<Machine>, Runner)> {
        let mut hosts = self.hosts.lock().expect(UNPOISONED);
        hosts.retain(|(machine, _)| !machine.is_dead());
        let length = hosts.len();
        (length > 0).then(|| hosts[random.index(length)].clone())
    }

    /// Starts as many as are missing.
    async fn keep(&self, wanted: usize) {
        let living = {
            let mut hosts = self.hosts.lock().expect(UNPOISONED);
            hosts.retain(|(machine, _)| !machine.is_dead());
            hosts.len()
        };
        for _ in living..wanted {
            self.start().await;
        }
    }
}

/// Breaks one thing after the other.
async fn break_things(cluster: &Arc<Cluster>, mut random: Random, hosts: usize) {
    let world = &cluster.world;
    let began = tokio::time::Instant::now();
    while began.elapsed() < TROUBLE {
        sleep(random.millis(100, 6_000)).await;
        let Some((machine, runner)) = cluster.any(&mut random) else {
            cluster.keep(1).await;
            continue;
        };
        match random.index(10) {
            0..4 => {
                world.count(|counts| counts.killed += 1);
                world.kill(&machine);
            }
            4..7 => {
                world.count(|counts| counts.cuts += 1);
                machine.cut(random.millis(50, 9_000));
            }
            7 => {
                world.count(|counts| counts.stopped += 1);
                runner.shut_down(random.millis(0, 2_000)).await;
                world.kill(&machine);
            }
            _ => {}
        }
        if random.per_mille(700) {
            sleep(random.millis(0, 3_000)).await;
            cluster.keep(hosts).await;
        }
    }
}

/// One client with one key, who sends again until there is an answer, and sometimes twice at once.
async fn submit(cluster: Arc<Cluster>, mut random: Random, n: u64, definitions: usize) {
    // Runs that want one key come together.
    let (from, to) = if cluster.world.is_hot { (10_000, 16_000) } else { (0, 30_000) };
    sleep(random.millis(from, to)).await;
    let release = ReleaseId(1 + i64::try_from(random.index(definitions)).unwrap_or(0));
    let twice = random.per_mille(300);
    let key = random.per_mille(700).then(|| format!("key {n}"));
    let first = send(&cluster, random.split(), n, release, key.clone());
    if !twice || key.is_none() {
        check_accepted(&cluster, first.await);
        return;
    }
    cluster.world.count(|counts| counts.duplicates += 1);
    sleep(random.millis(0, 20)).await;
    let second = send(&cluster, random.split(), n, release, key);
    let (first, second) = tokio::join!(first, second);
    check_accepted(&cluster, first);
    if first != second {
        cluster.world.violation(format!("key {n} is run {first:?} and run {second:?}"));
    }
}

/// What a client was told of is there.
fn check_accepted(cluster: &Cluster, told: Option<WorkflowId>) {
    if let Some(id) = told
        && !cluster.world.tables().runs.contains_key(&id)
    {
        cluster.world.violation(format!("run {id} was accepted, and is not there"));
    }
}

async fn send(
    cluster: &Cluster,
    mut random: Random,
    n: u64,
    release: ReleaseId,
    key: Option<String>,
) -> Option<WorkflowId> {
    let world = &cluster.world;
    let release = &world.releases[&release];
    let mut tries = 0;
    loop {
        let Some((_, runner)) = cluster.any(&mut random) else {
            sleep(random.millis(100, 1_000)).await;
            continue;
        };
        let candidate = Candidate {
            tenant: TenantId::default(),
            definition: release.plan.name.clone(),
            definition_digest: plans::DIGEST,
            release: release.clone(),
            generation: 1,
            input: Arc::new(Value::from(n)),
            input_digest: [u8::try_from(n).unwrap_or(0); 32],
            key: key.clone(),
            watch: false,
        };
        tries += 1;
        match tokio::time::timeout(Duration::from_secs(15), runner.admit(candidate)).await {
            Ok(Ok(admitted)) => {
                return Some(match admitted.acceptance {
                    Acceptance::Existing { workflow_id, .. } => workflow_id,
                    _ => admitted.workflow_id,
                });
            }
            // Without a key nobody knows whether it was taken.
            _ if key.is_none() || tries > 100 => return None,
            _ => sleep(random.millis(10, 500)).await,
        }
    }
}

/// Somebody who now and then cancels a run, or decides about a compensation, in whatever state it is.
async fn operate(cluster: Arc<Cluster>, mut random: Random) {
    let world = Arc::clone(&cluster.world);
    while world.is_troubled() {
        sleep(random.millis(200, 4_000)).await;
        let runs: Vec<WorkflowId> = world.tables().runs.keys().copied().collect();
        if runs.is_empty() {
            continue;
        }
        let id = runs[random.index(runs.len())];
        let steps = world.releases.values().flat_map(|release| &release.plan.steps).count().max(1);
        let step = format!("step_{}", random.index(steps)).into();
        let what = match random.index(6) {
            0..3 => What::Cancel,
            3 => What::Retry { step, release: None },
            4 => What::Skip { step },
            _ => What::Settle { step },
        };
        order(&cluster, &mut random, id, what);
    }
}

fn order(cluster: &Cluster, random: &mut Random, id: WorkflowId, what: What) {
    let world = &cluster.world;
    let is_cancel = what == What::Cancel;
    let order_id = Some(Uuid::from_u128(u128::from(random.bits())));
    let order = Order { what, author: Author { order_id, ..Author::default() } };
    let now = world.now();
    let ordered = world.tables().order(id, order, now);
    if ordered.is_some_and(|ordered| ordered.taken) {
        world.count(|counts| match is_cancel {
            true => counts.cancels += 1,
            false => counts.repairs += 1,
        });
        if random.per_mille(700)
            && let Some((_, runner)) = cluster.any(random)
        {
            runner.tell_ordered(id);
        }
    }
}

/// No host stands still while nothing goes wrong, and none believes that it does.
async fn watch_for_standstills(cluster: Arc<Cluster>) {
    let stalls = || -> u64 {
        let hosts = cluster.hosts.lock().expect(UNPOISONED);
        hosts.iter().map(|(_, runner)| runner.measures().stalls()).sum()
    };
    let mut before = stalls();
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = stalls();
        if now > before && cluster.world.is_well() {
            cluster.world.violation("a host stood still".into());
            return;
        }
        before = now;
    }
}

/// Waits until no run is under way, and nobody wants anything of one.
async fn all_over(cluster: &Cluster, hosts: usize) {
    let began = tokio::time::Instant::now();
    let mut late = false;
    loop {
        // Hosts that are full take their time, but none waits for a deadline or a retry of the run.
        if began.elapsed() > ORDERS_TAKE && !late {
            let tables = cluster.world.tables();
            let parked = tables
                .orders
                .keys()
                .find(|id| tables.runs[id].wake_at.is_some_and(|at| at > cluster.world.now()));
            if let Some(id) = parked {
                cluster.world.violation(format!("an order for run {id} waits for the run to wake up"));
                late = true;
            }
        }
        let over = {
            let tables = cluster.world.tables();
            tables.orders.is_empty()
                && tables.runs.values().all(|row| row.status.is_over() && row.owner.is_none())
        };
        if over {
            return;
        }
        if began.elapsed() > PATIENCE {
            let orders = cluster.world.tables().orders.len();
            cluster.world.violation(format!("not all is over after {PATIENCE:?}; {orders} runs have orders"));
            return;
        }
        cluster.keep(hosts).await;
        sleep(Duration::from_millis(500)).await;
    }
}

/// What could not be undone is decided, most of it, and then nothing of that is left.
async fn settle_what_is_left(cluster: &Cluster, mut random: Random, hosts: usize) {
    let failed: Vec<(WorkflowId, RunState)> = {
        let tables = cluster.world.tables();
        let failed = tables.runs.iter().filter(|(_, row)| row.status == Status::CompensationFailed);
        failed
            .map(|(id, row)| {
                let mut state = RunState::new(row.accepted.clone());
                row.events.iter().for_each(|(_, event)| evolve(&mut state, event));
                (*id, state)
            })
            .collect()
    };
    let mut decided = Vec::new();
    for (id, state) in failed {
        if random.per_mille(200) {
            continue;
        }
        for undo in state.undoing.iter().filter(|undo| matches!(undo.progress, Progress::Failed(_))) {
            let step = undo.step.clone();
            let what = match random.index(2) {
                0 => What::Skip { step },
                _ => What::Settle { step },
            };
            order(cluster, &mut random, id, what);
        }
        decided.push(id);
    }
    all_over(cluster, hosts).await;
    let tables = cluster.world.tables();
    for id in decided {
        let status = tables.runs[&id].status;
        if status != Status::Compensated {
            cluster.world.violation(format!("run {id} is {status} although all was decided"));
        }
    }
}

/// For a run with an order to be found, where nothing goes wrong.
const ORDERS_TAKE: Duration = Duration::from_secs(2);

const UNPOISONED: &str = "nothing panics while it is held";
