//! Subjects that take turns, and the measurements of each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use crate::Failure;

const WARM_UP: Duration = Duration::from_millis(100);
const MEASURE: Duration = Duration::from_millis(400);

type Action = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// Something that is done repeatedly.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    action: Action,
    rounds: Vec<Round>,
}

/// The medians of a subject's rounds. All but the first are in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// The processor time of all threads. Unlike calls a second, it is not affected by other work of the machine.
    pub(crate) cpu: f64,
}

struct Round {
    threads: usize,
    measured: Measured,
}

impl Subject {
    pub(crate) fn new<F>(name: &'static str, action: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        Self { name, action: Arc::new(move || Box::pin(action())), rounds: Vec::new() }
    }

    pub(crate) fn round(&mut self, runtime: &Runtime, threads: usize) -> Result<(), Failure> {
        let measured = runtime.block_on(measure(&self.action, threads))?;
        self.rounds.push(Round { threads, measured });
        Ok(())
    }

    pub(crate) fn measured(&self, threads: usize) -> Measured {
        let of = |figure: fn(&Measured) -> f64| {
            median(self.rounds.iter().filter(|r| r.threads == threads).map(|r| figure(&r.measured)).collect())
        };
        Measured {
            per_second: of(|m| m.per_second),
            p50: of(|m| m.p50),
            p99: of(|m| m.p99),
            cpu: of(|m| m.cpu),
        }
    }
}

/// Runs the subject on this many tasks at once.
async fn measure(action: &Action, threads: usize) -> Result<Measured, Failure> {
    let began = Instant::now();
    let cpu_before = cpu_time()?;
    let tasks: Vec<_> = (0..threads)
        .map(|_| {
            let action = Arc::clone(action);
            tokio::spawn(async move {
                let mut taken = Vec::new();
                let mut calls = 0;
                while began.elapsed() < WARM_UP + MEASURE {
                    let start = Instant::now();
                    action().await?;
                    calls += 1;
                    if began.elapsed() > WARM_UP {
                        taken.push(start.elapsed().as_secs_f64());
                    }
                }
                Ok::<_, Failure>((taken, calls))
            })
        })
        .collect();
    let mut sorted = Vec::new();
    let mut calls_with_warm_up = 0;
    for task in tasks {
        let (taken, calls) = task.await??;
        sorted.extend(taken);
        calls_with_warm_up += calls;
    }
    let cpu = cpu_time()?.saturating_sub(cpu_before);
    sorted.sort_by(f64::total_cmp);
    let percentile = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    Ok(Measured {
        per_second: sorted.len() as f64 / MEASURE.as_secs_f64(),
        p50: percentile(50),
        p99: percentile(99),
        cpu: cpu.as_secs_f64() / f64::from(calls_with_warm_up),
    })
}

/// Returns the processor time of this process: the 14th and 15th fields of `/proc/self/stat` (proc(5)), in hundredths
/// of a second.
fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(ticks.sum::<Result<u64, _>>()? * 10))
}

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
