//! Hostile and broken uploads, each with the message that its author gets.

use super::*;

/// The outcome of an upload.
enum Expected {
    /// The upload is refused with a message that contains this.
    Refused(&'static str),
    /// The upload is accepted, and its warnings contain this.
    TakenWith(&'static str),
    Taken,
}

use Expected::{Refused, Taken, TakenWith};

async fn check(kind: &str, bytes: Bytes, expected: Expected) -> Result<(), String> {
    let began = Instant::now();
    let loaded = SANDBOX.compile(Behalf::Host, bytes).await;
    // Other tests may use the machine at the same time; an upload alone takes milliseconds.
    if began.elapsed() > Duration::from_secs(30) {
        return Err(format!("{kind}: took {:?}", began.elapsed()));
    }
    match (loaded, expected) {
        (Err(error), Refused(words)) => {
            let said = error.to_string();
            let is_short = said.len() < 2_000 && !said.contains('\n');
            if said.contains(words) && is_short { Ok(()) } else { Err(format!("{kind}: {said}")) }
        }
        (Ok(loaded), TakenWith(words)) => {
            let is_said = loaded.warnings().iter().any(|said| said.contains(words));
            if is_said { Ok(()) } else { Err(format!("{kind}: {:?}", loaded.warnings())) }
        }
        (Ok(_), Taken) => Ok(()),
        (Ok(_), Refused(words)) => Err(format!("{kind}: taken, expected `{words}`")),
        (Err(error), _) => Err(format!("{kind}: {error}")),
    }
}

/// Checks all cases, and reports all failures at once.
async fn check_all(cases: impl IntoIterator<Item = (&'static str, Bytes, Expected)>) {
    let mut wrong = Vec::new();
    for (kind, bytes, expected) in cases {
        wrong.extend(check(kind, bytes, expected).await.err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A component with one core module of this text, which is instantiated.
fn with_module(text: &str) -> Bytes {
    wat(&format!("(component (core module $m {text}) (core instance (instantiate $m)))"))
}

fn repeated(n: usize, text: impl Fn(usize) -> String) -> String {
    (0..n).map(text).collect()
}

/// Unsigned LEB128.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

const COMPONENT_HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [&[id], leb(contents.len()).as_slice(), contents].concat()
}

fn of_sections(sections: &[Vec<u8>]) -> Bytes {
    [COMPONENT_HEADER, &sections.concat()].concat().into()
}

/// Empty components, each within the one before.
fn nested_components(levels: usize) -> Bytes {
    // Only the sizes are computed from the inside out, so that the time isn't quadratic.
    let mut sizes = vec![COMPONENT_HEADER.len()];
    for _ in 0..levels {
        let inner = sizes[sizes.len() - 1];
        sizes.push(COMPONENT_HEADER.len() + 1 + leb(inner).len() + inner);
    }
    let mut bytes = Vec::new();
    for inner in sizes.iter().rev().skip(1) {
        bytes.extend_from_slice(COMPONENT_HEADER);
        bytes.push(4);
        bytes.extend(leb(*inner));
    }
    bytes.extend_from_slice(COMPONENT_HEADER);
    bytes.into()
}

/// A component with `locals` locals that are all used within `loops` loops, each within the one before.
fn carried(loops: usize, locals: usize) -> Bytes {
    with_module(&format!(
        "(func (export \"f\") (local {}) {} {} {})",
        "i64 ".repeat(locals),
        repeated(loops, |n| format!("loop $l{n} ")),
        repeated(locals, |n| format!("(local.set {n} (i64.add (local.get {n}) (i64.const 1))) ")),
        repeated(loops, |n| format!("(br_if $l{} (i32.wrap_i64 (local.get 0))) end ", loops - 1 - n)),
    ))
}

#[tokio::test]
async fn the_refusal_of_bytes_that_are_no_component_says_what_they_are() {
    check_all([
        ("nothing", Bytes::new(), Refused("it is empty")),
        ("text", b"hello there".as_slice().into(), Refused("doesn't begin with `\\0asm`")),
        ("a component's text", b"(component)".as_slice().into(), Refused("`wasm-tools parse` makes binary")),
        ("gzip", b"\x1f\x8b\x08\0\0\0".as_slice().into(), Refused("it is gzipped")),
        ("a core module", b"\0asm\x01\0\0\0".as_slice().into(), Refused("core WebAssembly module")),
        ("half a header", b"\0as".as_slice().into(), Refused("cut off")),
        ("another layer", b"\0asm\x0d\0\x02\0".as_slice().into(), Refused("unknown binary version")),
        ("a future version", b"\0asm\x0e\0\x01\0".as_slice().into(), Refused("unknown binary version")),
        (
            "an unknown section",
            of_sections(&[section(99, b"")]),
            Refused("no known section begins at byte 8"),
        ),
        (
            "rubbish at the end",
            [component("greeter-v1").as_ref(), b"\xff\xff rubbish"].concat().into(),
            Refused("no known section begins"),
        ),
        (
            "a section that lacks its end",
            of_sections(&[[vec![0], leb(500), b"\x01x".to_vec()].concat()]),
            Refused(
                "cut off or damaged: a part of it should continue to byte 511, but the file ends at byte 13",
            ),
        ),
        (
            "a module that is longer than its place",
            of_sections(&[
                section(1, b"\0asm\x01\0\0\0\x0a\x7f"),
                section(0, &[b"\x01x".as_slice(), &[0; 200]].concat()),
            ]),
            Refused("not a valid component"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn extreme_nesting_and_counts_are_refused_at_once() {
    // Each level takes 3 bytes.
    let types_in_types = [leb(1), b"\x42\x01\x01".repeat(1_000_000)].concat();
    let many = |n: usize, text: &str| text.repeat(n);
    check_all([
        ("32 components within each other", nested_components(32), Taken),
        (
            "10,000 components within each other",
            nested_components(10_000),
            Refused("more than 32 levels deep"),
        ),
        (
            "a million types within each other",
            of_sections(&[section(7, &types_in_types)]),
            Refused("types are nested"),
        ),
        (
            "types",
            of_sections(&[section(7, &[leb(100_001), many(100_001, "\x7f").into_bytes()].concat())]),
            Refused("more than 100,000 types"),
        ),
        (
            "types of a module",
            with_module(&repeated(100_001, |_| "(type (func))".into())),
            Refused("more than 100,000 types"),
        ),
        (
            "imports",
            with_module(&repeated(100_001, |n| format!("(import \"\" \"{n}\" (global i32))"))),
            Refused("more than 100,000 imports"),
        ),
        (
            "exports",
            with_module(&format!(
                "(func $f) {}",
                repeated(100_001, |n| format!("(export \"{n}\" (func $f))"))
            )),
            Refused("more than 100,000 exports"),
        ),
        ("functions", with_module(&many(200_001, "(func)")), Refused("more than 200,000 functions")),
        (
            "modules",
            wat(&format!("(component {})", many(1_001, "(core module)"))),
            Refused("more than 1,000 modules"),
        ),
        (
            "instances of modules",
            wat(&format!("(component (core module $m) {})", many(65, "(core instance (instantiate $m))"))),
            Refused("more than 64 instances of core modules"),
        ),
        (
            "64 instances of modules",
            wat(&format!("(component (core module $m) {})", many(64, "(core instance (instantiate $m))"))),
            Taken,
        ),
    ])
    .await;
}

#[tokio::test]
async fn components_that_multiply_when_instantiated_are_refused() {
    let twice = |inner: &str| format!("(instance (instantiate ${inner})) (instance (instantiate ${inner}))");
    // Each level makes two of the one before, which comes to a billion.
    let laughs = repeated(30, |n| match n {
        0 => "(component $c0 (core module $m) (core instance (instantiate $m)))".into(),
        n => {
            let before = format!("c{}", n - 1);
            format!("(component $c{n} (alias outer 1 ${before} (component ${before})) {})", twice(&before))
        }
    });
    check_all([
        (
            "by an alias of the outer one",
            wat(&format!("(component {laughs} (instance (instantiate $c29)))")),
            Refused("more than 64 instances of core modules"),
        ),
        (
            "by an export",
            wat(&format!(
                "(component {} (component $box (alias outer 1 $big (component $b)) (export \"big\" (component $b)))
                    (instance $i (instantiate $box)) (alias export $i \"big\" (component $again)) {})",
                format_args!(
                    "(component $big (core module $m) {})",
                    "(core instance (instantiate $m))".repeat(40)
                ),
                twice("again"),
            )),
            Refused("doesn't have: instances of components that a component imports, or takes out of an instance"),
        ),
        (
            "by one that is given",
            wat(&format!(
                "(component (component $twice (import \"given\" (component $given)) {})
                    (component $big (core module $m) {})
                    (instance (instantiate $twice (with \"given\" (component $big)))))",
                twice("given"),
                "(core instance (instantiate $m))".repeat(40),
            )),
            Refused("doesn't have: instances of components that a component imports, or takes out of an instance"),
        ),
        (
            "without any module",
            wat(&format!("(component {} (instance (instantiate $c11)))", laughs
                .replace("(core module $m) (core instance (instantiate $m))", ""))),
            Refused("more than 1,000 instances of components"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn functions_that_would_take_the_compiler_minutes_are_refused_at_once() {
    let body = |instructions: &str| with_module(&format!("(func $f {instructions})"));
    check_all([
        (
            "400 loops within each other, with 4,000 locals",
            carried(400, 4_000),
            Refused("function 0 of its code has more than 100,000 locals that are carried through loops"),
        ),
        ("a million calls", body(&"call 0 ".repeat(1_000_000)), Refused("more than 50,000 calls")),
        ("5 MiB of instructions", body(&"nop ".repeat(5 << 20)), Refused("more than 4 MiB of instructions")),
        ("100 loops with 40 locals", carried(100, 40), Taken),
        (
            "50,001 locals",
            body(&format!("(local {})", "i32 ".repeat(50_001))),
            Refused("not a valid component"),
        ),
        (
            "1,001 parameters",
            body(&format!("(param {})", "i32 ".repeat(1_001))),
            Refused("not a valid component"),
        ),
        (
            "20,000 blocks within each other",
            body(&format!("{}{}", "block ".repeat(20_000), "end ".repeat(20_000))),
            Taken,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_component_that_does_not_fit_into_the_sandbox_is_refused() {
    check_all([
        ("4 GiB of memory at once", with_module("(memory 65536)"), Refused("doesn't fit into the sandbox")),
        ("nine memories", with_module(&"(memory 1)".repeat(9)), Refused("doesn't fit into the sandbox")),
        (
            "a table of ten million",
            with_module("(table 10000000 funcref)"),
            Refused("doesn't fit into the sandbox"),
        ),
        ("17 tables", with_module(&"(table 1 funcref)".repeat(17)), Refused("doesn't fit into the sandbox")),
    ])
    .await;
}

#[tokio::test]
async fn a_component_that_does_not_start_is_refused() {
    let start =
        |body: &str| with_module(&format!("(memory 1) (table 1 funcref) (func $f {body}) (start $f)"));
    check_all([
        ("a trap", start("unreachable"), Refused("doesn't start: wasm trap: wasm `unreachable`")),
        ("an endless loop", start("(loop $l br $l)"), Refused("doesn't start: wasm trap: all fuel consumed")),
        ("endless recursion", start("call $f"), Refused("doesn't start: wasm trap: call stack exhausted")),
        (
            "data beyond its memory",
            with_module("(memory 1) (data (i32.const 65535) \"ab\")"),
            Refused("doesn't start"),
        ),
        (
            "elements beyond its table",
            with_module("(table 1 funcref) (func $f) (elem (i32.const 1) func $f)"),
            Refused("doesn't start"),
        ),
        (
            "growing without end",
            start("(loop $l (drop (memory.grow (i32.const 1000))) br $l)"),
            Refused("more than the limit of 1024 MiB"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn parts_of_webassembly_that_are_off_are_named() {
    check_all([
        ("shared memory", with_module("(memory 1 1 shared)"), Refused("doesn't have: threads")),
        ("exceptions", with_module("(tag) (func throw 0)"), Refused("doesn't have: exceptions")),
        ("garbage collection", with_module("(type (struct))"), Refused("this host doesn't have")),
        (
            "a value import",
            wat("(component (import \"a\" (value string)))"),
            Refused("this host doesn't have"),
        ),
        ("a list of fixed length", wat("(component (type (list u8 4)))"), Refused("this host doesn't have")),
        ("error contexts", wat("(component (type (list error-context)))"), Refused("this host doesn't have")),
    ])
    .await;
}

#[tokio::test]
async fn the_refusal_of_asynchronous_components_says_how_to_build_them() {
    let words = "`componentize-qjs` does so with `--sync`";
    check_all([
        ("a stream", wat("(component (type (stream u8)))"), Refused("it has streams")),
        ("a future", wat("(component (type (future)))"), Refused("it has futures")),
        ("an async function", wat("(component (import \"f\" (func async)))"), Refused("it has `async` functions")),
        (
            "a stream in an interface that it imports",
            wat("(component (import \"a:b/c\" (instance (type $s (stream u8)) (export \"f\" (func (result $s))))))"),
            Refused("it has streams"),
        ),
        ("a task", wat("(component (core func (canon task.cancel)))"), Refused("it has tasks")),
        ("a task", wat("(component (core func (canon task.cancel)))"), Refused(words)),
        (
            "an async lift",
            wat(
                "(component (core module $m (func (export \"f\") (result i32) unreachable)
                        (func (export \"c\") (param i32 i32 i32) (result i32) unreachable))
                    (core instance $i (instantiate $m))
                    (func (export \"f\") (canon lift (core func $i \"f\") async (callback (func $i \"c\")))))",
            ),
            Refused("it has asynchronous calls"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn imports_that_the_host_does_not_offer_are_named() {
    check_all([
        (
            "an interface",
            wat("(component (import \"acme:secret/vault@1.0.0\" (instance (export \"open\" (func)))))"),
            Refused("imports `acme:secret/vault@1.0.0`, which this host doesn't offer; it offers "),
        ),
        ("a function", wat("(component (import \"launch\" (func)))"), Refused("imports `launch`")),
        (
            "a component",
            wat("(component (import \"helper\" (component)))"),
            Refused("doesn't have: root-level component imports"),
        ),
        (
            "a function of an offered interface that isn't there",
            wat("(component (import \"aster:step/context@0.1.0\" (instance (export \"root-password\" (func (result string))))))"),
            Refused("in a form that this host doesn't offer: "),
        ),
        (
            "a function of an offered interface with other types",
            wat("(component (import \"aster:step/context@0.1.0\" (instance (export \"idempotency-key\" (func (result u8))))))"),
            Refused("expected `string` found `u8`"),
        ),
        (
            "an interface of types alone, which needs nobody",
            wat("(component (import \"acme:shop/types\" (instance (type $t u32) (export \"id\" (type (eq $t))))))"),
            Taken,
        ),
    ])
    .await;
}

#[tokio::test]
async fn exports_that_cannot_be_called_cause_warnings_only() {
    check_all([
        ("a type at the top level", wat("(component (type $t (record (field \"a\" u8))) (export \"t\" (type $t)))"), Taken),
        (
            "a resource in a signature",
            wat(
                "(component (type $r (resource (rep i32))) (export $R \"r\" (type $r))
                    (core module $m (func (export \"f\") (param i32)))
                    (core instance $i (instantiate $m))
                    (func (export \"f\") (param \"r\" (own $R)) (canon lift (core func $i \"f\"))))",
            ),
            TakenWith("`f` can't be called: a resource in its signature has no JSON"),
        ),
        (
            "an instance within an instance",
            wat("(component (instance $a) (instance $b (export \"inner\" (instance $a))) (export \"acme:a/outer\" (instance $b)))"),
            TakenWith("nothing of `acme:a/outer.inner` can be called: it is an instance within an instance"),
        ),
        (
            "a component",
            wat("(component (component $c) (export \"c\" (component $c)))"),
            Refused("doesn't have: exporting a component from the root component"),
        ),
        (
            "a core module",
            wat("(component (core module $m) (export \"m\" (core module $m)))"),
            TakenWith("nothing of `m` can be called: it is a core module"),
        ),
        ("nothing at all", of_sections(&[]), Taken),
    ])
    .await;
}

#[tokio::test]
async fn types_that_double_with_each_level_are_refused() {
    let doubling = |levels: usize| {
        repeated(levels, |n| match n {
            0 => "(type $t0 (tuple u8 u8))".into(),
            n => format!("(type $t{n} (tuple $t{0} $t{0}))", n - 1),
        })
    };
    let exported = wat(&format!("(component {} (export \"bomb\" (type $t17)))", doubling(18)));
    let imported = wat(&format!(
        "(component (import \"a:b/c\" (instance {} (export \"bomb\" (type (eq $t17))))))",
        doubling(18)
    ));
    check_all([
        ("in an export", exported, Refused("written out, its types have more than 10000 parts")),
        ("in an import", imported, Refused("written out, its types have more than 50000 parts")),
        (
            "beyond WebAssembly's own bound",
            wat(&format!("(component {})", doubling(25))),
            Refused("not a valid component"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_refusal_of_an_invalid_component_says_what_is_wrong() {
    let export = |name: &[u8]| {
        // A type, and its export under this name.
        let name = [b"\0".as_slice(), &leb(name.len()), name].concat();
        of_sections(&[
            section(7, b"\x01\x7d"),
            section(11, &[b"\x01".as_slice(), &name, b"\x03\0\0"].concat()),
        ])
    };
    check_all([
        ("a name that isn't UTF-8", export(b"\xff\xfe"), Refused("malformed UTF-8")),
        ("a name that is none", export("a\u{202e}b".as_bytes()), Refused("not a valid component")),
        ("an empty name", export(b""), Refused("not a valid component")),
        (
            "the same export twice",
            wat("(component (type $t u8) (export \"a\" (type $t)) (export \"A\" (type $t)))"),
            Refused("conflicts with previous name"),
        ),
        ("a stack that is empty", with_module("(func i32.add drop)"), Refused("type mismatch")),
        (
            "a function that isn't what it says",
            wat(
                "(component (core module $m (func (export \"f\") (result f64) unreachable)) (core instance $i (instantiate $m))
                    (func (export \"f\") (result u8) (canon lift (core func $i \"f\"))))",
            ),
            Refused("not a valid component"),
        ),
        (
            "a text without a memory",
            wat(
                "(component (core module $m (func (export \"f\") (result i32) unreachable)) (core instance $i (instantiate $m))
                    (func (export \"f\") (result string) (canon lift (core func $i \"f\"))))",
            ),
            Refused("canonical option `memory` is required"),
        ),
        (
            "names that are rubbish, which nobody needs",
            of_sections(&[section(0, b"\x04name\xff\xff\xff\xff"), section(0, b"\x09producers\xff")]),
            Taken,
        ),
    ])
    .await;
}
