//! `aster:step/context` and `wasi:keyvalue` as guests see them, and the effects that are left for the commit.

use aster_core::keyvalue::{Entry, Key, Version};
use serde_json::json;

use super::*;

fn written(session: &Session) -> Vec<(String, Option<String>)> {
    let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
    session.effects().writes.into_iter().map(|w| (w.key.key.to_string(), w.value.map(text))).collect()
}

#[tokio::test]
async fn a_guest_reads_its_own_writes() {
    let guest = Guest::new("counter").await;
    assert_eq!(
        guest.ok("readYourWrites", &[json!("b")]).await,
        json!([
            "set: Some(\"1\")",
            "listed: true",
            "increment: 5",
            "read: Some(\"5\")",
            "deleted: None",
            "exists: false",
            "listed: false",
            "increment: 7",
        ])
    );
    assert_eq!(written(&guest.session), [("mine".into(), Some("7".into()))]);
    assert_eq!(guest.session.effects().reads, [], "only its own writes were read");
}

#[tokio::test]
async fn the_calls_of_an_attempt_share_a_session() {
    let guest = Guest::new("counter").await;
    guest.ok("set", &[json!("b"), json!("n"), json!("41")]).await;
    assert_eq!(guest.ok("increment", &[json!("b"), json!("n"), json!(1)]).await, json!(42));
    assert_eq!(guest.ok("get", &[json!("b"), json!("n")]).await, json!("42"));
    assert_eq!(guest.ok("get", &[json!("other"), json!("n")]).await, json!(null), "buckets are apart");
}

#[tokio::test]
async fn a_committed_value_is_read_with_its_version() {
    let mut guest = Guest::new("counter").await;
    let committed = Arc::new(InMemory::default());
    guest.session = Session::new(TenantId::default(), committed.clone());
    guest.ok("add", &[json!("b"), json!("n"), json!(5)]).await;
    committed.apply(guest.session.effects());

    guest.session = Session::new(TenantId::default(), committed.clone());
    assert_eq!(guest.ok("add", &[json!("b"), json!("n"), json!(2)]).await, json!(7));
    let effects = guest.session.effects();
    assert_eq!(effects.reads.len(), 1);
    assert_eq!(effects.reads[0].version, Version(1));
    assert_eq!(&*effects.reads[0].key.component, "guest");

    let other: TenantId = "other".parse().expect("a tenant");
    guest.session = Session::new(other, committed);
    assert_eq!(guest.ok("exists", &[json!("b"), json!("n")]).await, json!(false), "tenants are apart");
    assert_eq!(guest.session.effects().reads[0].version, Version::ABSENT);
}

#[tokio::test]
async fn a_counter_must_be_decimal_text() {
    let guest = Guest::new("counter").await;
    guest.ok("set", &[json!("b"), json!("n"), json!("seven")]).await;
    let failure = guest.fails("increment", &[json!("b"), json!("n"), json!(1)], FailureCode::Error).await;
    assert_eq!(failure.message, "`n` is no counter: expected the decimal text of a u64");
    guest.ok("set", &[json!("b"), json!("n"), json!("18446744073709551615")]).await;
    guest.fails("increment", &[json!("b"), json!("n"), json!(1)], FailureCode::Error).await;
}

#[tokio::test]
async fn listings_merge_pages_and_own_writes() {
    let mut guest = Guest::new("counter").await;
    let committed = Arc::new(InMemory::default());
    let seeding = Session::new(TenantId::default(), committed.clone());
    let (component, bucket) = ("guest".into(), "b".into());
    for i in 0..2_500 {
        seeding.set(&component, &bucket, format!("k{i:05}"), Some(vec![])).expect("it is small");
    }
    committed.apply(seeding.effects());
    guest.session = Session::new(TenantId::default(), committed);
    for (function, key) in [("delete", "k00000"), ("delete", "k01500"), ("delete", "k02499")] {
        guest.ok(function, &[json!("b"), json!(key)]).await;
    }
    for key in ["a", "k00999x", "z"] {
        guest.ok("set", &[json!("b"), json!(key), json!("v")]).await;
    }
    guest.ok("set", &[json!("c"), json!("elsewhere"), json!("v")]).await;
    let listed = guest.ok("listKeys", &[json!("b")]).await;
    let mut expected: Vec<String> = (0..2_500).map(|i| format!("k{i:05}")).collect();
    expected.retain(|key| !["k00000", "k01500", "k02499"].contains(&key.as_str()));
    expected.extend(["a", "k00999x", "z"].map(Into::into));
    expected.sort();
    assert_eq!(listed, json!(expected));
    assert_eq!(guest.session.effects().reads, [], "listings aren't validated");
}

