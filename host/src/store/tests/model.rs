//! The simulation's model of the database does what the database does: the same random statements to both, and then the same
//! answers and the same rows. A simulation on a model that is kinder than Postgres would show nothing.

use aster_core::event::Author;
use aster_core::keyvalue::{Read, Version, Write};
use aster_core::order::{Order, What};
use aster_runner::random::Random;
use aster_simulation::Tables;

use super::super::commit::settle;
use super::*;

const KEYS: [&str; 3] = ["a", "b", "c"];

/// What both have, and what they are asked.
struct Pair {
    bed: Bed,
    model: Tables,
    hosts: Vec<HostId>,
    runs: Vec<WorkflowId>,
    accepted: Vec<NewRun>,
    random: Random,
    /// Grows with each statement, so that no two instants are the same.
    now: Timestamp,
}

/// An answer, as far as the two can be compared.
fn told<T: std::fmt::Debug>(answer: Result<T, impl Into<Error>>) -> String {
    match answer.map_err(Into::into) {
        Ok(answer) => format!("{answer:?}"),
        Err(Error::Conflict { mut keys }) => {
            keys.sort();
            format!("conflict {keys:?}")
        }
        Err(error) => format!("{error}"),
    }
}

impl Pair {
    async fn new(pool: PgPool, seed: u64) -> Self {
        let bed = Bed::new(pool).await;
        let mut pair = Self {
            model: Tables::default(),
            hosts: Vec::new(),
            runs: Vec::new(),
            accepted: Vec::new(),
            random: Random::new(seed),
            now: NOW,
            bed,
        };
        let first = pair.bed.host;
        pair.enter(first, MINUTE).await;
        for _ in 0..3 {
            pair.register().await;
        }
        pair
    }

    /// Some have a lease that is over by the instants of this test.
    async fn register(&mut self) {
        let lease = if self.random.per_mille(500) { MINUTE } else { MINUTE * 60 * 24 * 3_650 };
        let host = self.bed.store.register_host("another", lease).await.unwrap();
        self.enter(host, lease).await;
    }

    async fn enter(&mut self, host: HostId, lease: Duration) {
        let clock = self.bed.store.clock().await.unwrap();
        self.model.enter_host(host, clock.plus_millis(lease.as_millis() as u64));
        self.hosts.push(host);
    }

    fn host(&mut self) -> HostId {
        let length = self.hosts.len();
        self.hosts[self.random.index(length)]
    }

    /// A run, and mostly who owns it under which fence; sometimes somebody else, or another fence.
    fn owned(&mut self) -> Option<(WorkflowId, HostId, Fence)> {
        if self.runs.is_empty() {
            return None;
        }
        let id = self.runs[self.random.index(self.runs.len())];
        let (owner, fence) = (self.model.runs[&id].owner, self.model.runs[&id].fence);
        let host = match owner {
            Some(owner) if self.random.per_mille(850) => owner,
            _ => self.host(),
        };
        let fence = match self.random.index(10) {
            0 => Fence(fence.0 + 1),
            1 => Fence(fence.0 - 1),
            _ => fence,
        };
        Some((id, host, fence))
    }

    fn driver(&mut self) -> (Status, Driver) {
        match self.random.index(8) {
            0..4 => (Status::Running, Driver::Owner),
            4 => (Status::Compensating, Driver::Owner),
            5 => (Status::Running, Driver::ClaimableAt(self.now.plus_millis(self.random.between(0, 2_000)))),
            6 => (Status::CompensationFailed, Driver::Nobody),
            _ => (
                [Status::Completed, Status::Failed, Status::Compensated][self.random.index(3)],
                Driver::Nobody,
            ),
        }
    }

    async fn one_more(&mut self) {
        self.now = self.now.plus_millis(self.random.between(1, 300));
        match self.random.index(20) {
            0..4 => self.accept().await,
            4..10 => self.commit().await,
            10..12 => self.claim().await,
            12 => self.hand_back().await,
            13 => self.adopt().await,
            14 => self.settle().await,
            15 => self.retire().await,
            16..19 => self.order().await,
            _ => self.forget().await,
        }
    }

