//! Guests in a simulation: a bank that keeps what each step took, and every way in which a call can go wrong.

use std::sync::Arc;
use std::time::Duration;

use aster_core::event::{Failure, FailureCode};
use aster_core::id::ReleaseId;
use aster_core::keyvalue::Key;
use aster_runner::Error;
use aster_runner::call::{CallReport, Context, Direction, Output};
use aster_runner::session::{self, Session};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::world::{Machine, World};
use aster_runner::ports::{Asked, Called, Guests, Release};

/// What is on every account at the beginning.
pub(super) const BALANCE: u64 = 1_000;

const COMPONENT: &str = "bank";

#[derive(Debug)]
pub(super) struct Bank {
    pub(super) world: Arc<World>,
    pub(super) machine: Arc<Machine>,
}

/// How a call goes, beside what it does.
enum Way {
    Well,
    /// In the midst of it.
    Trap,
    Refusal,
    Transient,
    /// Until it is interrupted.
    Hangs,
    /// It takes its host with it.
    Kills,
}

#[async_trait]
impl Guests for Bank {
    async fn release(&self, id: ReleaseId) -> Result<Release, Error> {
        let missing = || Error::NotFound { what: format!("release {id}") };
        Ok(self.world.releases.get(&id).ok_or_else(missing)?.clone())
    }

    async fn call(&self, _: &Release, asked: Asked<'_>) -> Result<Option<Called>, Error> {
        self.machine.if_alive().await;
        let began = Instant::now();
        let _running = self.world.enter(&self.machine, asked.context.workflow_id);
        let deadline = Instant::from_std(asked.limits.deadline);
        let function = asked.call.function.clone();
        let worked = self.machine.while_alive(tokio::time::timeout_at(deadline, self.work(&asked))).await;
        let outcome = match worked {
            Ok(outcome) => outcome?,
            Err(_) => Err(Failure::new(FailureCode::Timeout, "interrupted")),
        };
        Ok(Some(Called {
            component: COMPONENT.into(),
            function,
            digest: super::plans::DIGEST,
            report: CallReport {
                outcome,
                fuel_used: 1,
                duration: began.elapsed(),
                output: Output::default(),
            },
        }))
    }
}

impl Bank {
    async fn work(&self, asked: &Asked<'_>) -> Result<Result<Value, Failure>, Error> {
        let way = self.way(asked.context.direction);
        sleep(self.duration()).await;
        let done = self.carry_out(asked).await?;
        sleep(self.duration()).await;
        Ok(match way {
            Way::Well => done,
            Way::Trap => Err(Failure::new(FailureCode::Trap, "panicked")),
            Way::Refusal => Err(Failure::new(FailureCode::Error, "refused")),
            Way::Transient => Err(Failure::new(FailureCode::TransientError, "not now")),
            Way::Hangs => std::future::pending().await,
            Way::Kills => {
                self.world.count(|counts| counts.killed_by_guest += 1);
                self.world.kill(&self.machine);
                std::future::pending().await
            }
        })
    }

    fn way(&self, direction: Direction) -> Way {
        let mut random = self.world.random();
        let troubled = self.world.is_troubled();
        let way = random.between(0, 1_000);
        match (direction, way) {
            (_, 0..3) if troubled => Way::Kills,
            (_, 3..40) => Way::Trap,
            (_, 40..60) => Way::Transient,
            (_, 60..75) => Way::Hangs,
            (Direction::Forward, 75..130) | (Direction::Compensation(_), 75..95) => Way::Refusal,
            _ => Way::Well,
        }
    }

    fn duration(&self) -> Duration {
        let mut random = self.world.random();
        match !self.world.is_hot && random.per_mille(50) {
            true => random.millis(50, 3_000),
            false => random.millis(0, 10),
        }
    }

    async fn carry_out(&self, asked: &Asked<'_>) -> Result<Result<Value, Failure>, Error> {
        let context = &asked.context;
        let [account, amount] = asked.args.as_slice() else {
            return Ok(Err(Failure::new(FailureCode::Type, "takes an account and an amount")));
        };
        let (account, amount) = (format!("account {account}"), amount.as_u64().unwrap_or(0));
        let entry = place(context);
        let bank = Books { session: asked.session };
        let mut record = bank.read(&entry).await?;
        match asked.call.function.as_str() {
            "take" => {
                let balance = bank.balance(&account).await?;
                if balance < amount {
                    return Ok(Err(Failure::new(FailureCode::Error, "too little")));
                }
                bank.write(&account, &json!(balance - amount));
                record = json!({"state": "taken", "amount": amount, "times": times(&record) + 1});
                bank.write(&entry, &record);
            }
            "note" => {
                record = json!({"state": "noted", "times": times(&record) + 1});
                bank.write(&entry, &record);
            }
            "give_back" if record["state"] == "taken" => {
                let balance = bank.balance(&account).await?;
                bank.write(&account, &json!(balance + amount));
                record["state"] = json!("returned");
                bank.write(&entry, &record);
            }
            _ => {}
        }
        Ok(Ok(record))
    }
}

fn times(record: &Value) -> u64 {
    record["times"].as_u64().unwrap_or(0)
}

/// Where what a step did is kept.
fn place(context: &Context) -> String {
    format!("{}/{}", context.workflow_id, context.step)
}

/// The key under which the books keep an entry.
pub(super) fn key(name: &str) -> Key {
    Key {
        tenant: aster_core::id::TenantId::default(),
        component: COMPONENT.into(),
        bucket: "books".into(),
        key: name.into(),
    }
}

struct Books<'s> {
    session: &'s Session,
}

impl Books<'_> {
    async fn read(&self, name: &str) -> Result<Value, Error> {
        let key = key(name);
        let bytes = self.session.get(&key.component, &key.bucket, name.to_owned()).await;
        let bytes = bytes.map_err(|error| match error {
            session::Error::Unavailable(unavailable) => unavailable.into(),
            refused => Error::Other { cause: Arc::new(refused), may_pass: true },
        })?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null))
    }

    async fn balance(&self, account: &str) -> Result<u64, Error> {
        Ok(self.read(account).await?.as_u64().unwrap_or(BALANCE))
    }

    fn write(&self, name: &str, value: &Value) {
        let key = key(name);
        let bytes = value.to_string().into_bytes();
        let written = self.session.set(&key.component, &key.bucket, name.to_owned(), Some(bytes));
        written.expect("names and values here are small");
    }
}
