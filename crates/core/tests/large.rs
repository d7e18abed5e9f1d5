//! A transition costs what the steps of its workflow are, and not their square.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aster_core::event::Cost;
use aster_core::id::{Digest, WorkflowId};
use aster_core::plan::{Capabilities, Expr, Limits, PLAN_FORMAT, Plan, Statement, Step, StepName, Type};
use aster_core::saga::{Attempt, Command, Ending, Signal, decide, react, record};
use aster_core::state::{Accepted, RunState, Status};
use aster_core::time::Timestamp;
use serde_json::Value;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// What each step waits for.
type DependsOn = fn(usize) -> Vec<usize>;

#[test]
fn a_transition_costs_what_the_steps_of_its_workflow_are() {
    let shapes: [(&str, DependsOn); 3] = [
        ("one after the other", |step| step.checked_sub(1).into_iter().collect()),
        ("all at once", |_| Vec::new()),
        // Each waits for the ten of the row before.
        ("in rows of ten", |step| (0..10).filter_map(|n| (step / 10 * 10 + n).checked_sub(10)).collect()),
    ];
    for (shape, depends_on) in shapes {
        let taken = |steps| {
            let plan = plan(steps, depends_on);
            (0..3).map(|_| drive(&plan)).min().unwrap_or_default()
                / u32::try_from(steps).expect("it is small")
        };
        let (few, many) = (taken(20), taken(200));
        // Ten times the steps: the square would be a hundred times the cost.
        assert!(many <= few * 40 + Duration::from_millis(1), "{shape}: {few:?}, and {many:?} a step");
    }
}

fn plan(steps: usize, depends_on: DependsOn) -> Plan {
    let name = |step: usize| StepName::from(format!("step_{step}"));
    let step = |step: usize| Step {
        name: name(step),
        line: 1,
        depends_on: depends_on(step).into_iter().map(name).collect(),
        when: None,
        body: vec![Statement::Return { err: false, value: Expr::Literal(Value::Null) }],
        limits: Limits::default(),
        retry: None,
        compensation: None,
    };
    Plan {
        format: PLAN_FORMAT,
        name: "test.large".into(),
        parameters: Vec::new(),
        result: Type::Json,
        capabilities: Capabilities::Any,
        timeout_ms: None,
        retry: None,
        fuel: None,
        trigger: None,
        steps: (0..steps).map(step).collect(),
    }
}

/// As a host does it: one attempt ends after the other, and each time it is asked what the run's row says and what is next.
fn drive(plan: &Plan) -> Duration {
    let mut state = RunState::new(Accepted {
        workflow_id: WorkflowId(uuid::Uuid::nil()),
        definition: plan.name.clone(),
        definition_digest: Digest([0; 32]),
        release: 1,
        input: Arc::new(Value::Null),
        deadline: NOW.plus_millis(1_000),
    });
    let began = processor_time();
    let mut signal = Signal::Tick;
    loop {
        state = react(plan, &state, signal, NOW).expect("it fits").state;
        record(plan, &state, NOW);
        let Some(attempt) = first_attempt(plan, &state) else { break };
        let result = Ok(Arc::new(Value::Null));
        signal = Signal::Ended(attempt, Ending { result, cost: Cost::default() });
    }
    assert_eq!(state.status, Status::Completed);
    processor_time() - began
}

fn first_attempt(plan: &Plan, state: &RunState) -> Option<Attempt> {
    decide(plan, state, NOW).into_iter().find_map(|command| match command {
        Command::Run(attempt) => Some(attempt),
        _ => None,
    })
}

/// What this thread has computed, so that a busy machine makes nothing slower; elsewhere the time since the first call.
fn processor_time() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = counted.and_then(|counted| counted.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| FIRST.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}