    async fn accept(&mut self) {
        let again = self.random.per_mille(100) && !self.accepted.is_empty();
        let run = if again {
            self.accepted[self.random.index(self.accepted.len())].clone()
        } else {
            let start = self.random.per_mille(700).then(|| {
                let (status, driver) = self.driver();
                let host = self.host();
                Start { host, events: vec![self.bed.started_event()], run: record(status, driver) }
            });
            NewRun {
                key: self.random.per_mille(600).then(|| format!("key {}", self.random.index(4))),
                input_digest: [u8::try_from(self.random.index(2)).unwrap(); 32],
                accepted_at: self.now,
                start,
                ..self.bed.new_run()
            }
        };
        let real = self.bed.store.accept(run.clone()).await;
        let model = self.model.accept(&run);
        assert_eq!(told(real), told(Ok::<_, Error>(model)), "{run:?}");
        if self.model.runs.contains_key(&run.workflow_id) && !again {
            self.runs.push(run.workflow_id);
            self.accepted.push(run);
        }
    }

    async fn commit(&mut self) {
        let Some((workflow_id, host, fence)) = self.owned() else { return };
        let last_sequence =
            self.model.runs[&workflow_id].last_sequence + u64::from(self.random.per_mille(80));
        let (status, driver) = self.driver();
        let mut effects = Effects::default();
        for name in KEYS {
            let key = key(name);
            let version = self.model.entries.get(&key).map_or(Version::ABSENT, |entry| entry.version);
            if self.random.per_mille(300) {
                let version = Version(version.0 + i64::from(self.random.per_mille(100)));
                effects.reads.push(Read { key: key.clone(), version });
            }
            if self.random.per_mille(300) {
                let value = self.random.per_mille(800).then(|| self.random.bits().to_le_bytes().to_vec());
                effects.writes.push(Write { key, value });
            }
        }
        let events = vec![self.bed.started_event(); self.random.index(3)];
        let run = record(status, driver);
        let row = &self.model.runs[&workflow_id];
        let was = row.status;
        let is_quiet = row.record.as_ref() == Some(&run) && !row.host_lost;
        let at = self.now;
        let transition =
            Transition { workflow_id, fence, last_sequence, at, was, is_quiet, events, effects, run };
        let knows_the_end = last_sequence == row.last_sequence;
        let real = self.bed.store.commit(host, transition.clone()).await;
        let model = self.model.commit(host, &transition);
        match knows_the_end {
            true => assert_eq!(told(real), told(model), "{transition:?}"),
            // Of two reasons either may be told.
            false => assert!(real.is_err() && model.is_err(), "{real:?}, {model:?}: {transition:?}"),
        }
    }

    async fn claim(&mut self) {
        let host = self.host();
        let real = self.bed.store.claim(host, 1_000, self.now).await.unwrap();
        let model = self.model.claim(host, 1_000, self.now);
        let sorted = |claims: Claims| {
            let mut runs = claims.runs;
            runs.sort_by_key(|run| run.workflow_id);
            (claims.seen, runs)
        };
        assert_eq!(sorted(real), sorted(model));
    }

    async fn hand_back(&mut self) {
        let Some((id, host, fence)) = self.owned() else { return };
        let real = self.bed.store.hand_back(host, id, fence, self.now).await;
        assert_eq!(told(real), told(self.model.hand_back(host, id, fence, self.now)));
    }

    async fn adopt(&mut self) {
        let Some((id, host, fence)) = self.owned() else { return };
        let real = self.bed.store.adopt(host, id, fence).await;
        assert_eq!(told(real), told(self.model.adopt(host, id, fence)));
    }

