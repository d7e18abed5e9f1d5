//! Checks the shape of a run's log.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Failure, Row};
use crate::chaos::submission::Workflow;

#[derive(Debug)]
pub(super) struct Event {
    pub(super) sequence: i64,
    pub(super) event_type: String,
    pub(super) payload: Payload,
}

/// The fields of an event's payload that the checks use.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Payload {
    step: Option<String>,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    rerun: u32,
    error: Option<Failure>,
    cause: Option<String>,
    #[serde(default)]
    compensations: Vec<String>,
}

impl Event {
    fn is(&self, event_type: &str) -> bool {
        self.event_type == event_type
    }

    fn step(&self) -> &str {
        self.payload.step.as_deref().unwrap_or_default()
    }
}

/// Summarizes a log for people: `1 WORKFLOW_STARTED, 2 STEP_STARTED validate_order, …`.
pub(super) fn summary(events: &[Event]) -> String {
    let lines = events.iter().map(|event| {
        let Payload { attempt, rerun, error, .. } = &event.payload;
        let mut line = format!("{} {} {}", event.sequence, event.event_type, event.step());
        if attempt + rerun > 1 {
            line.push_str(&format!(" (attempt {attempt}, rerun {rerun})"));
        }
        if let Some(Failure { code, message }) = error {
            line.push_str(&format!(" {code} `{message}`"));
        }
        line
    });
    lines.collect::<Vec<_>>().join(", ")
}

pub(super) fn reruns(events: &[Event]) -> u64 {
    events.iter().filter(|event| event.payload.rerun > 0).count() as u64
}

/// Returns whether every compensation that failed did so because it lost its host too often.
pub(super) fn is_stuck_by_host_lost(events: &[Event]) -> bool {
    let mut failed = events.iter().filter(|event| event.is("COMPENSATION_FAILED")).peekable();
    failed.peek().is_some()
        && failed.all(|event| event.payload.error.as_ref().is_some_and(|error| error.code == "HOST_LOST"))
}

/// Returns everything that is wrong with a log.
pub(super) fn faults(workflow: &Workflow, row: &Row, events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_gapless = events.iter().zip(1..).all(|(event, n)| event.sequence == n);
    if !is_gapless || events.len() as i64 != row.last_sequence {
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        wrong.push(format!("its sequences are {sequences:?}, and its last is {}", row.last_sequence));
    }
    wrong.extend(wrong_frame(row, events));
    wrong.extend(wrong_attempts(events));
    wrong.extend(wrong_steps(workflow, row, events));
    wrong.extend(wrong_compensations(workflow, row, events));
    wrong
}

/// Checks the beginning and the end.
fn wrong_frame(row: &Row, events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let [first, .., last] = events else {
        // A run that never started has only this event.
        let is_alone = matches!(events, [only] if only.is("WORKFLOW_FAILED"));
        if !is_alone || row.status != "FAILED" || row.cause.as_deref() == Some("STEP") {
            wrong.push(format!("its log has {} events", events.len()));
        }
        return wrong;
    };
    if !first.is("WORKFLOW_STARTED") {
        wrong.push(format!("begins with {}", first.event_type));
    }
    let end = match row.status.as_str() {
        "COMPLETED" => "WORKFLOW_COMPLETED",
        "FAILED" => "WORKFLOW_FAILED",
        "COMPENSATED" => "WORKFLOW_COMPENSATED",
        _ => "WORKFLOW_COMPENSATION_FAILED",
    };
    if !last.is(end) {
        wrong.push(format!("ends with {}, not {end}", last.event_type));
    }
    for (event_type, most) in [
        ("WORKFLOW_STARTED", 1),
        ("WORKFLOW_FAILED", usize::from(row.status != "COMPLETED")),
        ("WORKFLOW_COMPLETED", usize::from(row.status == "COMPLETED")),
        ("WORKFLOW_COMPENSATED", usize::from(row.status == "COMPENSATED")),
        ("WORKFLOW_COMPENSATION_FAILED", usize::from(row.status == "COMPENSATION_FAILED")),
    ] {
        let count = events.iter().filter(|event| event.is(event_type)).count();
        if count != most {
            wrong.push(format!("has {event_type} {count} times"));
        }
    }
    let failed = events.iter().find(|event| event.is("WORKFLOW_FAILED"));
    let cause = failed.and_then(|event| event.payload.cause.as_deref());
    if cause != row.cause.as_deref() {
        wrong.push(format!("its log says that its cause is {cause:?}"));
    }
    wrong
}

