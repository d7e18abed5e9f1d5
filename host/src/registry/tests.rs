//! Hosts on one database, with real components: compiled code goes from one to the other, and only if it can be trusted.

use std::time::{Duration, Instant};

use aster_core::id::Digest;
use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgPool};

use super::*;
use crate::sandbox::Options;
use crate::store::Patience;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A host that has just been started.
fn host(pool: &PgPool, key: Option<&str>) -> Registry {
    let store = Store::from_pool(pool.clone(), Patience::default());
    let code_key = key.map(|key| key.parse().expect("it is a key"));
    let options = Options { max_instances: 8, code_key, ..Options::default() };
    Registry::new(store, Sandbox::new(options).expect("a sandbox"))
}

/// Built by `cargo xtask build`.
fn component() -> Bytes {
    let folder = std::env::var("ASTER_COMPONENTS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/components").to_owned());
    let bytes = std::fs::read(format!("{folder}/greeter-v1.wasm"));
    bytes.expect("components are built by `cargo xtask build`").into()
}

/// A host uploads a component, and has handed on what it may hand on.
async fn upload(pool: &PgPool, key: Option<&str>) -> Digest {
    let host = host(pool, key);
    let uploaded =
        host.upload(&TenantId::default(), "greeter", component(), true).await.expect("it is taken");
    host.load_ahead().await.expect("the database is there");
    uploaded.digest
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.expect(sql);
}

/// From here on who has no code has nothing.
async fn spoil_bytes(pool: &PgPool) {
    execute(pool, "update component_bytes set bytes = ''").await;
}

async fn restore_bytes(pool: &PgPool) {
    let restored = sqlx::query("update component_bytes set bytes = $1").bind(component().to_vec());
    restored.execute(pool).await.expect("the database is there");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_one_host_has_compiled_another_one_loads(pool: PgPool) {
    let digest = upload(&pool, Some(KEY)).await;
    spoil_bytes(&pool).await;
    let second = host(&pool, Some(KEY));
    second.load_ahead().await.expect("the database is there");
    assert!(second.shared.sandbox.loaded(&digest).is_some());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_without_a_key_compiles_for_itself(pool: PgPool) {
    let digest = upload(&pool, None).await;
    let keyed = host(&pool, Some(KEY));
    let compatibility = keyed.shared.sandbox.compatibility().0;
    assert_eq!(keyed.shared.store.missing_code(&[digest], compatibility).await.unwrap(), [digest]);
    keyed.load_ahead().await.expect("the database is there");
    assert_eq!(keyed.shared.store.missing_code(&[digest], compatibility).await.unwrap(), []);
    let unkeyed = host(&pool, None);
    spoil_bytes(&pool).await;
    assert!(unkeyed.loaded(digest).await.is_err());
    restore_bytes(&pool).await;
    assert!(unkeyed.loaded(digest).await.is_ok());
}

#[sqlx::test(migrations = "../migrations")]
async fn code_that_cannot_be_trusted_costs_a_compilation(pool: PgPool) {
    let digest = upload(&pool, Some(KEY)).await;
    let checks = [
        (KEY, "update compiled_code set code = set_byte(code, 5000, get_byte(code, 5000) # 1)"),
        (KEY, "update compiled_code set tag = set_byte(tag, 0, get_byte(tag, 0) # 1)"),
        (KEY, "update compiled_code set tag = ''"),
        (KEY, "update compiled_code set compatibility = decode(repeat('01', 32), 'hex')"),
        (OTHER_KEY, ""),
    ];
    for (key, spoil) in checks {
        execute(&pool, spoil).await;
        spoil_bytes(&pool).await;
        let host = host(&pool, Some(key));
        let loaded = host.loaded(digest).await;
        assert!(matches!(loaded, Err(Error::InvalidComponent(_))), "{spoil}: {loaded:?}");
        restore_bytes(&pool).await;
        assert!(host.loaded(digest).await.is_ok(), "{spoil}");
        // It is handed on after the answer.
        let began = Instant::now();
        while host.compiled_elsewhere(digest).await.expect("the database is there").is_none() {
            assert!(began.elapsed() < Duration::from_secs(30), "{spoil}: the row wasn't replaced");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_component_that_cannot_be_loaded_is_set_aside_until_it_can(pool: PgPool) {
    const SOURCE: &str = "This module is test.greet.\n\nTo greet with name: Text, produce Json with IO. It performs io with Greeter:\n\n  \
        workflow:\n\n    step only:\n      Return Greeter.greet(name).\n\n    timeout: 60 seconds.\n  .\n";
    let tenant = TenantId::default();
    upload(&pool, None).await;
    host(&pool, None).deploy(&tenant, "greet.aster", SOURCE).await.expect("it is deployed");
    spoil_bytes(&pool).await;
    let second = host(&pool, None);
    second.load_ahead().await.expect("the others can be loaded");
    let refused = second.resolve(&tenant, "greet").await;
    let Err(Error::NotReady(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.starts_with("component `greeter` can't be loaded on this host: "), "{why}");
    // A run that was accepted by another host finds out when it comes to the call.
    let id =
        sqlx::query_scalar::<_, i64>("select release_id from release").fetch_one(&pool).await.expect("one");
    let release = second.release(id).await.expect("it is there, without the component");
    assert!(release.set_aside().is_some());
    restore_bytes(&pool).await;
    assert!(second.resolve(&tenant, "greet").await.is_ok());
    assert!(second.release(id).await.expect("it is whole").set_aside().is_none());
}
