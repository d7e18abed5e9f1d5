//! The component `counter`: uses every function of the host's interfaces.

use std::time::Duration;

use aster::step::context::{self, ForwardOutcome};
use exports::testing::counter::{
    counter::{Context, Guest, Outcome},
    left, right,
};
use wasi::keyvalue::{
    atomics,
    store::{self, Bucket},
};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "testing:counter/component",
    generate_all,
});

struct Counter;
export!(Counter);

impl Guest for Counter {
    fn get(bucket: String, key: String) -> Result<Option<String>, String> {
        text(&open(&bucket)?, &key)
    }

    fn set(bucket: String, key: String, value: String) -> Result<(), String> {
        open(&bucket)?.set(&key, value.as_bytes()).map_err(explain)
    }

    fn delete(bucket: String, key: String) -> Result<(), String> {
        open(&bucket)?.delete(&key).map_err(explain)
    }

    fn exists(bucket: String, key: String) -> Result<bool, String> {
        open(&bucket)?.exists(&key).map_err(explain)
    }

    fn list_keys(bucket: String) -> Result<Vec<String>, String> {
        list(&open(&bucket)?)
    }

    fn increment(bucket: String, key: String, delta: u64) -> Result<u64, String> {
        atomics::increment(&open(&bucket)?, &key, delta).map_err(explain)
    }

    fn add(bucket: String, key: String, delta: i64) -> Result<i64, String> {
        add(&open(&bucket)?, &key, delta)
    }

    fn add_below(bucket: String, key: String, delta: i64, limit: i64) -> Result<i64, String> {
        let bucket = open(&bucket)?;
        let count = number(&bucket, &key)?;
        if count >= limit {
            return Err(count.to_string());
        }
        add(&bucket, &key, delta)
    }

    fn add_then_fail(bucket: String, key: String, delta: i64) -> Result<i64, String> {
        let count = add(&open(&bucket)?, &key, delta)?;
        Err(format!("failed after counting to {count}"))
    }

    fn add_slowly(bucket: String, key: String, delta: i64, ms: u64) -> Result<i64, String> {
        let bucket = open(&bucket)?;
        let count = number(&bucket, &key)? + delta;
        std::thread::sleep(Duration::from_millis(ms));
        bucket.set(&key, count.to_string().as_bytes()).map_err(explain)?;
        Ok(count)
    }

    fn move_amount(bucket: String, source: String, target: String, amount: i64) -> Result<(), String> {
        let bucket = open(&bucket)?;
        if number(&bucket, &source)? < amount {
            return Err(format!("not enough in {source}"));
        }
        add(&bucket, &source, -amount)?;
        add(&bucket, &target, amount)?;
        Ok(())
    }

    fn read_your_writes(bucket: String) -> Result<Vec<String>, String> {
        let bucket = open(&bucket)?;
        let mut seen = Vec::new();
        bucket.set("mine", b"1").map_err(explain)?;
        seen.push(format!("set: {:?}", text(&bucket, "mine")?));
        seen.push(format!("listed: {}", list(&bucket)?.iter().any(|key| key == "mine")));
        seen.push(format!("increment: {}", atomics::increment(&bucket, "mine", 4).map_err(explain)?));
        seen.push(format!("read: {:?}", text(&bucket, "mine")?));
        bucket.delete("mine").map_err(explain)?;
        seen.push(format!("deleted: {:?}", text(&bucket, "mine")?));
        seen.push(format!("exists: {}", bucket.exists("mine").map_err(explain)?));
        seen.push(format!("listed: {}", list(&bucket)?.iter().any(|key| key == "mine")));
        seen.push(format!("increment: {}", atomics::increment(&bucket, "mine", 7).map_err(explain)?));
        Ok(seen)
    }

    fn show_context() -> Context {
        Context {
            workflow_id: context::workflow_id(),
            definition: context::definition(),
            step: context::step(),
            attempt: context::attempt(),
            deadline: context::deadline(),
            tenant: context::tenant(),
            idempotency_key: context::idempotency_key(),
            undoes: context::undoes(),
            outcome: context::outcome().map(Outcome::from),
        }
    }

    fn note_context(bucket: String, key: String) -> Result<(), String> {
        let outcome = match context::outcome() {
            None => "",
            Some(ForwardOutcome::Completed) => " completed",
            Some(ForwardOutcome::None) => " none",
            Some(ForwardOutcome::Unknown) => " unknown",
        };
        let note = format!("{}{outcome}", context::idempotency_key());
        open(&bucket)?.set(&key, note.as_bytes()).map_err(explain)
    }
}

impl left::Guest for Counter {
    fn side() -> String {
        "left".to_owned()
    }
}

impl right::Guest for Counter {
    fn side() -> String {
        "right".to_owned()
    }
}

impl From<ForwardOutcome> for Outcome {
    fn from(outcome: ForwardOutcome) -> Self {
        match outcome {
            ForwardOutcome::Completed => Self::Completed,
            ForwardOutcome::None => Self::None,
            ForwardOutcome::Unknown => Self::Unknown,
        }
    }
}

fn open(bucket: &str) -> Result<Bucket, String> {
    store::open(bucket).map_err(explain)
}

fn text(bucket: &Bucket, key: &str) -> Result<Option<String>, String> {
    let value = bucket.get(key).map_err(explain)?;
    value.map(|bytes| String::from_utf8(bytes).map_err(|_| format!("`{key}` is not text"))).transpose()
}

fn number(bucket: &Bucket, key: &str) -> Result<i64, String> {
    match text(bucket, key)? {
        Some(text) => text.parse().map_err(|_| format!("`{key}` is not a whole number")),
        None => Ok(0),
    }
}

fn add(bucket: &Bucket, key: &str, delta: i64) -> Result<i64, String> {
    let count = number(bucket, key)? + delta;
    bucket.set(key, count.to_string().as_bytes()).map_err(explain)?;
    Ok(count)
}

fn list(bucket: &Bucket) -> Result<Vec<String>, String> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor).map_err(explain)?;
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            keys.sort();
            return Ok(keys);
        }
    }
}

fn explain(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "no such store".to_owned(),
        store::Error::AccessDenied => "access denied".to_owned(),
        store::Error::Other(reason) => reason,
    }
}
