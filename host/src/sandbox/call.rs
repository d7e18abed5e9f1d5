//! One call: a fresh store and instance, values in, a value or a failure out.

use std::sync::Arc;
use std::time::Instant;

use aster_core::event::{Failure, FailureCode};
use aster_core::wit::{Function, Type, check};
use aster_runner::call::{CallLimits, CallReport, Context, Output};
use aster_runner::session::Session;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use wasmtime::Store;
use wasmtime::component::{InstancePre, Val};

use super::capability::{self, State};
use super::failure;
use super::load::{FunctionHandle, Loaded};
use super::output::Capture;
use super::value;
use super::{Error, Sandbox, limits};

/// What to call, with what, and how far it may go.
#[derive(Debug)]
pub struct Call<'a> {
    pub loaded: &'a Arc<Loaded>,
    pub function: FunctionHandle,
    /// The name under which the component is registered: its key-value buckets belong to it.
    pub component: Arc<str>,
    /// One for each parameter.
    pub args: Vec<Value>,
    pub limits: CallLimits,
    pub context: Context,
    /// The attempt's own, the same for all of its calls.
    pub session: &'a Session,
}

/// All that a guest runs in, and what is asked of it afterwards. It owns everything, so that it can run on any thread.
pub(super) struct CallStore {
    store: Store<State>,
    limits: CallLimits,
    stdout: Capture,
    stderr: Capture,
    /// The last field: given back when the instance is gone, wherever that is.
    _slots: OwnedSemaphorePermit,
}

/// What the guest's part of a call came to.
struct Ended {
    end: End,
    fuel_used: u64,
    output: Output,
}

enum End {
    Answered(Result<Value, Failure>),
    Error(wasmtime::Error),
    TimedOut,
}

impl Sandbox {
    /// Calls a function in an instance of its own.
    ///
    /// # Errors
    /// The host's trouble only; how the guest fails is in the report.
    ///
    /// # Cancel safety
    /// Dropping the future stops the guest, also in an endless loop: it gives way at every tick. A guest that has moved to the
    /// threads for heavy ones may go on until then, and holds its slot as long. What it wrote is in the session, which the
    /// attempt's owner drops.
    pub async fn call(&self, call: Call<'_>) -> Result<CallReport, Error> {
        let Call { loaded, function, component, args, limits, context, session } = call;
        let began = Instant::now();
        let max_value_bytes = self.inner.options.max_value_bytes;
        // Large ones are converted where they hold up nobody else.
        let is_large = match size_of(loaded.function(function), &args, max_value_bytes) {
            Ok(size) => size.is_large(),
            Err(failure) => {
                return Ok(CallReport {
                    outcome: Err(failure),
                    fuel_used: 0,
                    duration: began.elapsed(),
                    output: Output::default(),
                });
            }
        };
        let deadline = tokio::time::Instant::from_std(limits.deadline);
        let slots = self.slots(loaded, deadline).await?;
        let store = self.store(slots, limits, context, component, session.clone());
        let guest = store.call(Arc::clone(loaded), function, args, max_value_bytes);
        let heavy = &self.inner.heavy;
        let Ended { end, fuel_used, output } = match is_large {
            true => heavy.run_apart(guest).await,
            false => heavy.run(&loaded.weight, guest).await,
        };

        let outcome = match end {
            End::Answered(answer) => answer,
            End::Error(error) => Err(failure::of_error(error, &output.stderr, max_value_bytes)?),
            End::TimedOut => {
                let after = limits.deadline.saturating_duration_since(began);
                Err(Failure::new(FailureCode::Timeout, format!("interrupted after {after:.1?}")))
            }
        };
        Ok(CallReport { outcome, fuel_used, duration: began.elapsed(), output })
    }

