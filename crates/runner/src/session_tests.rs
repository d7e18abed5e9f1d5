//! A session against a reader that counts and changes.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

/// Every read sees a newer version: another run commits all the time.
#[derive(Default)]
struct Changing(AtomicI64);

#[async_trait::async_trait]
impl KeyValueReader for Changing {
    async fn read(&self, _: &Key) -> Result<Entry, Unavailable> {
        let n = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Entry { version: Version(n), value: Some(n.to_string().into_bytes()) })
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

fn names() -> (Arc<str>, Arc<str>) {
    ("component".into(), "bucket".into())
}

#[tokio::test]
async fn a_key_reads_the_same_twice_and_keeps_its_first_version() {
    let session = Session::new(TenantId::default(), Arc::new(Changing::default()));
    let (component, bucket) = names();
    for _ in 0..2 {
        let value = session.get(&component, &bucket, "k".into()).await.expect("it is there");
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
    }
    assert_eq!(session.increment(&component, &bucket, "k".into(), 5).await.expect("a counter"), 6);
    let effects = session.effects();
    assert_eq!(effects.reads.len(), 1);
    assert_eq!(effects.reads[0].version, Version(1));
    assert_eq!(effects.writes[0].value.as_deref(), Some(&b"6"[..]));
}

#[tokio::test]
async fn what_an_attempt_writes_is_bounded_by_what_it_holds_at_the_end() {
    let session = Session::new(TenantId::default(), Arc::new(InMemory::default()));
    let (component, bucket) = names();
    let set = |key: &str, bytes: usize| session.set(&component, &bucket, key.into(), Some(vec![0; bytes]));
    for _ in 0..10 {
        set("same", MAX_VALUE_BYTES).expect("one value, over and over");
    }
    for key in ["b", "c", "d"] {
        set(key, MAX_VALUE_BYTES).expect("there is room");
    }
    set("e", 1).expect_err("there is no room");
    session.set(&component, &bucket, "b".into(), None).expect("a deletion");
    set("e", 1).expect("there is room again");
}

#[tokio::test]
async fn a_cursor_means_nothing_to_another_attempt() {
    let session = Session::new(TenantId::default(), Arc::new(InMemory::default()));
    let (component, bucket) = names();
    for cursor in [0, u64::MAX] {
        assert!(session.list_keys(&component, &bucket, Some(cursor)).await.is_err());
    }
}
