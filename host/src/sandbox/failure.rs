//! The meaning of a call's end: a verdict on the step, or a failure of the host.

use aster_core::event::{Failure, FailureCode};
use aster_core::name;
use aster_core::wit::Type;
use aster_runner::session::Unavailable;
use serde_json::{Value, json};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::Error;
use super::limits::MemoryExceeded;
use super::value::TooMuch;

/// The longest message of a failure, which lists and logs show.
const MAX_MESSAGE_CHARS: usize = 4_000;
const MAX_FRAMES: usize = 8;

/// Interprets an error from Wasmtime.
///
/// # Errors
/// Returns an error if the guest is not at fault, so that nothing is known about the step.
pub(super) fn of_error(
    error: wasmtime::Error,
    stderr: &str,
    max_value_bytes: usize,
) -> Result<Failure, Error> {
    let error = match error.downcast::<Unavailable>() {
        Ok(unavailable) => return Err(Error::KeyValue(unavailable)),
        Err(error) => error,
    };
    if error.is::<PoolConcurrencyLimitError>() {
        return Err(Error::Busy(error.to_string()));
    }
    if let Some(exceeded) = error.downcast_ref::<MemoryExceeded>() {
        return Ok(Failure::new(FailureCode::OutOfMemory, exceeded.to_string()));
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ok(Failure::new(FailureCode::Trap, format!("the guest exited with status {}", exit.0)));
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Ok(match trap {
            Trap::OutOfFuel => Failure::new(FailureCode::OutOfFuel, "the guest used up its fuel"),
            trap => of_trap(*trap, &error, stderr),
        });
    }
    let cause = error.root_cause().to_string();
    if cause.starts_with("too much data is being copied") {
        let refused = TooMuch::Either(max_value_bytes);
        return Ok(Failure::new(FailureCode::Type, refused.to_string()));
    }
    if is_hosts(&error) {
        return Err(Error::Engine(format!("{error:#}")));
    }
    // The guest handed over something invalid, such as a string that isn't UTF-8 or a handle that it doesn't have.
    Ok(Failure { detail: backtrace(&error), ..Failure::new(FailureCode::Trap, one_line(&cause)) })
}

/// Returns whether the machine refused something that a call needs: memory, mappings, or a slot.
///
/// Every other error is blamed on the guest. Otherwise a guest could have its call repeated for ever.
pub(super) fn is_hosts(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
        || error.is::<wasmtime::OutOfMemory>()
        || error.chain().any(|cause| cause.is::<std::io::Error>() || cause.is::<rustix::io::Errno>())
}

/// Makes a failure of an `err` that a function returned.
pub(super) fn of_err(ty: Option<&Type>, payload: Value) -> Failure {
    let code = match (ty, &payload) {
        (Some(Type::Variant(_) | Type::Enum(_)), payload) if is_transient(payload) => {
            FailureCode::TransientError
        }
        _ => FailureCode::Error,
    };
    let (message, detail) = match payload {
        Value::Null => ("the function answered `err`".to_owned(), None),
        Value::String(text) if matches!(ty, Some(Type::String)) => (text, None),
        payload => (message_of(&payload), Some(payload)),
    };
    Failure { code, message: shortened(&message), detail }
}

fn of_trap(trap: Trap, error: &wasmtime::Error, stderr: &str) -> Failure {
    let message = match panic_message(stderr) {
        Some(panic) => panic,
        None => match stderr.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(last) => format!("{} ({last})", described(trap)),
            None => described(trap),
        },
    };
    Failure { detail: backtrace(error), ..Failure::new(FailureCode::Trap, one_line(&message)) }
}

fn described(trap: Trap) -> String {
    match trap {
        Trap::StackOverflow => "the call stack is exhausted".into(),
        // Rust and C keep their own stack at the low end of memory, and overflow it downwards.
        Trap::MemoryOutOfBounds => "memory access out of bounds (a stack overflow looks the same)".into(),
        Trap::UnreachableCodeReached => "the guest aborted (`unreachable`)".into(),
        other => other.to_string().trim_start_matches("wasm trap: ").to_owned(),
    }
}

