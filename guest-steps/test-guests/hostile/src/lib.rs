//! The component `hostile`: misbehaves on demand, for the tests of the sandbox.

use std::{hint::black_box, io::Write as _, time::Duration};

use exports::testing::hostile::hostile::Guest;
use wasi::keyvalue::store::{self, Bucket};

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "testing:hostile/component",
    generate_all,
});

const BUCKET: &str = "things";

struct Hostile;
export!(Hostile);

impl Guest for Hostile {
    fn ok() -> String {
        "ok".to_owned()
    }

    fn spin() {
        spin()
    }

    fn write_then_spin(key: String) -> Result<(), String> {
        set(BUCKET, &key, b"half done")?;
        spin()
    }

    fn panic(message: String) {
        panic!("{message}");
    }

    fn write_then_panic(key: String) -> Result<(), String> {
        set(BUCKET, &key, b"half done")?;
        panic!("after the write");
    }

    fn eat_memory(bytes: u64) -> u64 {
        const CHUNK: usize = 64 * 1024;
        let mut chunks = Vec::new();
        let mut eaten = 0;
        while eaten < bytes {
            chunks.push(black_box(vec![1_u8; CHUNK]));
            eaten += CHUNK as u64;
        }
        eaten
    }

    fn recurse(depth: u32) -> u32 {
        recurse(depth)
    }

    fn exit(code: u8) {
        std::process::exit(code.into())
    }

    fn print(bytes: u32) {
        let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
        let mut left = bytes as usize;
        while left > 0 {
            let mut line = vec![b'x'; left.min(80)];
            *line.last_mut().expect("a line has at least one byte") = b'\n';
            left -= line.len();
            // A host may close a stream from which it wants no more, and that must not stop the guest.
            let _ = stdout.write_all(&line);
            let _ = stderr.write_all(&line);
        }
        let _ = stdout.flush();
    }

    fn print_garbage() {
        const GARBAGE: &[u8] = b"before\0after \xff\xfe \x1b[31mred \xc3\xa9 cut \xe2\x82\n";
        let _ = std::io::stdout().write_all(GARBAGE);
        let _ = std::io::stderr().write_all(GARBAGE);
    }

    fn sleep(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn nan() -> f64 {
        f64::NAN
    }

    fn infinity() -> f64 {
        f64::INFINITY
    }

    fn huge_text(bytes: u32) -> String {
        "x".repeat(bytes as usize)
    }

    fn huge_list(bytes: u32) -> Vec<u8> {
        vec![b'x'; bytes as usize]
    }

    fn many_bools(count: u32) -> Vec<bool> {
        vec![true; count as usize]
    }

    fn fill(bytes: u32) {
        black_box(vec![1_u8; bytes as usize]);
    }

    fn fill_and_sleep(bytes: u32, ms: u64) {
        let memory = black_box(vec![1_u8; bytes as usize]);
        std::thread::sleep(Duration::from_millis(ms));
        drop(memory);
    }

    fn huge_error(bytes: u32) -> Result<(), String> {
        Err("x".repeat(bytes as usize))
    }

    fn nul_text() -> String {
        "before\0after".to_owned()
    }

    fn nul_error() -> Result<(), String> {
        Err("before\0after".to_owned())
    }

    fn set(bucket: String, key: String, value: Vec<u8>) -> Result<(), String> {
        set(&bucket, &key, &value)
    }

    fn set_nul_key() -> Result<(), String> {
        set(BUCKET, "before\0after", b"value")
    }

    fn set_long_key(bytes: u32) -> Result<(), String> {
        set(BUCKET, &"k".repeat(bytes as usize), b"value")
    }

    fn set_long_value(bytes: u32) -> Result<(), String> {
        set(BUCKET, "long", &vec![b'v'; bytes as usize])
    }

    fn set_many_keys(count: u32) -> Result<(), String> {
        let bucket = open(BUCKET)?;
        for index in 0..count {
            bucket.set(&format!("{index:0100}"), b"value").map_err(explain)?;
        }
        Ok(())
    }

    fn open_many(count: u32) -> Result<(), String> {
        for _ in 0..count {
            std::mem::forget(open(BUCKET)?);
        }
        Ok(())
    }

    fn open_odd(bytes: u32) -> Vec<Result<(), String>> {
        let names = ["b".repeat(bytes as usize), "before\0after".to_owned(), String::new()];
        names.iter().map(|name| set(name, "key", b"value")).collect()
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn recurse(depth: u32) -> u32 {
    // `frame` is used after the call, so that the compiler can't make a loop of it.
    let frame = black_box([depth; 16]);
    if depth == 0 { 0 } else { 1 + recurse(depth - 1) + u32::from(black_box(frame)[0] != depth) }
}

fn set(bucket: &str, key: &str, value: &[u8]) -> Result<(), String> {
    open(bucket)?.set(key, value).map_err(explain)
}

fn open(bucket: &str) -> Result<Bucket, String> {
    store::open(bucket).map_err(explain)
}

fn explain(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "no such store".to_owned(),
        store::Error::AccessDenied => "access denied".to_owned(),
        store::Error::Other(reason) => reason,
    }
}
