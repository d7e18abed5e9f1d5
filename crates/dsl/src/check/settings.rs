//! Warns of settings that are valid but probably a mistake.

use aster_core::plan;

use super::Model;
use crate::ast::{Retry, Settings, Spanned};
use crate::codes;
use crate::diagnostic::Sink;

const SHORT_MS: u64 = 2_000;
const LONG_MS: u64 = 3_600_000;
/// The timeout of a workflow that sets none.
const DEFAULT_TIMEOUT_MS: u64 = 3_600_000;
const MANY_ATTEMPTS: u32 = 10;

pub(super) fn check(model: &Model, sink: &mut Sink) {
    let own = &model.workflow.settings;
    let compensations = model.compensations.iter().flatten().map(|compensation| &compensation.settings);
    let steps = model.workflow.steps.iter().map(|step| &step.settings);
    std::iter::once(own)
        .chain(steps.clone())
        .chain(compensations.clone())
        .for_each(|place| timeout(place, sink));

    let limit = own.timeout_ms.as_ref().map(|timeout| timeout.value);
    for place in std::iter::once(own).chain(steps) {
        retry(place, Some(limit.unwrap_or(DEFAULT_TIMEOUT_MS)), sink);
    }
    // Compensations don't count against the workflow's timeout.
    compensations.for_each(|place| retry(place, None, sink));
}

fn timeout(settings: &Settings, sink: &mut Sink) {
    let Some(Spanned { value, span }) = &settings.timeout_ms else { return };
    let message = match *value {
        0 | SHORT_MS..=LONG_MS => return,
        1..SHORT_MS => "this timeout is under 2 seconds",
        _ => "this timeout is over 1 hour",
    };
    sink.report(&codes::ODD_TIMEOUT, *span, message)
        .help("check its unit: milliseconds, seconds, minutes, hours or days");
}

fn retry(settings: &Settings, limit_ms: Option<u64>, sink: &mut Sink) {
    let Some(Spanned { value: retry, span }) = &settings.retry else { return };
    let Some(attempts) = retry.max_attempts else { return };
    if attempts > MANY_ATTEMPTS {
        sink.report(&codes::LONG_RETRIES, *span, format!("this makes up to {attempts} attempts"))
            .help("more than 10 attempts seldom help; make them fewer, and the delays longer");
        return;
    }
    let total = total_wait(retry, attempts);
    if let Some(limit) = limit_ms
        && total > limit
    {
        let message = format!(
            "the waits between the attempts come to {}, the timeout is {}",
            seconds(total),
            seconds(limit)
        );
        sink.report(&codes::LONG_RETRIES, *span, message)
            .help("make the attempts fewer, the delays shorter, or the workflow's timeout longer");
    }
}

/// The sum of all waits between the attempts, without jitter.
fn total_wait(retry: &Retry, attempts: u32) -> u64 {
    let initial = retry.initial_delay_ms.unwrap_or(plan::Retry::DEFAULT_INITIAL_DELAY_MS);
    let most = retry.max_delay_ms.unwrap_or(plan::Retry::DEFAULT_MAX_DELAY_MS);
    (1..attempts)
        .map(|n| {
            let factor = match retry.backoff.unwrap_or_default() {
                plan::Backoff::Exponential => 1_u64.checked_shl(n - 1).unwrap_or(u64::MAX),
                plan::Backoff::Linear => u64::from(n),
                plan::Backoff::Constant => 1,
            };
            initial.saturating_mul(factor).min(most)
        })
        .fold(0, u64::saturating_add)
}

fn seconds(ms: u64) -> String {
    format!("{} s", ms as f64 / 1_000.0)
}