/// Checks the numbers of attempts: an attempt that is started again counts its reruns, and a new attempt has a higher
/// number.
fn wrong_attempts(events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut newest: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    for event in events.iter().filter(|event| event.event_type.ends_with("_STARTED")) {
        let (attempt, rerun) = (event.payload.attempt, event.payload.rerun);
        let before = newest.insert((&event.event_type, event.step()), (attempt, rerun));
        let is_next = match before {
            None => rerun == 0,
            Some((number, reruns)) => {
                (attempt, rerun) == (number, reruns + 1) || (attempt == number + 1 && rerun == 0)
            }
        };
        if !is_next {
            wrong.push(format!("{} {} {attempt}/{rerun} after {before:?}", event.event_type, event.step()));
        }
    }
    wrong
}

/// Checks that every step is completed at most once, and none after the run has failed.
fn wrong_steps(workflow: &Workflow, row: &Row, events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (step, _) in workflow.steps {
        let position =
            |event_type: &str| events.iter().position(|event| event.is(event_type) && event.step() == *step);
        let completed =
            events.iter().filter(|event| event.is("STEP_COMPLETED") && event.step() == *step).count();
        let (least, most) = (usize::from(row.status == "COMPLETED"), 1);
        if !(least..=most).contains(&completed) {
            wrong.push(format!("{step} was completed {completed} times"));
        }
        if completed > 0 && position("STEP_STARTED").is_none_or(|at| Some(at) > position("STEP_COMPLETED")) {
            wrong.push(format!("{step} was completed before it was started"));
        }
    }
    let failed = events.iter().position(|event| event.is("WORKFLOW_FAILED")).unwrap_or(events.len());
    for event in events[failed..].iter().filter(|event| event.event_type.starts_with("STEP_")) {
        wrong.push(format!("{} {} after it had failed", event.event_type, event.step()));
    }
    wrong
}