#[tokio::test]
async fn names_and_sizes_are_checked_at_the_call() {
    let guest = Guest::new("hostile").await;
    let failure = guest.fails("setNulKey", &[], FailureCode::Error).await;
    assert_eq!(failure.message, "a key must not contain NUL");
    guest.ok("setLongKey", &[json!(512)]).await;
    guest.fails("setLongKey", &[json!(513)], FailureCode::Error).await;
    guest.fails("setLongKey", &[json!(0)], FailureCode::Error).await;
    guest.ok("setLongValue", &[json!(MAX_VALUE_BYTES)]).await;
    guest.fails("setLongValue", &[json!(MAX_VALUE_BYTES + 1)], FailureCode::Error).await;
    let failure = guest.fails("setManyKeys", &[json!(MAX_KEYS + 1)], FailureCode::Error).await;
    assert!(failure.message.contains("10000 keys"), "{failure:?}");
    let odd = guest.ok("openOdd", &[json!(513)]).await;
    assert!(odd.as_array().expect("three").iter().all(|result| result.get("err").is_some()), "{odd}");
}

#[tokio::test]
async fn the_context_says_which_call_this_is() {
    let mut guest = Guest::new("counter").await;
    let id = guest.context.workflow_id.to_string();
    assert_eq!(
        guest.ok("showContext", &[]).await,
        json!({
            "workflowId": id, "definition": "io.test.flow", "step": "charge", "attempt": 1, "deadline": 1000,
            "tenant": "default", "idempotencyKey": format!("{id}/charge/1"), "undoes": null, "outcome": null,
        })
    );
    guest.context.direction = Direction::Compensation(aster_core::state::Outcome::Unknown);
    guest.context.call_number = 2;
    let shown = guest.ok("showContext", &[]).await;
    assert_eq!(shown["idempotencyKey"], json!(format!("{id}/charge/undo/2")));
    assert_eq!(shown["undoes"], json!(format!("{id}/charge")));
    assert_eq!(shown["outcome"], json!("unknown"));
}

#[tokio::test]
async fn an_unreadable_state_is_not_a_verdict_on_the_step() {
    struct Gone;

    #[async_trait::async_trait]
    impl KeyValueReader for Gone {
        async fn read(&self, _: &Key) -> Result<Entry, Unavailable> {
            Err(Unavailable("the database is gone".into()))
        }

        async fn list_keys(
            &self,
            _: &TenantId,
            _: &str,
            _: &str,
            _: Option<&str>,
            _: usize,
        ) -> Result<Vec<String>, Unavailable> {
            Err(Unavailable("the database is gone".into()))
        }
    }

    let mut guest = Guest::new("counter").await;
    guest.session = Session::new(TenantId::default(), Arc::new(Gone));
    for (function, args) in [("get", vec![json!("b"), json!("n")]), ("listKeys", vec![json!("b")])] {
        let error = guest.try_call(function, &args).await.expect_err(function);
        assert!(matches!(error, Error::KeyValue(_)), "{error:?}");
    }
    guest.ok("set", &[json!("b"), json!("n"), json!("v")]).await;
}

#[tokio::test]
async fn a_write_before_a_trap_stays_in_the_session_which_is_then_dropped() {
    let guest = Guest::new("hostile").await;
    guest.fails("writeThenPanic", &[json!("k")], FailureCode::Trap).await;
    assert_eq!(written(&guest.session).len(), 1);
    assert_eq!(guest.session.effects().without_writes().writes, []);
}
