//! The line under random histories: batches that are refused, lost, late or fail, on keys that everyone wants. It has to be
//! right all the time, and to go on when the faults have ended.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aster_core::id::TenantId;
use aster_core::keyvalue::{Read, Write};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::random::Random;

const DRIVERS: u64 = 6;
const KEYS: usize = 2;
/// How often each driver increments a key.
const INCREMENTS: u64 = 40;
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(3);
/// A statement that is on its way arrives by then, or never.
const LATEST: Duration = Duration::from_millis(400);
/// More than all increments take where nothing goes wrong.
const ENOUGH: Duration = Duration::from_secs(120);

fn key(n: usize) -> Key {
    Key { tenant: TenantId::default(), component: "c".into(), bucket: "b".into(), key: n.to_string().into() }
}

/// What a transition of these tests adds: whether the database can't store it.
type Poisoned = bool;

#[derive(Debug, Default)]
struct Tables {
    /// Version, value, and how many transitions have written it.
    entries: BTreeMap<Key, (i64, u64, u64)>,
    runs: BTreeMap<WorkflowId, (Fence, u64)>,
}

/// A database over a bad connection.
#[derive(Debug)]
struct Fake {
    tables: Arc<Mutex<Tables>>,
    random: Mutex<Random>,
    troubled: AtomicBool,
}

impl Fake {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    fn chance(&self, per_mille: u64) -> bool {
        self.troubled.load(Ordering::Relaxed) && self.random.lock().unwrap().per_mille(per_mille)
    }

    async fn pause(&self, longest: u64) {
        let pause = self.random.lock().unwrap().millis(0, longest);
        sleep(pause).await;
    }

    /// Another host takes a key or a run.
    fn interfere(&self, transition: &Prepared<Poisoned>) {
        let mut tables = self.tables();
        if self.chance(30)
            && let Some(entry) = transition.keys.first().and_then(|key| tables.entries.get_mut(&key.key))
        {
            entry.0 += 1;
        }
        if self.chance(3)
            && let Some(run) = tables.runs.get_mut(&transition.workflow_id)
        {
            run.0.0 += 5;
        }
    }
}

/// A statement, apart from the line that sent it.
#[derive(Clone, Debug)]
struct Statement {
    runs: Vec<(WorkflowId, Fence, u64, u64)>,
    chains: Vec<Chain>,
}

