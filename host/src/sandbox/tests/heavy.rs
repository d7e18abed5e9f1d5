//! Guests that compute for long, and move to threads of their own.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use aster_core::keyvalue::{Entry, Key};
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use serde_json::json;

use super::*;
use crate::sandbox::heavy::THREAD_NAME;
use crate::sandbox::weight::processor_time;

/// What a read does before it answers.
#[derive(Clone, Copy, Default)]
enum Manner {
    /// Computes for longer than a guest may, twice, and yields after each time. After the second time it is certain
    /// that the guest is heavy.
    #[default]
    Computes,
    /// The same once, without yielding.
    Holds,
    /// Leaves the processor to others for as long without yielding, and then yields.
    IsPreempted,
}

/// A reader that makes the guests which use it heavy, in this manner.
#[derive(Default)]
struct Busy {
    committed: InMemory,
    /// The thread on which each answer was given.
    threads: Mutex<Vec<Option<String>>>,
    panics: bool,
    manner: Manner,
}

#[async_trait::async_trait]
impl KeyValueReader for Busy {
    async fn read(&self, key: &Key) -> Result<Entry, Unavailable> {
        match self.manner {
            Manner::Computes => {
                for _ in 0..2 {
                    compute();
                    tokio::task::yield_now().await;
                }
            }
            Manner::Holds => compute(),
            Manner::IsPreempted => {
                thread::sleep(LONG);
                tokio::task::yield_now().await;
            }
        }
        self.threads.lock().expect("no panic").push(thread::current().name().map(Into::into));
        assert!(!self.panics, "a bug of the host");
        self.committed.read(key).await
    }

    async fn list_keys(
        &self,
        _: &TenantId,
        _: &str,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<String>, Unavailable> {
        Ok(Vec::new())
    }
}

/// Longer than a guest may compute among the host's tasks.
const LONG: Duration = Duration::from_millis(3);

fn compute() {
    let began = processor_time();
    while processor_time() - began < LONG {
        std::hint::spin_loop();
    }
}

async fn reader_of(reader: &Arc<Busy>) -> Guest {
    let mut guest = Guest::new("counter").await;
    guest.session = Session::new(TenantId::default(), reader.clone());
    guest
}

#[tokio::test]
async fn a_guest_that_has_moved_reads_writes_and_answers_as_before() {
    let reader = Arc::new(Busy::default());
    let guest = reader_of(&reader).await;
    assert_eq!(guest.ok("add", &[json!("b"), json!("n"), json!(5)]).await, json!(5));
    let effects = guest.session.effects();
    assert_eq!((effects.reads.len(), effects.writes.len()), (1, 1));
    assert_eq!(effects.writes[0].value.as_deref(), Some(&b"5"[..]));
    assert_eq!(*reader.threads.lock().expect("no panic"), [Some(THREAD_NAME.to_owned())]);
}

#[tokio::test]
async fn a_guest_that_lost_the_processor_to_others_does_not_move() {
    let sandbox = Sandbox::new(Options { max_instances: 8, ..Options::default() }).expect("a sandbox");
    let reader = Arc::new(Busy { manner: Manner::IsPreempted, ..Busy::default() });
    let mut guest = Guest::within(&sandbox, "counter").await;
    for _ in 0..4 {
        guest.session = Session::new(TenantId::default(), reader.clone());
        guest.ok("get", &[json!("b"), json!("n")]).await;
    }
    let threads = reader.threads.lock().expect("no panic");
    assert!(threads.iter().all(|name| name.as_deref() != Some(THREAD_NAME)), "{threads:?}");
}

#[tokio::test]
async fn a_component_that_holds_threads_begins_on_those_for_heavy_guests() {
    // The test has its own sandbox, because what is known about a component is shared.
    let sandbox = Sandbox::new(Options { max_instances: 8, ..Options::default() }).expect("a sandbox");
    let reader = Arc::new(Busy { manner: Manner::Holds, ..Busy::default() });
    let mut guest = Guest::within(&sandbox, "counter").await;
    for _ in 0..4 {
        // A session keeps the values that were read, so each call gets a new one.
        guest.session = Session::new(TenantId::default(), reader.clone());
        guest.ok("get", &[json!("b"), json!("n")]).await;
    }
    let threads = reader.threads.lock().expect("no panic");
    let is_apart: Vec<_> = threads.iter().map(|name| name.as_deref() == Some(THREAD_NAME)).collect();
    assert_eq!(is_apart, [false, false, true, true]);
}

#[tokio::test]
async fn a_panic_after_the_move_reaches_the_caller() {
    let reader = Arc::new(Busy { panics: true, ..Busy::default() });
    let guest = reader_of(&reader).await;
    let args = [json!("b"), json!("n")];
    let panic = AssertUnwindSafe(guest.call("get", &args)).catch_unwind().await.expect_err("it panics");
    assert_eq!(panic.downcast_ref(), Some(&"a bug of the host"));
    assert_eq!(*reader.threads.lock().expect("no panic"), [Some(THREAD_NAME.to_owned())]);
    // The thread still works.
    let guest = reader_of(&Arc::default()).await;
    assert_eq!(guest.ok("get", &args).await, json!(null));
}

#[tokio::test]
async fn fuel_is_counted_before_and_after_the_move() {
    let mut guest = Guest::new("hostile").await;
    guest.fuel = 300_000_000;
    let report = guest.call("spin", &[]).await;
    assert_eq!(report.outcome.expect_err("it never ends").code, FailureCode::OutOfFuel);
    assert_eq!(report.fuel_used, 300_000_000);
}

#[tokio::test]
async fn fuel_is_counted_until_the_deadline() {
    let mut guest = Guest::new("hostile").await;
    guest.fuel = u64::MAX / 2;
    guest.time = Duration::from_millis(100);
    let report = guest.call("writeThenSpin", &[json!("k")]).await;
    assert_eq!(report.outcome.expect_err("it never ends").code, FailureCode::Timeout);
    // This is a lower bound: compiled code records its fuel where it calls something, not in a loop.
    assert!((1..guest.fuel).contains(&report.fuel_used), "{} units", report.fuel_used);
    assert_eq!(guest.session.effects().writes.len(), 1);
}

#[tokio::test]
async fn output_is_captured_before_and_after_the_move() {
    let guest = Guest::new("hostile").await;
    let report = guest.call("print", &[json!(4 << 20)]).await;
    report.outcome.expect("printing too much is no failure");
    let cut = format!("[cut: {} more bytes]", (4 << 20) - (8 << 10));
    for text in [report.output.stdout, report.output.stderr] {
        assert!(text.ends_with(&cut), "{text}");
    }
}

#[tokio::test]
async fn a_slot_becomes_free_only_when_its_instance_is_gone() {
    // A task drops the sandbox at the end, while guests are still stopping.
    let sandbox = Sandbox::new(Options { max_instances: 8, ..Options::default() }).expect("a sandbox");
    let mut guest = Guest::within(&sandbox, "hostile").await;
    guest.fuel = u64::MAX / 2;
    for round in 0..10 {
        let calls = (0..8).map(|_| Box::pin(guest.try_call("spin", &[])));
        let first = tokio::time::timeout(Duration::from_millis(40), select_all(calls)).await;
        assert!(first.is_err(), "in round {round} a call ended: {:?}", first.map(|(report, ..)| report));
    }
    assert_eq!(guest.ok("ok", &[]).await, json!("ok"));
}
