//! The compiler's process: its limits, and who may end it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use aster_core::id::Digest;
use sha2::{Digest as _, Sha256};

use super::*;

fn sandbox(options: Options) -> Sandbox {
    Sandbox::new(Options { max_instances: 8, ..options }).expect("a sandbox")
}

/// A component within the bounds that takes a minute to compile: in each function, many values are carried through many
/// loops.
fn laborious() -> Bytes {
    let loops = |begin: &str, end: &str| (begin.repeat(80), end.repeat(80));
    let (begin, end) = loops("loop ", "(br_if 0 (i32.wrap_i64 (local.get 0))) end ");
    let used: String = (0..1_000)
        .map(|local| format!("(local.set {local} (i64.add (local.get {local}) (i64.const 1))) "))
        .collect();
    let function = format!("(func (local {}) {begin} {used} {end})", "i64 ".repeat(1_000));
    wat(&format!("(component (core module {}))", function.repeat(12)))
}

/// Returns how many processes compile for this one.
fn compilers() -> usize {
    let children = std::fs::read_dir("/proc").expect("it is Linux").flatten().filter(|entry| {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let is_child = read("status").lines().any(|line| {
            line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == std::process::id().to_string())
        });
        is_child && read("cmdline").contains(SUBCOMMAND)
    });
    children.count()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_component_that_exceeds_its_processor_time_is_refused_and_not_tried_again() {
    let sandbox =
        sandbox(Options { compiler: compiler(), compile_time: Duration::from_secs(1), ..Options::default() });
    let bytes = laborious();
    let error = sandbox.compile(Behalf::Host, bytes.clone()).await.expect_err("it takes a minute");
    assert!(error.to_string().contains("takes more than 1s of processor time"), "{error}");
    let known =
        sandbox.inner.hopeless.lock().expect("nothing panics").get(&Digest(Sha256::digest(&bytes).into()));
    assert_eq!(known.as_deref(), Some(&error));
    // Compiling has stopped, so this answer is a remembered one.
    sandbox.stop_compiling();
    assert_eq!(sandbox.compile(Behalf::Host, bytes).await.err(), Some(error));
}

#[tokio::test]
async fn a_component_that_exceeds_its_memory_is_refused() {
    let options = Options { compiler: compiler(), compile_memory_bytes: 200 << 20, ..Options::default() };
    let error = sandbox(options).compile(Behalf::Host, laborious()).await.expect_err("it takes more");
    assert!(error.to_string().contains("takes more than 200 MiB of memory"), "{error}");
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_compilation_and_delays_nobody() {
    let sandbox = sandbox(Options { compiler: compiler(), ..Options::default() });
    let mut left = Vec::new();
    for tenant in ["a", "b", "c"] {
        let (sandbox, behalf) = (sandbox.clone(), Behalf::Tenant(tenant.parse().expect("a name")));
        // Each component has different bytes; otherwise they would wait for each other.
        let bytes = [laborious().as_ref(), &[0, 2, 1, tenant.as_bytes()[0]]].concat();
        left.push(tokio::spawn(async move { sandbox.compile(behalf, bytes.into()).await }));
    }
    until("two are compiled, and one waits", || sandbox.inner.line.waiting() == 1 && compilers() >= 2).await;
    left.iter().for_each(tokio::task::JoinHandle::abort);
    let behalf = Behalf::Tenant(TenantId::default());
    sandbox.compile(behalf, component("greeter-v1")).await.expect("the others have left");
    until("all compilers have ended", || compilers() == 0).await;
    assert_eq!(sandbox.inner.line.waiting(), 0);
}

#[tokio::test]
async fn a_host_that_stops_ends_all_compilations_at_once() {
    let sandbox = sandbox(Options { compiler: compiler(), ..Options::default() });
    let compiling = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.compile(Behalf::Host, laborious()).await })
    };
    until("it is compiled", || compilers() == 1).await;
    sandbox.stop_compiling();
    let error = compiling.await.expect("no panic").expect_err("it takes a minute");
    assert!(matches!(&error, UploadError::Busy(why) if why == "the host is stopping"), "{error}");
    until("the compiler has ended", || compilers() == 0).await;
    let error = sandbox.compile(Behalf::Host, component("greeter-v1")).await.expect_err("it has stopped");
    assert!(matches!(error, UploadError::Busy(_)), "{error}");
}

#[tokio::test]
async fn a_compiler_whose_host_dies_ends() {
    let Compiler::Child(program) = compiler() else { panic!("it is a program") };
    let bytes = laborious();
    let mut child = Command::new(program)
        .args([SUBCOMMAND, "OnDemand", &bytes.len().to_string(), "4000000000", "100"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("it has a pipe");
    stdin.write_all(&bytes).expect("it reads");
    assert_eq!(child.try_wait().expect("it is our child"), None);
    // The kernel closes the pipe like this when a process is killed.
    drop(stdin);
    let began = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_crash_of_the_compiler_is_a_verdict_and_a_missing_compiler_is_not() {
    let of =
        |program: &str| sandbox(Options { compiler: Compiler::Child(program.into()), ..Options::default() });
    let crashes = of("/bin/false").compile(Behalf::Host, component("greeter-v1")).await;
    let error = crashes.expect_err("it crashes");
    assert!(error.to_string().contains("the compiler crashed on the component (exit status: 1"), "{error}");
    let missing = of("/nowhere/aster").compile(Behalf::Host, component("greeter-v1")).await;
    assert!(matches!(missing, Err(UploadError::Host(_))), "{missing:?}");
    // Output that isn't code for this host is not a verdict on the component either.
    let rubbish = of("/bin/true").compile(Behalf::Host, component("greeter-v1")).await;
    assert!(matches!(rubbish, Err(UploadError::Host(_))), "{rubbish:?}");
}

#[tokio::test]
async fn every_allocation_loads_what_the_compiler_makes() {
    for allocation in [Allocation::Pool, Allocation::PoolDefaults, Allocation::OnDemand] {
        let sandbox = sandbox(Options { allocation, compiler: compiler(), ..Options::default() });
        let guest = Guest::within(&sandbox, "greeter-v1").await;
        assert!(guest.ok("greet", &[serde_json::json!("Ada")]).await.to_string().contains("Ada"));
    }
}
