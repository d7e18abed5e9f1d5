//! Tests of the sandbox with real guests, which `cargo xtask build` builds.

mod code;
mod compiler;
mod echo;
mod heavy;
mod hostile;
mod hostile_calls;
mod hostile_uploads;
mod keyvalue;
mod mutations;
mod uploads;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aster_core::event::{Failure, FailureCode};
use aster_core::id::{TenantId, WorkflowId};
use aster_core::time::Timestamp;
use aster_runner::call::{CallLimits, CallReport, Context, Direction};
use aster_runner::session::{InMemory, KeyValueReader, MAX_KEYS, MAX_VALUE_BYTES, Session, Unavailable};
use bytes::Bytes;
use serde_json::Value;

use super::*;

/// All tests share one sandbox, because each engine would compile each guest again.
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    Sandbox::new(Options { max_instances: 100, compiler: compiler(), ..Options::default() })
        .expect("a sandbox")
});

/// The compiler as a host has it: the binary `aster`, built before.
fn compiler() -> Compiler {
    let program = match std::env::var_os("ASTER_BIN") {
        Some(program) => PathBuf::from(program),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/aster")),
    };
    assert!(program.exists(), "{}: run `cargo build` first", program.display());
    Compiler::Child(program)
}

/// Makes a component of its text.
fn wat(text: &str) -> Bytes {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")).into()
}

/// Returns the bytes of a guest that was built before.
fn component(name: &str) -> Bytes {
    let folder = match std::env::var_os("ASTER_COMPONENTS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/components")),
    };
    let path = folder.join(format!("{name}.wasm"));
    match std::fs::read(&path) {
        Ok(bytes) => bytes.into(),
        Err(error) => panic!("{}: {error}: run `cargo xtask build` first", path.display()),
    }
}

/// A component, and the values with which it is called.
struct Guest {
    sandbox: Sandbox,
    loaded: Arc<Loaded>,
    fuel: u64,
    memory_bytes: u64,
    time: Duration,
    context: Context,
    session: Session,
}

impl Guest {
    async fn new(name: &str) -> Self {
        Self::within(&SANDBOX, name).await
    }

    async fn within(sandbox: &Sandbox, name: &str) -> Self {
        Self::of(sandbox, sandbox.compile(Behalf::Host, component(name)).await.expect(name))
    }

    fn of(sandbox: &Sandbox, loaded: Arc<Loaded>) -> Self {
        Self {
            sandbox: sandbox.clone(),
            loaded,
            fuel: 1_000_000_000,
            memory_bytes: 64 << 20,
            time: Duration::from_secs(30),
            context: context(),
            session: Session::new(TenantId::default(), Arc::new(InMemory::default())),
        }
    }

    async fn try_call(&self, function: &str, args: &[Value]) -> Result<CallReport, Error> {
        let call = Call {
            loaded: &self.loaded,
            function: self.loaded.find(None, function).expect(function),
            component: "guest".into(),
            args: args.to_vec(),
            limits: CallLimits {
                fuel: self.fuel,
                memory_bytes: self.memory_bytes,
                deadline: Instant::now() + self.time,
            },
            context: self.context.clone(),
            session: &self.session,
        };
        self.sandbox.call(call).await
    }

    async fn call(&self, function: &str, args: &[Value]) -> CallReport {
        self.try_call(function, args).await.expect(function)
    }

    async fn ok(&self, function: &str, args: &[Value]) -> Value {
        self.call(function, args).await.outcome.expect(function)
    }

    /// Returns the failure, which must have the code.
    async fn fails(&self, function: &str, args: &[Value], code: FailureCode) -> Failure {
        let failure = self.call(function, args).await.outcome.expect_err(function);
        assert_eq!(failure.code, code, "{failure:?}");
        failure
    }
}

fn context() -> Context {
    Context {
        workflow_id: WorkflowId(uuid::Uuid::from_u128(7)),
        definition: "io.test.flow".into(),
        step: "charge".into(),
        attempt: 1,
        deadline: Some(Timestamp::from_millis(1_000)),
        tenant: TenantId::default(),
        call_number: 1,
        direction: Direction::Forward,
    }
}
