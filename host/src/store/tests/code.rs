use aster_core::wit::Exports;

use super::*;

const DAY: u64 = 24 * 3_600_000;

async fn uploaded(bed: &Bed, text: &str) -> Digest {
    let exports = Exports::default();
    let upload = Upload {
        name: "inventory",
        digest: sha256(text),
        bytes: text.as_bytes(),
        exports: &exports,
        wit: "package a:b;",
        uploaded_at: NOW,
        activate_at: None,
    };
    bed.store.put_component_version(&tenant(), upload).await.unwrap();
    upload.digest
}

fn code(text: &str) -> CompiledCode {
    CompiledCode { code: text.into(), tag: format!("tag of {text}").into() }
}

#[sqlx::test(migrations = "../migrations")]
async fn compiled_code_is_found_by_component_and_compatibility(pool: PgPool) {
    let Bed { store, .. } = &Bed::new(pool.clone()).await;
    let (a, b) = (uploaded(&Bed::new(pool).await, "a").await, sha256("b"));
    assert_eq!(store.load_code(a, [1; 32], NOW).await.unwrap(), None);
    for (compatibility, text) in [([1; 32], "old"), ([2; 32], "other"), ([1; 32], "new")] {
        store.put_code(a, compatibility, &code(text), NOW).await.unwrap();
    }
    assert_eq!(store.load_code(a, [1; 32], NOW).await.unwrap(), Some(code("new")));
    assert_eq!(store.load_code(a, [2; 32], NOW).await.unwrap(), Some(code("other")));
    // Refused after it was compiled, or deleted meanwhile.
    store.put_code(b, [1; 32], &code("b"), NOW).await.unwrap();
    assert_eq!(store.missing_code(&[a, b], [1; 32]).await.unwrap(), [b]);
    assert_eq!(store.missing_code(&[a, b], [3; 32]).await.unwrap(), [a, b]);
}

#[sqlx::test(migrations = "../migrations")]
async fn compiled_code_goes_with_its_component(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let digest = uploaded(&bed, "a").await;
    bed.store.put_code(digest, [1; 32], &code("a"), NOW).await.unwrap();
    bed.store.delete_component_version(&tenant(), "inventory", digest).await.unwrap();
    assert_eq!(bed.store.load_code(digest, [1; 32], NOW).await.unwrap(), None);
}

#[sqlx::test(migrations = "../migrations")]
async fn code_for_other_hosts_stays_while_they_take_it(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let digest = uploaded(&bed, "a").await;
    let after = |days| NOW.plus_millis(days * DAY);
    let [unused, used, new] = [[1; 32], [2; 32], [3; 32]];
    for compatibility in [unused, used] {
        bed.store.put_code(digest, compatibility, &code("a"), NOW).await.unwrap();
    }
    let there =
        async |compatibility, at| bed.store.load_code(digest, compatibility, at).await.unwrap().is_some();
    assert!(there(used, after(20)).await);
    bed.store.put_code(digest, new, &code("a"), after(31)).await.unwrap();
    assert!(!there(unused, after(31)).await);
    assert!(there(used, after(31)).await && there(new, after(31)).await);
    // However long nobody asked for it.
    bed.store.put_code(digest, new, &code("b"), after(300)).await.unwrap();
    assert!(!there(used, after(300)).await && there(new, after(300)).await);
}