    pub(super) fn store(
        &self,
        slots: OwnedSemaphorePermit,
        limits: CallLimits,
        context: Context,
        component: Arc<str>,
        session: Session,
    ) -> CallStore {
        let options = &self.inner.options;
        let stdout = Capture::new(options.max_output_bytes);
        let stderr = Capture::new(options.max_output_bytes);
        let state = State::new(
            limits::Limits::new(limits.memory_bytes),
            context,
            component,
            session,
            stdout.clone(),
            stderr.clone(),
        );
        let mut store = Store::new(&self.inner.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_fuel(limits.fuel).expect("the engine counts fuel");
        // Yield at the next tick, and at each one after it.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_hostcall_fuel(value::hostcall_fuel(None, options.max_value_bytes));
        store.set_max_component_handles(capability::max_handles());
        CallStore { store, limits, stdout, stderr, _slots: slots }
    }
}

impl CallStore {
    /// All that takes its time is done in here, the conversion of values and the end of the instance too: so it happens on the thread
    /// that the guest has, and is seen to have held it. The time limit is kept in here as well, so that a guest which is out of time
    /// has stopped, and its fuel is counted, before anybody hears of it.
    async fn call(
        mut self,
        loaded: Arc<Loaded>,
        function: FunctionHandle,
        args: Vec<Value>,
        max_value_bytes: usize,
    ) -> Ended {
        let signature = loaded.function(function);
        let end = match params(signature, &args) {
            Err(failure) => End::Answered(Err(failure)),
            Ok(params) => {
                self.store
                    .set_hostcall_fuel(value::hostcall_fuel(signature.result.as_ref(), max_value_bytes));
                let guest = run(&mut self.store, &loaded, function, &params);
                match tokio::time::timeout_at(self.limits.deadline.into(), guest).await {
                    Ok(Ok(result)) => {
                        End::Answered(answer(signature.result.as_ref(), result, max_value_bytes))
                    }
                    Ok(Err(error)) => End::Error(error),
                    Err(_) => End::TimedOut,
                }
            }
        };
        Ended {
            end,
            fuel_used: self.limits.fuel.saturating_sub(self.store.get_fuel().unwrap_or(0)),
            output: Output { stdout: self.stdout.text(), stderr: self.stderr.text() },
        }
    }

    /// An instance that nothing is called on.
    pub(super) async fn start(mut self, pre: InstancePre<State>) -> Result<wasmtime::Result<()>, Elapsed> {
        let instance = pre.instantiate_async(&mut self.store);
        let started = tokio::time::timeout_at(self.limits.deadline.into(), instance).await?;
        Ok(started.map(drop))
    }
}

async fn run(
    store: &mut Store<State>,
    loaded: &Loaded,
    function: FunctionHandle,
    params: &[Val],
) -> wasmtime::Result<Option<Val>> {
    let instance = loaded.pre.instantiate_async(&mut *store).await?;
    let callee = instance
        .get_func(&mut *store, loaded.index(function))
        .ok_or_else(|| wasmtime::Error::msg("the instance lacks an export of its component"))?;
    // Overwritten by the call.
    let mut results = [Val::Bool(false)];
    let has_result = loaded.function(function).result.is_some();
    callee.call_async(&mut *store, params, &mut results[..usize::from(has_result)]).await?;
    let [result] = results;
    Ok(has_result.then_some(result))
}

/// How large the arguments are.
///
/// # Errors
/// There are too many or too few, or one is larger than a value may be: nothing is converted then.
fn size_of(signature: &Function, args: &[Value], max_bytes: usize) -> Result<value::Size, Failure> {
    if args.len() != signature.params.len() {
        let (wanted, given) = (signature.params.len(), args.len());
        let message = format!("`{}` takes {wanted} arguments, {given} were given", signature.name);
        return Err(Failure::new(FailureCode::Type, message));
    }
    let mut all = value::Size::default();
    for (param, arg) in signature.params.iter().zip(args) {
        let size = value::Size::of(arg, max_bytes)
            .map_err(|refused| Failure::new(FailureCode::Type, format!("{}: {refused}", param.name)))?;
        all.add(size);
    }
    Ok(all)
}

/// The arguments, of which there are as many as parameters.
fn params(signature: &Function, args: &[Value]) -> Result<Vec<Val>, Failure> {
    signature
        .params
        .iter()
        .zip(args)
        .map(|(param, arg)| {
            value::to_val(&param.ty, arg).map_err(|value::Unfit| {
                let found = check(&param.ty, arg, &param.name);
                let message = match found.first() {
                    Some(first) => format!("{}: {}", first.path, first.message),
                    None => format!("{}: expected {}", param.name, param.ty),
                };
                let detail = found
                    .iter()
                    .map(|m| serde_json::json!({ "path": m.path, "message": m.message }))
                    .collect();
                Failure { detail: Some(detail), ..Failure::new(FailureCode::Type, message) }
            })
        })
        .collect()
}

/// A function's own `result` is split; any other value is the answer as it is.
fn answer(ty: Option<&Type>, result: Option<Val>, max_bytes: usize) -> Result<Value, Failure> {
    let payload = |ty: Option<&Type>, val: Option<Val>| match (ty, val) {
        (Some(ty), Some(val)) => value::to_json(ty, val, max_bytes)
            .map_err(|refused| Failure::new(FailureCode::Type, refused.to_string())),
        _ => Ok(Value::Null),
    };
    match (ty, result) {
        (Some(Type::Result { ok, .. }), Some(Val::Result(Ok(val)))) => {
            payload(ok.as_deref(), val.map(|v| *v))
        }
        (Some(Type::Result { err, .. }), Some(Val::Result(Err(val)))) => {
            let given = payload(err.as_deref(), val.map(|v| *v))?;
            Err(failure::of_err(err.as_deref(), given))
        }
        (ty, val) => payload(ty, val),
    }
}
