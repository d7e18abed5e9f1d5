//! A corpus of hostile components, with the message that each author gets and the outcome for the host. Each component
//! fails its own call and nothing else. Most are a few lines of WebAssembly text, and the others are functions of the
//! guests `hostile` and `escape`.

use std::fmt::Write as _;

use serde_json::json;

use super::*;

/// The outcome of a hostile call.
#[derive(Clone, Copy)]
enum Fate {
    /// The call fails with the code, and the message contains this.
    Fails(FailureCode, &'static str),
    /// The upload is refused with a message that contains this.
    Refused(&'static str),
    /// The call does no harm, and answers this as JSON.
    Answers(&'static str),
}

use FailureCode::{OutOfFuel, OutOfMemory, Timeout, Trap, Type};
use Fate::{Answers, Fails, Refused};

/// A core module in a component that exports its function `f`.
struct Wat {
    core: String,
    /// The component types that the signature names.
    types: &'static str,
    signature: &'static str,
    options: &'static str,
}

/// One page of memory, and an allocator that always returns the same address.
const MEMORY: &str = r#"(memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))"#;
const WITH_MEMORY: &str = r#"(memory $i "memory") (realloc (func $i "realloc"))"#;

/// A function without memory.
fn plain(signature: &'static str, core: &str) -> Wat {
    Wat { core: core.to_owned(), types: "", signature, options: "" }
}

/// A function with memory. It gets an allocator unless `core` has one.
fn with_memory(signature: &'static str, core: &str) -> Wat {
    let memory = if core.contains("(memory (") { "" } else { MEMORY };
    Wat { core: format!("{memory} {core}"), types: "", signature, options: WITH_MEMORY }
}

/// A function whose answer is at address 16, where these numbers are.
fn answering(signature: &'static str, numbers: &[u32]) -> Wat {
    with_memory(
        signature,
        &format!(r#"(func (export "f") (result i32) (i32.const 16)) {}"#, data(16, numbers)),
    )
}

fn data(at: u32, numbers: &[u32]) -> String {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    let text = bytes.fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").expect("writing to a `String` can't fail");
        text
    });
    format!(r#"(data (i32.const {at}) "{text}")"#)
}

/// A function with this many pages of zeros as memory, whose answer is at address 16.
fn vast(signature: &'static str, pages: u32, numbers: &[u32]) -> Wat {
    let core = format!(
        r#"(memory (export "memory") {pages})
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (func (export "f") (result i32) (i32.const 16)) {}"#,
        data(16, numbers)
    );
    with_memory(signature, &core)
}

/// A function that imports the context of its call as `attempt`.
fn importing(signature: &str, core: &str, options: &str) -> String {
    format!(
        r#"(component
        (import "aster:step/context@0.1.0" (instance $context (export "attempt" (func (result u32)))))
        (core func $attempt (canon lower (func $context "attempt")))
        (core instance $env (export "attempt" (func $attempt)))
        (core module $m (import "env" "attempt" (func $attempt (result i32))) {core})
        (core instance $i (instantiate $m (with "env" (instance $env))))
        (func (export "f") {signature} (canon lift (core func $i "f") {options})))"#
    )
}

/// A function that uses the bucket with the handle 1,234, which it never opened.
const FORGED_HANDLE: &str = r#"(component
    (import "wasi:keyvalue/store@0.2.0-draft" (instance $store
        (type $error (variant (case "no-such-store") (case "access-denied") (case "other" string)))
        (export "error" (type $e (eq $error)))
        (export "bucket" (type $bucket (sub resource)))
        (export "[method]bucket.exists"
            (func (param "self" (borrow $bucket)) (param "key" string) (result (result bool (error $e)))))))
    (core module $libc
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
    (core instance $libc (instantiate $libc))
    (core func $exists (canon lower (func $store "[method]bucket.exists")
        (memory $libc "memory") (realloc (func $libc "realloc"))))
    (core instance $env (export "exists" (func $exists)))
    (core module $m (import "env" "exists" (func $exists (param i32 i32 i32 i32)))
        (func (export "f") (call $exists (i32.const 1234) (i32.const 0) (i32.const 1) (i32.const 64))))
    (core instance $i (instantiate $m (with "env" (instance $env))))
    (func (export "f") (canon lift (core func $i "f"))))"#;

impl Wat {
    fn text(&self) -> String {
        let Self { core, types, signature, options } = self;
        format!(
            r#"(component (core module $m {core}) (core instance $i (instantiate $m)) {types}
            (func (export "f") {signature} (canon lift (core func $i "f") {options})))"#
        )
    }
}

/// A function with one page of memory and its own allocator.
fn allocating(realloc: &str) -> Wat {
    let core = format!(
        r#"(memory (export "memory") 1)
        (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc})
        (func (export "f") (param i32 i32))"#
    );
    with_memory(r#"(param "text" string)"#, &core)
}

fn post_return(body: &str) -> Wat {
    let core = format!(
        r#"(func (export "f") (result i32) (i32.const 7)) (func (export "post") (param i32) {body})"#
    );
    Wat { options: r#"(post-return (func $i "post"))"#, ..plain("(result u32)", &core) }
}

const DO: &str = "";
const SPIN: &str = "(loop $l (br $l))";

/// Functions in WebAssembly text, each with its outcome.
fn texts() -> Vec<(&'static str, String, Fate)> {
    let does = |body: &str| plain(DO, &format!(r#"(func (export "f") {body})"#));
    let touches = |body: &str| with_memory(DO, &format!(r#"(func (export "f") {body})"#));
    let calls = |table: &str, index: u32| {
        plain(
            DO,
            &format!(
                r#"(type $t (func)) (table 4 funcref) (func $other (result i32) (i32.const 1)) {table}
                (func (export "f") (call_indirect (type $t) (i32.const {index})))"#
            ),
        )
    };
    let named = |types, wat: Wat| Wat { types, ..wat };
    let number = |signature, body: &str| {
        let core_type = if signature == "(result f64)" { "f64" } else { "i32" };
        plain(signature, &format!(r#"(func (export "f") (result {core_type}) {body})"#))
    };
    let wats = [
        // Traps.
        ("unreachable", does("unreachable"), Fails(Trap, "the guest aborted (`unreachable`)")),
        (
            "division by zero",
            does("(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
            Fails(Trap, "integer divide by zero"),
        ),
        (
            "integer overflow",
            does("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"),
            Fails(Trap, "integer overflow"),
        ),
        (
            "conversion of NaN",
            does("(drop (i32.trunc_f32_s (f32.const nan)))"),
            Fails(Trap, "invalid conversion to integer"),
        ),
        (
            "load out of bounds",
            touches("(drop (i32.load (i32.const -1)))"),
            Fails(Trap, "memory access out of bounds"),
        ),
        (
            "store out of bounds",
            touches("(i64.store (i32.const 65535) (i64.const 1))"),
            Fails(Trap, "memory access out of bounds"),
        ),
        (
            "fill out of bounds",
            touches("(memory.fill (i32.const 0) (i32.const 1) (i32.const 65537))"),
            Fails(Trap, "memory access out of bounds"),
        ),
        (
            "copy out of bounds",
            touches("(memory.copy (i32.const 1) (i32.const 0) (i32.const 65536))"),
            Fails(Trap, "memory access out of bounds"),
        ),
        ("call of an empty element", calls("", 1), Fails(Trap, "uninitialized element")),
        ("call beyond the table", calls("", 4), Fails(Trap, "undefined element")),
        (
            "call of another type",
            calls("(elem (i32.const 0) $other)", 0),
            Fails(Trap, "indirect call type mismatch"),
        ),
        // Endless computations.
        ("endless loop", does(SPIN), Fails(OutOfFuel, "the guest used up its fuel")),
        (
            "endless recursion",
            plain(DO, r#"(func $f (export "f") (call $f) (call $f))"#),
            Fails(Trap, "the call stack is exhausted"),
        ),
        (
            "endless fills",
            touches("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))"),
            Fails(OutOfFuel, "the guest used up its fuel"),
        ),
        // Memory and tables.
        (
            "memory without end",
            touches("(loop $l (drop (memory.grow (i32.const 16))) (br $l))"),
            Fails(OutOfMemory, "more than the limit of 64 MiB"),
        ),
        (
            "memory beyond its own maximum",
            with_memory(
                "(result s32)",
                r#"(memory (export "memory") 1 2)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "f") (result i32) (memory.grow (i32.const 9)))"#,
            ),
            Answers("-1"),
        ),
        (
            "a table without end",
            plain(
                "(result s32)",
                r#"(table $t 1 funcref)
                (func (export "f") (result i32)
                    (loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
                    (i32.const -1))"#,
            ),
            Answers("-1"),
        ),
        (
            "4 GiB of memory at the start",
            with_memory(
                DO,
                r#"(memory (export "memory") 65536)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable) (func (export "f"))"#,
            ),
            Refused("needs 4096 MiB of memory"),
        ),
        (
            "nothing but a start that spins",
            plain(DO, &format!(r#"(func $s {SPIN}) (start $s) (func (export "f"))"#)),
            Refused("doesn't start"),
        ),
        (
            "nothing but a start that traps",
            plain(DO, r#"(func $s unreachable) (start $s) (func (export "f"))"#),
            Refused("doesn't start"),
        ),
        // Wrong addresses and types of answers.
        (
            "a text beyond the memory",
            answering("(result string)", &[65_530, 100]),
            Fails(Trap, "string pointer/length out of bounds of memory"),
        ),
        (
            "a text of 4 GiB",
            answering("(result string)", &[1, u32::MAX]),
            Fails(Trap, "string pointer/length out of bounds of memory"),
        ),
        (
            "a list beyond the memory",
            answering("(result (list u64))", &[0, 0x2000_0001]),
            Fails(Trap, "list pointer/length out of bounds of memory"),
        ),
        (
            "a misaligned list",
            answering("(result (list u64))", &[3, 1]),
            Fails(Trap, "list pointer is not aligned"),
        ),
        (
            "a misaligned answer",
            with_memory("(result string)", r#"(func (export "f") (result i32) (i32.const 17))"#),
            Fails(Trap, "return pointer not aligned"),
        ),
        (
            "an answer beyond the memory",
            with_memory("(result string)", r#"(func (export "f") (result i32) (i32.const 65532))"#),
            Fails(Trap, "pointer out of bounds of memory"),
        ),
        (
            "a text that isn't UTF-8",
            answering("(result string)", &[24, 4, 0xfffe_41ff]),
            Fails(Trap, "invalid utf-8"),
        ),
        (
            "half a character of UTF-8",
            answering("(result string)", &[24, 1, 0xc3]),
            Fails(Trap, "incomplete utf-8"),
        ),
        (
            "a text with NUL",
            answering("(result string)", &[24, 3, 0x0041_0041]),
            Fails(Type, "result: a text must not contain NUL"),
        ),
        ("half a surrogate pair", number("(result char)", "(i32.const 0xd800)"), Fails(Trap, "char")),
        ("no character at all", number("(result char)", "(i32.const 0x110000)"), Fails(Trap, "char")),
        ("a truth value of 7", number("(result bool)", "(i32.const 7)"), Answers("true")),
        ("a byte of 511", number("(result u8)", "(i32.const 511)"), Answers("255")),
        (
            "NaN",
            number("(result f64)", "(f64.const nan:0x4)"),
            Fails(Type, "result: NaN is not a JSON number"),
        ),
        (
            "infinity",
            number("(result f64)", "(f64.const -inf)"),
            Fails(Type, "result: -inf is not a JSON number"),
        ),
        (
            "an unknown case of an enum",
            named(
                r#"(type $e (enum "one" "two")) (export $n "e" (type $e))"#,
                number("(result $n)", "(i32.const 9)"),
            ),
            Fails(Trap, "discriminant 9 out of range"),
        ),
        (
            "an unknown case of an option",
            answering("(result (option u32))", &[2, 1]),
            Fails(Trap, "discriminant 2 out of range"),
        ),
        (
            "an unknown case of a result",
            answering("(result (result u32 (error u32)))", &[77, 1]),
            Fails(Trap, "discriminant 77 out of range"),
        ),
        (
            "unknown flags",
            named(
                r#"(type $e (flags "one" "two")) (export $n "e" (type $e))"#,
                number("(result $n)", "(i32.const 0xff)"),
            ),
            Answers(r#"["one","two"]"#),
        ),
        // Large values, and values that repeat.
        (
            "1.4 million truth values",
            vast("(result (list bool))", 32, &[4096, 1_400_000]),
            Fails(Type, "more than 100000 parts"),
        ),
        (
            "100,001 numbers",
            vast("(result (list u32))", 32, &[4096, 100_001]),
            Fails(Type, ": the value has more than 100000 parts"),
        ),
        (
            "the same long text twice",
            with_memory(
                "(result (list string))",
                &format!(
                    r#"(memory (export "memory") 32)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                    (func (export "f") (result i32)
                        (memory.fill (i32.const 4096) (i32.const 120) (i32.const 1000000)) (i32.const 16)) {}"#,
                    data(16, &[24, 2, 4096, 1_000_000, 4096, 1_000_000])
                ),
            ),
            Fails(Type, "result[1]: the value is larger than 1 MiB"),
        ),
        (
            "a hundred texts of 1 MB in one place",
            vast(
                "(result (list string))",
                32,
                &[24, 100].into_iter().chain([4096, 1_000_000].repeat(100)).collect::<Vec<_>>(),
            ),
            Fails(Type, "the guest handed over a value that is larger than 1 MiB"),
        ),
        (
            "20 MiB of bytes",
            vast("(result (list u8))", 400, &[4096, 20 << 20]),
            Fails(Type, "the guest handed over a value that is larger than 1 MiB"),
        ),
        (
            "20 MiB of text",
            vast("(result string)", 400, &[4096, 20 << 20]),
            Fails(Type, "the guest handed over a value that is larger than 1 MiB"),
        ),
        // Allocators that misbehave.
        (
            "an allocator beyond the memory",
            allocating("(i32.const -8)"),
            Fails(Trap, "realloc return: beyond end of memory"),
        ),
        (
            "an allocator that gives up",
            allocating("unreachable"),
            Fails(Trap, "the guest aborted (`unreachable`)"),
        ),
        (
            "an allocator that spins",
            allocating(&format!("{SPIN} unreachable")),
            Fails(OutOfFuel, "the guest used up its fuel"),
        ),
        (
            "an allocator that takes all memory",
            allocating("(loop $l (drop (memory.grow (i32.const 16))) (br $l)) unreachable"),
            Fails(OutOfMemory, "more than the limit of 64 MiB"),
        ),
        (
            "an allocator without end",
            allocating("(call $realloc (local.get 0) (local.get 1) (local.get 2) (local.get 3))"),
            Fails(Trap, "the call stack is exhausted"),
        ),
        (
            "a misaligned allocator",
            Wat { signature: r#"(param "numbers" (list u64))"#, ..allocating("(i32.const 4097)") },
            Fails(Trap, "realloc return: result not aligned"),
        ),
        // Clean-ups that fail.
        (
            "a clean-up that gives up",
            post_return("unreachable"),
            Fails(Trap, "the guest aborted (`unreachable`)"),
        ),
        ("a clean-up that spins", post_return(SPIN), Fails(OutOfFuel, "the guest used up its fuel")),
    ];
    let mut texts: Vec<_> = wats.into_iter().map(|(name, wat, fate)| (name, wat.text(), fate)).collect();
    // Calls back into the host at the wrong time.
    texts.push((
        "a clean-up that asks the host",
        importing(
            "(result u32)",
            r#"(func (export "f") (result i32) (i32.const 7)) (func (export "post") (param i32) (drop (call $attempt)))"#,
            r#"(post-return (func $i "post"))"#,
        ),
        Fails(Trap, "cannot leave component instance"),
    ));
    texts.push((
        "an allocator that asks the host",
        importing(
            r#"(param "text" string)"#,
            r#"(memory (export "memory") 1) (func (export "f") (param i32 i32))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (drop (call $attempt)) (i32.const 4096))"#,
            WITH_MEMORY,
        ),
        Fails(Trap, "cannot leave component instance"),
    ));
    texts.push((
        "a start that asks the host",
        importing("", r#"(func $s (drop (call $attempt))) (start $s) (func (export "f"))"#, ""),
        Answers("null"),
    ));
    texts.push(("a forged handle", FORGED_HANDLE.to_owned(), Fails(Trap, "unknown handle index 1234")));
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_components_fail_only_themselves_with_a_reason() {
    let mut wrong = String::new();
    for (name, text, fate) in texts() {
        let bytes = wat::parse_str(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        let told = match SANDBOX.compile(Behalf::Host, bytes.into()).await {
            Err(error) => format!("refused: {error}"),
            Ok(loaded) => {
                let guest = Guest { fuel: 20_000_000, ..Guest::of(&SANDBOX, loaded) };
                let args: &[Value] = match guest.loaded.function(guest.loaded.find(None, "f").expect(name)) {
                    f if f.params.is_empty() => &[],
                    f if f.params[0].name == "numbers" => &[json!([1, 2])],
                    _ => &[json!("some text")],
                };
                told_of(&guest, "f", args).await
            }
        };
        judge(name, fate, &told, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Functions of the built guests, each with its outcome.
fn built() -> Vec<(&'static str, &'static str, Vec<Value>, Fate)> {
    let (hostile, escape) = ("hostile", "escape");
    vec![
        (hostile, "panic", vec![json!("no such order")], Fails(Trap, "no such order")),
        (hostile, "writeThenPanic", vec![json!("k")], Fails(Trap, "after the write")),
        (hostile, "exit", vec![json!(3)], Fails(Trap, "the guest exited with status")),
        (hostile, "exit", vec![json!(0)], Fails(Trap, "the guest exited with status 0")),
        (hostile, "recurse", vec![json!(u32::MAX)], Fails(Trap, "stack")),
        (hostile, "eatMemory", vec![json!(1_u64 << 40)], Fails(OutOfMemory, "more than the limit of 64 MiB")),
        (hostile, "fill", vec![json!(u32::MAX)], Fails(Trap, "")),
        (hostile, "spin", vec![], Fails(OutOfFuel, "the guest used up its fuel")),
        (hostile, "print", vec![json!(u32::MAX)], Fails(OutOfFuel, "the guest used up its fuel")),
        (hostile, "sleep", vec![json!(u64::MAX)], Fails(Timeout, "interrupted after 3")),
        (hostile, "hugeError", vec![json!(2 << 20)], Fails(Type, "larger than 1 MiB")),
        (hostile, "nulError", vec![], Fails(Type, "must not contain NUL")),
        (hostile, "setNulKey", vec![], Fails(FailureCode::Error, "a key must not contain NUL")),
        (hostile, "setLongKey", vec![json!(0)], Fails(FailureCode::Error, "a key must not be empty")),
        (
            hostile,
            "setLongKey",
            vec![json!(1 << 20)],
            Fails(FailureCode::Error, "a key may have at most 512 bytes"),
        ),
        (
            hostile,
            "setLongValue",
            vec![json!(2 << 20)],
            Fails(FailureCode::Error, "a value may have at most 1048576 bytes"),
        ),
        (
            hostile,
            "setLongValue",
            vec![json!(30 << 20)],
            Fails(Type, "the guest handed over a value that is larger than 1 MiB"),
        ),
        (hostile, "setManyKeys", vec![json!(20_000)], Fails(FailureCode::Error, "at most 10000 keys")),
        (hostile, "openMany", vec![json!(20_000)], Fails(Trap, "")),
        (escape, "readFile", vec![json!("/etc/passwd")], Fails(FailureCode::Error, "No such file")),
        (escape, "writeFile", vec![json!("/tmp/x")], Fails(FailureCode::Error, "No such file")),
        (escape, "connect", vec![json!("127.0.0.1:80")], Fails(FailureCode::Error, "")),
        (escape, "listen", vec![json!("127.0.0.1:0")], Fails(FailureCode::Error, "")),
        (escape, "resolve", vec![json!("localhost")], Fails(FailureCode::Error, "")),
        (escape, "environment", vec![], Answers("[]")),
        (escape, "arguments", vec![], Answers("[]")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_programs_fail_only_themselves_with_a_reason() {
    let mut wrong = String::new();
    for (component, function, args, fate) in built() {
        let mut guest = Guest::new(component).await;
        guest.fuel = 100_000_000;
        if matches!(fate, Fails(Timeout, _)) {
            guest.time = Duration::from_millis(300);
        }
        let told = told_of(&guest, function, &args).await;
        judge(&format!("{component}.{function}({args:?})"), fate, &told, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Calls the function, and returns what its author and the operator see. Another guest must still work afterwards.
async fn told_of(guest: &Guest, function: &str, args: &[Value]) -> String {
    let report = guest.call(function, args).await;
    assert!(report.fuel_used <= guest.fuel, "{report:?}");
    for text in [&report.output.stdout, &report.output.stderr] {
        assert!(text.len() < 9_000 && !text.contains('\0'), "{function} printed {} bytes", text.len());
    }
    match report.outcome {
        Ok(value) => format!("answers: {value}"),
        Err(failure) => {
            assert!(failure.message.len() < 4_100 && !failure.message.contains(['\0', '\n']), "{failure:?}");
            format!("{:?}: {}", failure.code, failure.message)
        }
    }
}

fn judge(name: &str, fate: Fate, told: &str, wrong: &mut String) {
    let fits = match fate {
        Fails(code, says) => {
            told.strip_prefix(&format!("{code:?}: ")).is_some_and(|told| told.contains(says))
        }
        Refused(says) => told.strip_prefix("refused: ").is_some_and(|told| told.contains(says)),
        Answers(value) => told == format!("answers: {value}"),
    };
    if !fits {
        writeln!(wrong, "{name}: {told}").expect("writing to a `String` can't fail");
    }
}
