//! The cost of a transition grows with the number of steps of its workflow, and not with its square.

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

/// The numbers of the steps that a step depends on.
type DependsOn = fn(usize) -> Vec<usize>;

#[test]
fn a_transition_costs_no_more_than_the_number_of_steps_allows() {
    let shapes: [(&str, DependsOn); 3] = [
        ("one after the other", |step| step.checked_sub(1).into_iter().collect()),
        ("all at once", |_| Vec::new()),
        // Each step depends on the ten steps of the row before.
        ("in rows of ten", |step| (0..10).filter_map(|n| (step / 10 * 10 + n).checked_sub(10)).collect()),
    ];
    for (shape, depends_on) in shapes {
        let taken = |steps| {
            let plan = plan(steps, depends_on);
            (0..3).map(|_| drive(&plan)).min().unwrap_or_default()
                / u32::try_from(steps).expect("it is small")
        };
        let (few, many) = (taken(20), taken(200));
        // There are ten times the steps: a quadratic cost would be a hundred times as high.
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

/// Drives a run as a host does: the attempts end one after the other, and after each the row and the next commands are
/// computed.
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

/// The processor time of this thread, so that a busy machine makes nothing slower. Where the system doesn't tell it,
/// the time since the first call.
fn processor_time() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = counted.and_then(|counted| counted.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| FIRST.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}
