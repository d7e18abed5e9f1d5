//! Tests that a component is compiled once on a machine, by the caller that asks first.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};

use super::*;

fn sandbox(options: Options) -> Sandbox {
    Sandbox::new(Options { max_instances: 8, ..options }).expect("a sandbox")
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A sandbox whose folder has the code of `name`, as another sandbox left it.
async fn with_kept(dir: &std::path::Path, name: &str) -> Sandbox {
    let sandbox = sandbox(Options { cache_dir: Some(dir.join("code")), ..Options::default() });
    let loaded = SANDBOX.compile(Behalf::Host, component(name)).await.expect(name);
    let code = loaded.serialize().expect("there is memory");
    sandbox.inner.folder.as_ref().expect("a folder").keep(&loaded.digest(), &code);
    sandbox
}

#[tokio::test]
async fn the_same_bytes_are_loaded_once() {
    let (a, b) = tokio::join!(
        SANDBOX.compile(Behalf::Host, component("counter")),
        SANDBOX.compile(Behalf::Host, component("counter"))
    );
    let (a, b) = (a.expect("it loads"), b.expect("it loads"));
    assert!(Arc::ptr_eq(&a, &b));
    assert!(Arc::ptr_eq(&a, &SANDBOX.loaded(&a.digest()).expect("it is loaded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_at_once_compile_once() {
    let sandbox = sandbox(Options::default());
    let bytes = component("greeter-v1");
    let digest = digest(&bytes);
    let compiled = AtomicU32::new(0);
    let load = || {
        sandbox.load(digest, async {
            compiled.fetch_add(1, Ordering::Relaxed);
            sandbox.compile_anew(Behalf::Host, digest, bytes.clone()).await
        })
    };
    let all = join_all((0..100).map(|_| load())).await;
    let first = all[0].as_ref().expect("it compiles");
    assert!(all.iter().all(|loaded| Arc::ptr_eq(first, loaded.as_ref().expect("it is the same"))));
    assert_eq!(compiled.into_inner(), 1);
}

#[tokio::test]
async fn a_caller_that_waited_for_a_failure_tries_in_its_turn() {
    let bytes = component("greeter-v2");
    let digest = digest(&bytes);
    let fails = async { Err("no bytes") };
    let compiles =
        async { SANDBOX.compile_anew(Behalf::Host, digest, bytes).await.map_err(|_| "it compiles") };
    let (failed, loaded) = tokio::join!(SANDBOX.load(digest, fails), SANDBOX.load(digest, compiles));
    assert_eq!(failed.err(), Some("no bytes"));
    assert_eq!(loaded.expect("it compiles").digest(), digest);
}

#[tokio::test]
async fn bytes_of_another_digest_are_not_compiled() {
    let error = SANDBOX
        .compile_anew(Behalf::Host, Digest([1; 32]), component("echo"))
        .await
        .expect_err("other bytes");
    assert!(matches!(error, UploadError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn kept_code_loads_without_waiting_for_a_compilation() {
    let dir = tempfile::tempdir().expect("a folder");
    let sandbox = with_kept(dir.path(), "greeter-v1").await;
    sandbox.stop_compiling();
    assert!(sandbox.compile(Behalf::Host, component("greeter-v1")).await.is_ok());
}

#[tokio::test]
async fn memory_keeps_code_in_use_and_a_little_more() {
    let sandbox = sandbox(Options { loaded_bytes: 1, ..Options::default() });
    let a = sandbox.compile(Behalf::Host, component("greeter-v1")).await.expect("it loads").digest();
    assert!(sandbox.loaded(&a).is_some(), "nothing came after it");
    let b = sandbox.compile(Behalf::Host, component("greeter-v2")).await.expect("it loads");
    assert!(sandbox.loaded(&a).is_none());
    sandbox.compile(Behalf::Host, component("greeter-v3")).await.expect("it loads");
    assert!(sandbox.loaded(&b.digest()).is_some(), "somebody holds it");
}

#[tokio::test]
async fn compiled_code_is_kept_and_loads_in_another_sandbox() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = || Options { cache_dir: Some(dir.path().join("code")), ..Options::default() };
    let digest = sandbox(options())
        .compile(Behalf::Host, component("greeter-v1"))
        .await
        .expect("it compiles")
        .digest();
    let second = sandbox(options());
    // The code is written after the answer.
    let path = second.inner.folder.as_ref().expect("a folder").path(&digest);
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing was kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let not_asked_for = async { Err("it isn't there") };
    assert_eq!(second.load(digest, not_asked_for).await.expect("it is kept").digest(), digest);
    let slower = sandbox(Options { allocation: Allocation::OnDemand, ..options() });
    let error = slower.load(digest, async { Err("for another configuration") }).await;
    assert_eq!(error.err(), Some("for another configuration"));
}

#[tokio::test]
async fn kept_code_that_is_damaged_is_compiled_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let sandbox = with_kept(dir.path(), "greeter-v1").await;
    let digest = digest(&component("greeter-v1"));
    let folder = sandbox.inner.folder.as_ref().expect("a folder");
    std::fs::write(folder.path(&digest), b"no code").expect("the test owns the folder");
    let error = sandbox.load(digest, async { Err("compiled anew") }).await;
    assert_eq!(error.err(), Some("compiled anew"));
    assert!(!folder.path(&digest).exists());
}

#[tokio::test]
async fn a_folder_that_others_can_write_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))
        .expect("the test owns the folder");
    let sandbox = sandbox(Options { cache_dir: Some(dir.path().into()), ..Options::default() });
    assert!(sandbox.inner.folder.is_none());
}
