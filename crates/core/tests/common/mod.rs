//! A shell in miniature, without I/O: plans made of shapes, and runs in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use aster_core::event::{Author, Cost, Event, Failure, FailureCode};
use aster_core::id::{Digest, WorkflowId};
use aster_core::order::{Order, What};
use aster_core::plan::{
    Capabilities, Compensation, Expr, Limits, PLAN_FORMAT, Plan, Retry, Statement, Step, StepName, Type,
};
use aster_core::saga::{Attempt, Command, Direction, Ending, Reaction, Signal, decide, earliest_wait, react};
use aster_core::state::{Accepted, RunState};
use aster_core::time::Timestamp;
use proptest::sample::Index;
use serde_json::{Value, json};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_000_000);

/// One step of a plan: the steps that it depends on, whether it can be undone, and how its attempts end.
#[derive(Clone, Debug)]
pub(crate) struct StepShape {
    pub(crate) depends_on: Vec<Index>,
    pub(crate) compensable: bool,
    pub(crate) wanted: bool,
    pub(crate) max_attempts: u32,
    pub(crate) endings: Vec<EndingKind>,
    pub(crate) undo_endings: Vec<EndingKind>,
}

impl StepShape {
    /// A step that depends on nothing, has a compensation, and succeeds at the first attempt, both ways.
    pub(crate) fn sound() -> Self {
        Self {
            depends_on: Vec::new(),
            compensable: true,
            wanted: true,
            max_attempts: 1,
            endings: vec![EndingKind::Ok; 4],
            undo_endings: vec![EndingKind::Ok; 6],
        }
    }

    /// A sound step, but every attempt at it fails for good.
    pub(crate) fn failing() -> Self {
        Self { endings: vec![EndingKind::Err; 4], ..Self::sound() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum EndingKind {
    Ok,
    Err,
    Trap,
}

pub(crate) fn name(index: usize) -> StepName {
    format!("step_{index}").into()
}

pub(crate) fn plan(shapes: &[StepShape]) -> Plan {
    let steps = shapes.iter().enumerate().map(|(index, shape)| {
        // A step depends only on earlier ones, so there is no cycle.
        let earlier: BTreeSet<usize> = match index {
            0 => BTreeSet::new(),
            _ => shape.depends_on.iter().map(|pick| pick.index(index)).collect(),
        };
        Step {
            name: name(index),
            line: 1,
            depends_on: earlier.into_iter().map(name).collect(),
            when: (!shape.wanted).then(|| Expr::Literal(false.into())),
            body: body(),
            limits: Limits::default(),
            retry: Some(Retry::attempts(shape.max_attempts)),
            compensation: shape.compensable.then(|| Compensation {
                line: 1,
                body: body(),
                limits: Limits::default(),
                retry: None,
            }),
        }
    });
    Plan {
        format: PLAN_FORMAT,
        name: "test.random".into(),
        parameters: Vec::new(),
        result: Type::Json,
        capabilities: Capabilities::Any,
        timeout_ms: None,
        retry: None,
        fuel: None,
        trigger: None,
        steps: steps.collect(),
    }
}

fn body() -> Vec<Statement> {
    vec![Statement::Return { err: false, value: Expr::Literal(Value::Null) }]
}

pub(crate) fn accepted(timeout_ms: u64) -> RunState {
    RunState::new(Accepted {
        workflow_id: WorkflowId("01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()),
        definition: "test.random".into(),
        definition_digest: Digest([7; 32]),
        release: 1,
        input: Arc::new(json!({})),
        deadline: START.plus_millis(timeout_ms),
    })
}

/// A run in memory: its plan, its log cut into transitions, and the clock.
pub(crate) struct Trial<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) shapes: &'a [StepShape],
    pub(crate) state: RunState,
    pub(crate) transitions: Vec<(Timestamp, Vec<Event>)>,
    pub(crate) now: Timestamp,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(plan: &'a Plan, shapes: &'a [StepShape], timeout_ms: u64) -> Self {
        Self { plan, shapes, state: accepted(timeout_ms), transitions: Vec::new(), now: START }
    }

    pub(crate) fn apply(&mut self, signal: Signal) {
        let Reaction { state, events } = react(self.plan, &self.state, signal, self.now).unwrap();
        self.state = state;
        if !events.is_empty() {
            self.transitions.push((self.now, events));
        }
    }

    pub(crate) fn in_flight(&self) -> Vec<Attempt> {
        let commands = decide(self.plan, &self.state, self.now).into_iter();
        commands
            .filter_map(|command| match command {
                Command::Run(attempt) => Some(attempt),
                Command::Record(event) => panic!("{event:?} was due and not recorded"),
                Command::WaitUntil(_) => None,
            })
            .collect()
    }

    pub(crate) fn ending(&self, attempt: &Attempt) -> Ending {
        let index: usize = attempt.step.trim_start_matches("step_").parse().unwrap();
        let shape = &self.shapes[index];
        let kinds = match attempt.direction {
            Direction::Forward => &shape.endings,
            Direction::Undo => &shape.undo_endings,
        };
        let result = match kinds[attempt.number as usize - 1] {
            EndingKind::Ok => Ok(Arc::new(json!(attempt.number))),
            EndingKind::Err => Err(Failure::new(FailureCode::Error, "refused")),
            EndingKind::Trap => Err(Failure::new(FailureCode::Trap, "panicked")),
        };
        Ending { result, cost: Cost::default() }
    }

    /// Lets one more thing happen. `choice` picks among the attempts in flight. Returns false if the run is over.
    pub(crate) fn proceed(&mut self, choice: usize) -> bool {
        if self.transitions.is_empty() {
            self.apply(Signal::Tick);
            return true;
        }
        let in_flight = self.in_flight();
        if let Some(attempt) = in_flight.get(choice % in_flight.len().max(1)) {
            self.apply(Signal::Ended(attempt.clone(), self.ending(attempt)));
            return true;
        }
        let Some(at) = earliest_wait(&decide(self.plan, &self.state, self.now)) else {
            return false;
        };
        self.now = at;
        self.apply(Signal::Tick);
        true
    }

    pub(crate) fn finish(&mut self) {
        for _ in 0..1_000 {
            if !self.proceed(0) {
                return;
            }
        }
        panic!("the run does not end: {:#?}", self.state);
    }

    pub(crate) fn log(&self) -> Vec<Event> {
        self.transitions.iter().flat_map(|(_, events)| events.clone()).collect()
    }
}

pub(crate) fn order(what: What) -> Signal {
    let author = Author { by: Some("ops".into()), reason: Some("the bank said so".into()), order_id: None };
    Signal::Ordered(Order { what, author })
}

pub(crate) fn cancel() -> Signal {
    order(What::Cancel)
}