/// Finds the message that Rust's panic hook printed last: `panicked at src/lib.rs:3:5: no such order`.
fn panic_message(stderr: &str) -> Option<String> {
    const MARK: &str = " panicked at ";
    let start = stderr.rfind(MARK)?;
    let printed = &stderr[start + 1..];
    let printed = printed.split("\nnote: ").next().unwrap_or(printed);
    let (place, message) = printed.split_once('\n').unwrap_or((printed, ""));
    Some(format!("{place} {}", message.trim()).trim().to_owned())
}

/// Returns the innermost frames without those of a panic itself, or `None` if the component has no names.
fn backtrace(error: &wasmtime::Error) -> Option<Value> {
    const MACHINERY: &[&str] =
        &["core::panicking", "std::panicking", "std::sys", "__rust", "rust_panic", "abort"];
    // Only the text has the names in the form in which their authors wrote them: `0: 0x1f2 - module!name`.
    let text = error.downcast_ref::<WasmBacktrace>()?.to_string();
    let frames: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(" - ")?.1.split_once('!'))
        .map(|(_, name)| name)
        .filter(|name| {
            !name.starts_with("<wasm function") && !MACHINERY.iter().any(|part| name.contains(part))
        })
        .take(MAX_FRAMES)
        .collect();
    if frames.is_empty() { None } else { Some(json!({ "backtrace": frames })) }
}

fn is_transient(payload: &Value) -> bool {
    case_name(payload).is_some_and(|case| name::same(case, "transient") || name::same(case, "retryable"))
}

fn case_name(payload: &Value) -> Option<&str> {
    match payload {
        Value::String(name) => Some(name),
        Value::Object(object) if object.len() == 1 => object.keys().next().map(String::as_str),
        _ => None,
    }
}

/// Returns the most telling text of a payload: a case's payload, a field `message`, or a case's name; otherwise all of
/// it.
fn message_of(payload: &Value) -> String {
    match payload {
        Value::String(text) => text.clone(),
        Value::Object(object) => match object.get("message") {
            Some(Value::String(text)) => text.clone(),
            _ => match (object.len(), object.iter().next()) {
                (1, Some((_, Value::String(text)))) => text.clone(),
                (1, Some((_, Value::Object(inner)))) => match inner.get("message") {
                    Some(Value::String(text)) => text.clone(),
                    _ => case_name(payload).unwrap_or_default().to_owned(),
                },
                (1, Some((case, _))) => case.clone(),
                _ => payload.to_string(),
            },
        },
        other => other.to_string(),
    }
}

fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    shortened(&line)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… (cut)", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_found_in_the_output() {
        let stderr = "starting\n\nthread '<unnamed>' (1) panicked at src/lib.rs:10:5:\nno such order\nnote: run with \
                      `RUST_BACKTRACE=1`\n";
        assert_eq!(panic_message(stderr).as_deref(), Some("panicked at src/lib.rs:10:5: no such order"));
        assert_eq!(panic_message("nothing of the kind"), None);
    }

    #[test]
    fn the_message_of_an_err_is_its_most_telling_text() {
        let variant = Type::Variant(vec![]);
        let case = |payload| of_err(Some(&variant), payload);
        assert_eq!(of_err(Some(&Type::String), json!("out of stock")).message, "out of stock");
        assert_eq!(of_err(Some(&Type::String), json!("out of stock")).detail, None);
        assert_eq!(case(json!({"declined": "card expired"})).message, "card expired");
        assert_eq!(case(json!({"declined": 7})).message, "declined");
        assert_eq!(case(json!("declined")).message, "declined");
        assert_eq!(case(json!("declined")).detail, Some(json!("declined")));
        assert_eq!(case(json!({"declined": {"message": "no", "code": 3}})).message, "no");
        assert_eq!(of_err(None, Value::Null).message, "the function answered `err`");
        assert_eq!(of_err(Some(&Type::U8), json!(7)).message, "7");
    }

    #[test]
    fn only_a_case_named_transient_or_retryable_is_retried() {
        let variant = Type::Variant(vec![]);
        for payload in [json!({"transient": "busy"}), json!("retryable")] {
            assert_eq!(of_err(Some(&variant), payload).code, FailureCode::TransientError);
        }
        assert_eq!(of_err(Some(&variant), json!({"permanent": "no"})).code, FailureCode::Error);
        assert_eq!(of_err(Some(&Type::String), json!("transient")).code, FailureCode::Error);
    }
}