/// Checks that every started step with a compensation is undone, and nothing else: the last started first, one at a
/// time, each to its end.
fn wrong_compensations(workflow: &Workflow, row: &Row, events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected: Vec<&str> = Vec::new();
    if row.status != "COMPLETED" {
        for event in events.iter().filter(|event| event.is("STEP_STARTED")) {
            let step = event.step();
            if workflow.steps.contains(&(step, true)) && !expected.contains(&step) {
                expected.push(step);
            }
        }
        expected.reverse();
        let planned = events.iter().find(|event| event.is("WORKFLOW_FAILED"));
        if planned.is_none_or(|event| event.payload.compensations != expected) {
            wrong.push(format!("was to undo {planned:?}, and had to undo {expected:?}"));
        }
        if (row.status == "FAILED") != expected.is_empty() {
            wrong.push(format!("has to undo {expected:?}"));
        }
    }
    let mut begun: Vec<&str> = Vec::new();
    let mut ended: Vec<&str> = Vec::new();
    for event in events.iter().filter(|event| event.event_type.starts_with("COMPENSATION_")) {
        let step = event.step();
        match event.event_type.as_str() {
            "COMPENSATION_STARTED" if begun.last() != Some(&step) => {
                if begun != ended {
                    wrong.push(format!("began to undo {step} while {:?} was being undone", begun.last()));
                }
                begun.push(step);
            }
            "COMPENSATION_COMPLETED" | "COMPENSATION_FAILED" => ended.push(step),
            _ => {}
        }
    }
    if begun != expected || ended != expected {
        wrong.push(format!("undid {ended:?} of {begun:?}, and had to undo {expected:?}"));
    }
    let failed = events.iter().filter(|event| event.is("COMPENSATION_FAILED")).count();
    if (failed > 0) != (row.status == "COMPENSATION_FAILED") {
        wrong.push(format!("{failed} compensations failed"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use sqlx::types::Json;
    use uuid::Uuid;

    use super::*;
    use crate::chaos::submission::ORDER_FULFILLMENT;

    /// Makes a log of lines such as `STEP_STARTED charge_payment`; `/1` marks the first rerun.
    fn log(lines: &[&str]) -> Vec<Event> {
        let event = |(line, sequence): (&&str, i64)| {
            let (event_type, step) = line.split_once(' ').unwrap_or((line, ""));
            let (step, rerun) = step.split_once('/').unwrap_or((step, "0"));
            let mut payload = Payload { attempt: 1, rerun: rerun.parse().unwrap(), ..Payload::default() };
            if event_type == "WORKFLOW_FAILED" {
                payload.cause = Some("STEP".to_owned());
                payload.compensations =
                    step.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
            } else {
                payload.step = Some(step.to_owned());
            }
            Event { sequence, event_type: event_type.to_owned(), payload }
        };
        lines.iter().zip(1..).map(event).collect()
    }

    fn check(status: &str, lines: &[&str], expected: &[&str]) {
        let cause = (status != "COMPLETED").then(|| "STEP".to_owned());
        let row = Row {
            workflow_id: Uuid::nil(),
            definition: String::new(),
            key: None,
            status: status.to_owned(),
            error: cause.as_ref().map(|_| Json(Failure { code: "ERROR".into(), message: String::new() })),
            cause,
            last_sequence: lines.len() as i64,
            is_late: false,
            is_driven: false,
        };
        let faults = faults(&ORDER_FULFILLMENT, &row, &log(lines));
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.contains(expected), "{fault}: {expected}");
        }
    }

    const DECLINED: [&str; 13] = [
        "WORKFLOW_STARTED",
        "STEP_STARTED validate_order",
        "STEP_COMPLETED validate_order",
        "STEP_STARTED reserve_inventory",
        "STEP_COMPLETED reserve_inventory",
        "STEP_STARTED charge_payment",
        "STEP_FAILED charge_payment",
        "WORKFLOW_FAILED charge_payment,reserve_inventory",
        "COMPENSATION_STARTED charge_payment",
        "COMPENSATION_COMPLETED charge_payment",
        "COMPENSATION_STARTED reserve_inventory",
        "COMPENSATION_COMPLETED reserve_inventory",
        "WORKFLOW_COMPENSATED",
    ];

    #[test]
    fn the_log_of_a_declined_order_has_no_faults() {
        check("COMPENSATED", &DECLINED, &[]);
    }

    #[test]
    fn an_attempt_that_lost_its_host_counts_it() {
        let mut lines = DECLINED.to_vec();
        lines.insert(4, "STEP_STARTED reserve_inventory/1");
        check("COMPENSATED", &lines, &[]);
        lines[4] = "STEP_STARTED reserve_inventory/2";
        check("COMPENSATED", &lines, &["STEP_STARTED reserve_inventory 1/2 after"]);
    }

    #[test]
    fn a_wrong_order_or_lack_of_compensations_is_noticed() {
        let mut lines = DECLINED;
        lines.swap(8, 10);
        lines.swap(9, 11);
        check("COMPENSATED", &lines, &["undid"]);
        let mut lines = DECLINED.to_vec();
        lines.drain(10..12);
        check("COMPENSATED", &lines, &["undid"]);
    }

    #[test]
    fn a_step_after_the_failure_and_one_that_is_completed_twice_are_noticed() {
        let mut lines = DECLINED.to_vec();
        lines.insert(9, "STEP_COMPLETED create_shipment");
        check("COMPENSATED", &lines, &["before it was started", "after it had failed"]);
        let mut lines = DECLINED.to_vec();
        lines.insert(5, "STEP_COMPLETED reserve_inventory");
        check("COMPENSATED", &lines, &["completed 2 times"]);
    }

    #[test]
    fn a_log_without_its_end_or_with_two_is_noticed() {
        check("COMPENSATED", &DECLINED[..12], &["ends with", "WORKFLOW_COMPENSATED 0 times"]);
        let mut lines = DECLINED.to_vec();
        lines.push("WORKFLOW_COMPENSATED");
        check("COMPENSATED", &lines, &["2 times"]);
    }
}
