//! What must be true when all is over, whatever happened on the way.

use aster_core::event::Event;
use aster_core::id::WorkflowId;
use aster_core::plan::{Plan, StepName};
use aster_core::state::{Progress, RunState, Status, evolve};
use serde_json::Value;

use super::guests::{BALANCE, key};
use super::plans::ACCOUNTS;
use super::tables::{Row, Tables};

/// Everything that is wrong.
pub(super) fn examine(tables: &Tables, plan_of: impl Fn(i64) -> Plan) -> Vec<String> {
    let mut examined = Examined { tables, found: Vec::new(), taken: 0 };
    for (id, row) in &tables.runs {
        examined.run(*id, row, &plan_of(row.accepted.release));
    }
    for (id, kinds) in &tables.effects {
        if !kinds.iter().any(|kind| matches!(*kind, "STEP_COMPLETED" | "COMPENSATION_COMPLETED")) {
            examined.found.push(format!("run {id}: data was written with {kinds:?}"));
        }
    }
    let left: u64 =
        (0..ACCOUNTS).map(|n| examined.value(&format!("account {n}")).as_u64().unwrap_or(BALANCE)).sum();
    if left + examined.taken != BALANCE * ACCOUNTS {
        let (taken, all) = (examined.taken, BALANCE * ACCOUNTS);
        examined.found.push(format!("the books don't balance: {left} left and {taken} taken of {all}"));
    }
    examined.found
}

struct Examined<'t> {
    tables: &'t Tables,
    found: Vec<String>,
    /// What live records say was taken.
    taken: u64,
}

impl Examined<'_> {
    fn run(&mut self, id: WorkflowId, row: &Row, plan: &Plan) {
        let mut check = |holds: bool, what: &dyn Fn() -> String| {
            if !holds {
                self.found.push(format!("run {id}: {}", what()));
            }
        };
        check(row.status.is_over(), &|| format!("is still {} (wakes at {:?})", row.status, row.wake_at));
        let sequences: Vec<u64> = row.events.iter().map(|(sequence, _)| *sequence).collect();
        let gapless: Vec<u64> = (1..=row.last_sequence).collect();
        check(sequences == gapless, &|| {
            format!("its log has {sequences:?}, its row ends at {}", row.last_sequence)
        });

        let log: Vec<&Event> = row.events.iter().map(|(_, event)| event).collect();
        let mut state = RunState::new(row.accepted.clone());
        log.iter().for_each(|event| evolve(&mut state, event));
        check(state.status == row.status, &|| {
            format!("its log says {}, its row {}", state.status, row.status)
        });

        let kind = |event: &&Event| event.event_type();
        let kinds: Vec<&str> = log.iter().map(kind).collect();
        let count = |wanted: &str| kinds.iter().filter(|kind| **kind == wanted).count();
        check(count("WORKFLOW_STARTED") <= 1, &|| "started twice".into());
        check(count("WORKFLOW_FAILED") <= 1, &|| "failed twice".into());
        let begins = matches!(kinds.first(), Some(&("WORKFLOW_STARTED" | "WORKFLOW_FAILED")));
        check(begins, &|| format!("begins with {:?}", kinds.first()));
        let first_undo = kinds.iter().position(|kind| *kind == "COMPENSATION_STARTED").unwrap_or(kinds.len());
        let late = kinds[first_undo..].iter().find(|kind| kind.starts_with("STEP_"));
        check(late.is_none(), &|| format!("{late:?} after the first compensation"));

        let mut started: Vec<StepName> = Vec::new();
        for event in &log {
            if let Event::StepStarted { step, .. } = event
                && !started.contains(step)
            {
                started.push(step.clone());
            }
        }
        started.retain(|step| plan.step(step).is_some_and(|step| step.compensation.is_some()));
        started.reverse();
        for event in &log {
            if let Event::WorkflowFailed { compensations, .. } = event {
                check(*compensations == started, &|| {
                    format!("undoes {compensations:?}, and {started:?} were started, last first")
                });
            }
        }
        let mut undone: Vec<StepName> = Vec::new();
        for event in log.iter().take_while(|event| !event.event_type().starts_with("OPERATOR")) {
            if let Event::CompensationStarted { step, attempt: 1, rerun: 0 } = event {
                undone.push(step.clone());
            }
        }
        check(started.starts_with(&undone), &|| format!("undid {undone:?}, not {started:?}"));
        for step in &plan.steps {
            let completed =
                |event: &&&Event| matches!(event, Event::StepCompleted { step: of, .. } if *of == step.name);
            let times = log.iter().filter(completed).count();
            check(times <= 1, &|| format!("`{}` completed {times} times", step.name));
        }
        let mut orders = state.orders.clone();
        orders.sort_unstable();
        orders.dedup();
        check(orders.len() == state.orders.len(), &|| "an order was carried out twice".into());
        if row.status == Status::Completed {
            let passed = plan.steps.iter().all(|step| state.is_passed(&step.name));
            check(passed, &|| "completed without all of its steps".into());
        }
        self.effects(id, &state, plan);
    }

    /// What each step left behind: exactly what the log says.
    fn effects(&mut self, id: WorkflowId, state: &RunState, plan: &Plan) {
        for step in &plan.steps {
            let record = self.value(&format!("{id}/{}", step.name));
            let called = plan.calls().into_iter().find(|(of, _)| of.name == step.name);
            let function = called.map_or("", |(_, call)| call.function.as_str());
            let completed =
                state.steps.get(&step.name).is_some_and(|step| step.progress == Progress::Completed);
            let undone = state.undo(&step.name).is_some_and(|undo| undo.progress == Progress::Completed);
            let expected = match (function, completed, undone) {
                ("take", true, false) => "taken",
                ("take", true, true) => "returned",
                ("note", true, _) => "noted",
                _ => "",
            };
            let found = record["state"].as_str().unwrap_or_default();
            if found != expected {
                self.found.push(format!("run {id}: `{}` left {found:?}, not {expected:?}", step.name));
            }
            if record["times"].as_u64().unwrap_or(1) != 1 {
                self.found.push(format!("run {id}: `{}` took effect {} times", step.name, record["times"]));
            }
            if found == "taken" {
                self.taken += record["amount"].as_u64().unwrap_or(0);
            }
        }
    }

    fn value(&self, name: &str) -> Value {
        let bytes = self.tables.entries.get(&key(name)).and_then(|entry| entry.value.as_deref());
        bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null)
    }
}
