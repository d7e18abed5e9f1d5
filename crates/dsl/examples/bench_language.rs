//! Measures how fast sources are read (`cargo xtask bench language`): the example workflows, and generated files with many
//! steps.
//!
//! *Parse* makes tokens and a tree, and *check* does everything that a deployment does: tree, checks, plans. *Floor* is
//! the least work of any reader of the same bytes: it checks that they are UTF-8 and splits them into lines of words.
//! The program prints one JSON array of rows.

#![expect(clippy::print_stdout, reason = "its result is what it is for")]

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const ROUNDS: usize = 5;
/// A round repeats its work for at least this long.
const ROUND: Duration = Duration::from_millis(150);

fn main() -> Result<(), Box<dyn Error>> {
    let workflows = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../workflows"));
    let mut rows = Vec::new();
    for file in ["order-fulfillment.aster", "payment-compensation.aster", "inventory-replenishment.aster"] {
        rows.push(measure(file, &std::fs::read_to_string(workflows.join(file))?)?);
    }
    // Each function has the same number of steps, so a file of ten times the size should take ten times as long.
    for functions in [7, 70] {
        let name = format!("{functions} functions of 40 steps");
        rows.push(measure(&name, &generated(functions, 40))?);
    }
    // The longest function that is allowed, and a quarter of it.
    for steps in [250, 1_000] {
        rows.push(measure(&format!("one function of {steps} steps"), &generated(1, steps))?);
    }
    println!("{}", Value::Array(rows));
    Ok(())
}

fn measure(name: &str, source: &str) -> Result<Value, Box<dyn Error>> {
    let checked = aster_dsl::check(name, source);
    if checked.has_errors() {
        return Err(format!("{name}: {:?}", checked.diagnostics.first()).into());
    }
    let steps: usize = checked.plans.iter().map(|plan| plan.steps.len()).sum();
    let floor = time(|| words(source.as_bytes()));
    let parse = time(|| aster_dsl::parse_only(name, source));
    let check = time(|| aster_dsl::check(name, source));
    let per_second = |taken: Duration| source.len() as f64 / taken.as_secs_f64() / 1e6;
    Ok(json!({
        "name": name,
        "steps": steps,
        "bytes": source.len(),
        "parse_per_second": rounded(per_second(parse), 1),
        "per_second": rounded(per_second(check), 1),
        "p50_ms": rounded(check.as_secs_f64() * 1e3, 3),
        "us_per_step": rounded(check.as_secs_f64() * 1e6 / steps as f64, 2),
        "floor_per_second": rounded(per_second(floor), 1),
        "ratio": rounded(floor.as_secs_f64() / check.as_secs_f64(), 3),
    }))
}

fn words(bytes: &[u8]) -> Vec<Vec<&str>> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.lines().map(|line| line.split_ascii_whitespace().collect()).collect()
}

/// The median of the means of all rounds, after one round that doesn't count.
fn time<T>(work: impl Fn() -> T) -> Duration {
    let round = || {
        let began = Instant::now();
        let mut times = 0;
        while began.elapsed() < ROUND {
            black_box(work());
            times += 1;
        }
        began.elapsed() / times
    };
    round();
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

/// Functions like the order's. Each step reads the values of steps before it, some run in parallel, some are retried,
/// and half of them have a compensation.
fn generated(functions: usize, steps: usize) -> String {
    let mut source = "// Made for a measurement.\nThis module is bench.generated.\n".to_owned();
    for function in 0..functions {
        write_function(&mut source, function, steps).expect("a text takes everything");
    }
    source
}

fn write_function(source: &mut String, function: usize, steps: usize) -> std::fmt::Result {
    writeln!(
        source,
        "\nTo handleOrder{function} with order: Order, produce Result of Receipt with IO. It performs io with Orders, Inventory and Payment:"
    )?;
    writeln!(source, "\n  workflow:\n")?;
    for step in 0..steps {
        // Two branches that meet again, many times.
        match (step, step % 4) {
            (0, _) | (_, 1) => writeln!(source, "    step part_{step}:")?,
            (_, 2) => writeln!(source, "    step part_{step} depends on [part_{}]:", step - 2)?,
            (_, 3) => {
                writeln!(source, "    step part_{step}:")?;
                writeln!(source, "      await part_{} and part_{}.", step - 2, step - 1)?;
            }
            _ => writeln!(source, "    step part_{step} when part_{}.total > 0:", step - 1)?,
        }
        match step {
            0 => writeln!(source, "      Return ok of Orders.validate(order).")?,
            _ => {
                // The step from which both branches start, or the step before.
                let before = if step % 4 == 0 { step - 1 } else { step - step % 4 };
                writeln!(
                    source,
                    "      // What the step before has found out decides how much is wanted here."
                )?;
                writeln!(source, "      Let wanted be part_{before}.total * 2 + {step}.")?;
                writeln!(
                    source,
                    "      Return ok of Inventory.reserve(order.orderId, {{lines: order.items, wanted: wanted, note: \"part {step} of {{order.orderId}}\"}})."
                )?;
            }
        }
        if step % 2 == 1 {
            writeln!(
                source,
                "      retry:\n        max attempts: 3.\n        initial delay: 200 milliseconds."
            )?;
            writeln!(source, "      compensate:\n        Inventory.release(order.orderId, part_{step}.id).")?;
        }
        writeln!(source)?;
    }
    writeln!(source, "    timeout: 300 seconds.\n  .")
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}