    async fn settle(&mut self) {
        let Some((id, host, fence)) = self.owned() else { return };
        let mut taken = self.bed.store.connection().await.unwrap();
        let real = taken.ask(|connection| settle(connection, host, id, fence)).await;
        assert_eq!(told(real), told(self.model.settle(host, id, fence)));
    }

    async fn retire(&mut self) {
        if self.random.per_mille(500) {
            let host = self.host();
            let real = self.bed.store.retire_host(host, self.now).await.unwrap();
            assert_eq!(real, self.model.retire_host(host, self.now));
        } else {
            let margin = Duration::from_secs(1);
            let real = self.bed.store.fence_off_dead_hosts(self.now, margin, 1_000).await.unwrap();
            let silent_before = Timestamp::from_millis(self.now.as_millis() - 1_000);
            assert_eq!(real, self.model.fence_off(silent_before, self.now, 1_000));
        }
        self.register().await;
    }

    async fn order(&mut self) {
        let Some((id, host, _)) = self.owned() else { return };
        let step = "step".into();
        let what = match self.random.index(4) {
            0 => What::Cancel,
            1 => What::Retry { step, release: None },
            2 => What::Skip { step },
            _ => What::Settle { step },
        };
        let order_id = Some(super::super::time_ordered_id(self.now));
        let order = Order { what, author: Author { order_id, ..Author::default() } };
        let real = self.bed.store.order(&tenant(), id, &order, self.now).await;
        let model = self.model.order(id, order, self.now);
        assert_eq!(told(real.map(Some)), told(Ok::<_, Error>(model)));

        let mut real = self.bed.store.ordered_runs(host, 1_000).await.unwrap();
        real.sort();
        assert_eq!(real, self.model.ordered_runs(host, 1_000));
    }

    async fn forget(&mut self) {
        let Some((id, ..)) = self.owned() else { return };
        let real = self.bed.store.orders(id).await.unwrap();
        assert_eq!(real, self.model.orders.get(&id).cloned().unwrap_or_default());
        if let Some(order_id) = real.first().and_then(|order| order.author.order_id) {
            self.bed.store.forget_order(id, order_id).await.unwrap();
            self.model.forget_order(id, order_id);
        }
        let real = self.bed.store.settle_stray_orders(self.now).await.unwrap();
        assert_eq!(real, self.model.settle_stray_orders(self.now));
    }

    /// All rows of both.
    async fn compare(&self) {
        for (id, row) in &self.model.runs {
            let run = self.bed.store.load_run(*id).await.unwrap().unwrap();
            let real = (run.status, run.owner, run.fence, run.last_sequence, run.wake_at);
            assert_eq!(real, (row.status, row.owner, row.fence, row.last_sequence, row.wake_at), "{id}");
            assert_eq!(self.bed.log_length(*id).await, row.events.len() as u64);
        }
        for (status, n) in self.bed.store.count_by_status(None).await.unwrap() {
            let model = self.model.runs.values().filter(|row| row.status == status).count() as u64;
            assert_eq!(n, model, "{status}");
        }
        for name in KEYS {
            let real = self.bed.store.read_entry(&key(name)).await.unwrap();
            let absent = aster_core::keyvalue::Entry { version: Version::ABSENT, value: None };
            assert_eq!(real, self.model.entries.get(&key(name)).cloned().unwrap_or(absent));
        }
        for (id, orders) in &self.model.orders {
            assert_eq!(self.bed.store.orders(*id).await.unwrap(), *orders);
        }
    }
}

async fn check(pool: PgPool, seed: u64) {
    let mut pair = Pair::new(pool, seed).await;
    for n in 1..=1_000 {
        pair.one_more().await;
        if n % 100 == 0 {
            pair.compare().await;
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn the_model_of_simulations_answers_as_postgres_does(pool: PgPool) {
    check(pool, 1).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn the_model_of_simulations_answers_as_postgres_does_under_another_seed(pool: PgPool) {
    check(pool, 2).await;
}