impl Tables {
    fn apply(&mut self, statement: &Statement) -> Refusals {
        let mut refusals = Refusals::default();
        for (i, (id, held, last, _)) in statement.runs.iter().enumerate() {
            let (current, sequence) = self.runs[id];
            if (current, sequence) != (*held, *last) {
                refusals.runs.push((i, Error::NotOwner { held: *held, current }));
            }
        }
        for chain in &statement.chains {
            let version = self.entries.get(&chain.key).map_or(0, |entry| entry.0);
            if chain.read.is_some_and(|read| read.0 != version) {
                refusals.keys.insert(chain.key.clone());
            }
        }
        if refusals.is_none() {
            for (id, _, _, new) in &statement.runs {
                self.runs.get_mut(id).unwrap().1 = *new;
            }
            for chain in statement.chains.iter().filter(|chain| chain.writes > 0) {
                let entry = self.entries.entry(chain.key.clone()).or_default();
                entry.0 += chain.writes;
                entry.1 = number(chain.value.as_deref());
                entry.2 += u64::try_from(chain.writes).unwrap();
            }
        }
        refusals
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

impl Wire for Fake {
    type Payload = Poisoned;

    async fn send(
        &self,
        _: HostId,
        batch: &[&Prepared<Poisoned>],
        chains: &[Chain],
        _: bool,
    ) -> Result<Refusals, Unanswered> {
        if self.chance(50) {
            return Err(Unanswered::NotSent("no connection".into()));
        }
        self.pause(3).await;
        batch.iter().for_each(|transition| self.interfere(transition));
        if batch.iter().any(|transition| transition.payload) {
            return Err(Unanswered::Failed(Fault::Data("poison".into()), "poison".into()));
        }
        if self.chance(50) {
            return Err(Unanswered::Failed(Fault::Busy, "out of disk".into()));
        }
        if self.chance(50) {
            return Err(Unanswered::Failed(Fault::Locked, "lock timeout".into()));
        }
        let run = |t: &&Prepared<Poisoned>| (t.workflow_id, t.fence, t.last_sequence, t.new_sequence);
        let statement = Statement { runs: batch.iter().map(run).collect(), chains: chains.to_vec() };
        let lost = || Err(Unanswered::Failed(Fault::Lost, "connection closed".into()));
        if self.chance(80) {
            let late = self.random.lock().unwrap().millis(0, 400);
            let tables = Arc::clone(&self.tables);
            tokio::spawn(async move {
                sleep(late).await;
                tables.lock().unwrap().apply(&statement);
            });
            return lost();
        }
        if self.chance(80) {
            return lost();
        }
        let refusals = self.tables().apply(&statement);
        self.pause(3).await;
        if self.chance(80) {
            return lost();
        }
        Ok(refusals)
    }

    async fn settle(&self, host: HostId, id: WorkflowId, held: Fence) -> Result<Position, Error> {
        self.pause(20).await;
        if self.chance(400) {
            return Err(Error::Corrupt { what: "the database is away".into() });
        }
        let mut tables = self.tables();
        let (fence, last_sequence) = tables.runs.get_mut(&id).unwrap();
        if *fence == held {
            fence.0 += 1;
        }
        Ok(Position { fence: *fence, owner: Some(host), last_sequence: *last_sequence })
    }
}

struct Trial {
    wire: Arc<Fake>,
    line: CommitLine<Fake>,
    /// Refusals since the newest commit, while nothing goes wrong.
    in_vain: AtomicU32,
    most_in_vain: AtomicU32,
}

impl Trial {
    /// What went wrong.
    async fn run(seed: u64, refusals_leave_followers: bool) -> Result<(), String> {
        let mut random = Random::new(seed);
        let wire = Arc::new(Fake {
            tables: Arc::default(),
            random: Mutex::new(random.split()),
            troubled: AtomicBool::new(true),
        });
        let options = Options { refusals_leave_followers, ..Options::new(Duration::from_millis(500)) };
        let line = CommitLine::start(Arc::clone(&wire), &options, |_| {});
        let trial =
            Arc::new(Self { wire, line, in_vain: AtomicU32::new(0), most_in_vain: AtomicU32::new(0) });
        let drivers: Vec<_> =
            (0..DRIVERS).map(|n| tokio::spawn(Arc::clone(&trial).drive(n, random.split()))).collect();
        sleep(TROUBLE).await;
        trial.wire.troubled.store(false, Ordering::Relaxed);
        // What was lost before still has to be settled.
        sleep(LATEST + 8 * LONGEST_PAUSE).await;
        trial.in_vain.store(0, Ordering::Relaxed);
        trial.most_in_vain.store(0, Ordering::Relaxed);
        let all = futures_util::future::join_all(drivers);
        let ended = timeout(ENOUGH, all).await.map_err(|_| "not all is committed".to_owned())?;
        ended.into_iter().for_each(|driver| driver.expect("no driver panics"));

        let most = trial.most_in_vain.load(Ordering::Relaxed);
        if u64::from(most) > 4 * DRIVERS {
            return Err(format!("{most} refusals without a commit"));
        }
        for (key, (_, value, writes)) in &trial.wire.tables().entries {
            if value != writes {
                return Err(format!("{key:?} was incremented {writes} times and holds {value}"));
            }
        }
        let state = trial.line.queue.state();
        state.entries.check();
        if state.waiting.is_empty() && state.entries.is_at_rest() {
            return Ok(());
        }
        Err("something is left in line".into())
    }

    async fn drive(self: Arc<Self>, n: u64, mut random: Random) {
        let id = WorkflowId(Uuid::from_u128(u128::from(n) + 1));
        self.wire.tables().runs.insert(id, (Fence(1), 0));
        let (mut fence, mut sequence) = (Fence(1), 0);
        for _ in 0..INCREMENTS {
            let poisoned = random.per_mille(20);
            'attempts: loop {
                let effects = self.increment(&mut random).await;
                loop {
                    let transition = Prepared {
                        host: HostId(Uuid::nil()),
                        workflow_id: id,
                        fence,
                        last_sequence: sequence,
                        new_sequence: sequence + 1,
                        stays: true,
                        keys: key_uses(effects.clone()),
                        size_bytes: 100,
                        payload: poisoned,
                    };
                    let answer = self.line.commit(transition, || ()).await;
                    self.line.queue.state().entries.check();
                    match answer {
                        Ok(committed) => {
                            fence = committed.fence;
                            sequence += 1;
                            self.in_vain.store(0, Ordering::Relaxed);
                            break 'attempts;
                        }
                        Err(Error::NotCommitted { fence: raised }) => fence = raised,
                        Err(Error::Conflict { .. }) => {
                            let in_vain = self.in_vain.fetch_add(1, Ordering::Relaxed) + 1;
                            self.most_in_vain.fetch_max(in_vain, Ordering::Relaxed);
                            break;
                        }
                        Err(Error::Refused { .. }) if poisoned => break 'attempts,
                        Err(Error::NotOwner { .. }) => return,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            if random.per_mille(100) {
                sleep(random.millis(0, 100)).await;
            }
        }
    }

    /// A step that reads one or both keys and adds one to them.
    async fn increment(&self, random: &mut Random) -> Effects {
        let mut effects = Effects::default();
        let first = random.index(KEYS);
        let keys = if random.per_mille(300) { 0..KEYS } else { first..first + 1 };
        for n in keys {
            let key = key(n);
            let load = async {
                self.wire.pause(3).await;
                let tables = self.wire.tables();
                let (version, value, _) = tables.entries.get(&key).copied().unwrap_or_default();
                let value = (version > 0).then(|| value.to_le_bytes().to_vec());
                Ok::<_, Error>(Entry { version: Version(version), value })
            };
            let entry = self.line.read(&key, load).await.expect("it can always be read");
            let value = number(entry.value.as_deref()) + 1;
            effects.reads.push(Read { key: key.clone(), version: entry.version });
            effects.writes.push(Write { key, value: Some(value.to_le_bytes().to_vec()) });
        }
        sleep(random.millis(0, 5)).await;
        effects
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_was_lost_or_refused_the_line_goes_on_when_the_faults_end() {
    for seed in 0..300 {
        if let Err(failure) = Trial::run(seed, false).await {
            panic!("seed {seed}: {failure}");
        }
    }
}

/// A chain of doomed commits renews itself: each is read before it is refused.
#[tokio::test(start_paused = true)]
async fn a_line_that_leaves_the_followers_of_a_refusal_is_found_out() {
    for seed in 0..20 {
        if Trial::run(seed, true).await.is_err() {
            return;
        }
    }
    panic!("no seed shows it");
}
