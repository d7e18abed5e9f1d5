//! Measures how long the worst texts of one MiB take (`cargo xtask bench language`): a check against components, and its
//! report. The first argument may be another size in bytes. The program prints one JSON array of rows.

#![expect(clippy::print_stdout, reason = "its result is what it is for")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/shapes.rs"]
mod shapes;

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shapes::Shape;

/// The largest size of a source.
const BYTES: usize = (1 << 20) - 1_024;

fn main() -> Result<(), Box<dyn Error>> {
    let bytes = std::env::args().nth(1).map(|bytes| bytes.parse()).transpose()?.unwrap_or(BYTES);
    let rows: Vec<Value> = shapes::SHAPES.iter().map(|shape| measure(shape, bytes)).collect();
    println!("{}", Value::Array(rows));
    Ok(())
}

fn measure(shape: &Shape, bytes: usize) -> Value {
    let source = (shape.text)(bytes);
    let components = common::components();
    let checked = aster_dsl::check_with(shape.name, &source, &components);
    let check = fastest(|| aster_dsl::check_with(shape.name, &source, &components));
    let render = fastest(|| aster_dsl::render(shape.name, &source, &checked.diagnostics, false));
    json!({
        "name": shape.name,
        "bytes": source.len(),
        "diagnostics": checked.diagnostics.len(),
        "plan_bytes": serde_json::to_string(&checked.plans).map_or(0, |plans| plans.len()),
        "check_ms": milliseconds(check),
        "render_ms": milliseconds(render),
    })
}

/// The shortest time of three runs.
fn fastest<T>(work: impl Fn() -> T) -> Duration {
    let once = || {
        let began = Instant::now();
        black_box(work());
        began.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

fn milliseconds(taken: Duration) -> f64 {
    (taken.as_secs_f64() * 1e4).round() / 10.0
}
