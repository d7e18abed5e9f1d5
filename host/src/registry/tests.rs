//! Tests with several hosts on one database and real components: one host loads the code that another compiled, but
//! only if it can be trusted.

use std::time::{Duration, Instant};

use aster_core::id::Digest;
use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgPool};

use super::*;
use crate::sandbox::Options;
use crate::store::Patience;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Returns a host that was just started.
fn host(pool: &PgPool, key: Option<&str>) -> Registry {
    let code_key = key.map(|key| key.parse().expect("it is a key"));
    host_with(pool, Options { code_key, ..Options::default() })
}

fn host_with(pool: &PgPool, options: Options) -> Registry {
    let store = Store::from_pool(pool.clone(), Patience::default());
    Registry::new(store, Sandbox::new(Options { max_instances: 8, ..options }).expect("a sandbox"))
}

fn component() -> Bytes {
    component_named("greeter-v1")
}

/// Returns a component that `cargo xtask build` has built.
fn component_named(name: &str) -> Bytes {
    let folder = std::env::var("ASTER_COMPONENTS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/components").to_owned());
    let bytes = std::fs::read(format!("{folder}/{name}.wasm"));
    bytes.expect("components are built by `cargo xtask build`").into()
}

/// Uploads a component on a host, and lets it share the code that it may share.
async fn upload(pool: &PgPool, key: Option<&str>) -> Digest {
    let host = host(pool, key);
    let uploaded =
        host.upload(&TenantId::default(), "greeter", component(), true).await.expect("the upload is valid");
    host.load_ahead().await.expect("the database answers");
    uploaded.digest
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.expect(sql);
}

/// From here on a host that has no code can't compile it.
async fn spoil_bytes(pool: &PgPool) {
    execute(pool, "update component_bytes set bytes = ''").await;
}

async fn restore_bytes(pool: &PgPool) {
    let restored = sqlx::query("update component_bytes set bytes = $1").bind(component().to_vec());
    restored.execute(pool).await.expect("the database answers");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_loads_the_code_that_another_host_compiled(pool: PgPool) {
    let digest = upload(&pool, Some(KEY)).await;
    spoil_bytes(&pool).await;
    let second = host(&pool, Some(KEY));
    second.load_ahead().await.expect("the database answers");
    assert!(second.shared.sandbox.loaded(&digest).is_some());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_without_a_key_compiles_for_itself(pool: PgPool) {
    let digest = upload(&pool, None).await;
    let keyed = host(&pool, Some(KEY));
    let compatibility = keyed.shared.sandbox.compatibility().0;
    assert_eq!(keyed.shared.store.missing_code(&[digest], compatibility).await.unwrap(), [digest]);
    keyed.load_ahead().await.expect("the database answers");
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
        // The code is shared after the answer.
        let began = Instant::now();
        while host.compiled_elsewhere(digest).await.expect("the database answers").is_none() {
            assert!(began.elapsed() < Duration::from_secs(30), "{spoil}: the row wasn't replaced");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn source(name: &str) -> String {
    format!(
        "This module is test.{name}.\n\nTo {name} with name: Text, produce Json with IO. It performs io with Greeter:\n\n  \
        workflow:\n\n    step only:\n      Return Greeter.greet(name).\n\n    timeout: 60 seconds.\n  .\n"
    )
}

#[sqlx::test(migrations = "../migrations")]
async fn releases_that_no_run_uses_do_not_keep_code_in_memory(pool: PgPool) {
    let tenant = TenantId::default();
    let host = host_with(&pool, Options { loaded_bytes: 1, ..Options::default() });
    let first = host
        .upload(&tenant, "greeter", component_named("greeter-v1"), true)
        .await
        .expect("the upload is valid")
        .digest;
    host.deploy(&tenant, "greet.aster", &source("greet")).await.expect("it is deployed");
    let in_use = host.resolve(&tenant, "greet").await.expect("the definition resolves");
    let second = host
        .upload(&tenant, "greeter", component_named("greeter-v2"), true)
        .await
        .expect("the upload is valid")
        .digest;
    host.resolve(&tenant, "greet").await.expect("the definition resolves");
    assert!(host.shared.sandbox.loaded(&first).is_some(), "a run uses it");
    drop(in_use);
    host.deploy(&tenant, "again.aster", &source("again")).await.expect("it is deployed");
    host.resolve(&tenant, "again").await.expect("the definition resolves");
    assert!(host.shared.sandbox.loaded(&first).is_none(), "no run uses it any more");
    assert!(host.shared.sandbox.loaded(&second).is_some(), "it is in use");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_component_that_cannot_be_loaded_is_set_aside_until_it_can(pool: PgPool) {
    let tenant = TenantId::default();
    upload(&pool, None).await;
    host(&pool, None).deploy(&tenant, "greet.aster", &source("greet")).await.expect("it is deployed");
    spoil_bytes(&pool).await;
    let second = host(&pool, None);
    second.load_ahead().await.expect("the others can be loaded");
    let refused = second.resolve(&tenant, "greet").await;
    let Err(Error::NotReady(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.starts_with("component `greeter` can't be loaded on this host: "), "{why}");
    // A run that another host accepted fails when it reaches the call.
    let id =
        sqlx::query_scalar::<_, i64>("select release_id from release").fetch_one(&pool).await.expect("one");
    let release = second.release(ReleaseId(id)).await.expect("the release loads without the component");
    assert!(release.set_aside().is_some());
    restore_bytes(&pool).await;
    assert!(second.resolve(&tenant, "greet").await.is_ok());
    assert!(second.release(ReleaseId(id)).await.expect("the release loads").set_aside().is_none());
}
