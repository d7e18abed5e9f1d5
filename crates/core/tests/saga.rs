//! Properties of the saga over random plans and histories: a shell in miniature, without I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use aster_core::event::{Author, Cost, Event, Failure, FailureCode};
use aster_core::id::{Digest, WorkflowId};
use aster_core::order::{Order, What};
use aster_core::plan::{
    Backoff, Capabilities, Compensation, Expr, Limits, PLAN_FORMAT, Plan, Retry, Statement, Step, StepName,
    Type,
};
use aster_core::saga::{
    Attempt, Command, Direction, Ending, Reaction, Refused, Signal, decide, earliest_wait, react,
};
use aster_core::state::{Accepted, RunState, Status, evolve};
use aster_core::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const START: Timestamp = Timestamp::from_millis(1_000_000);

/// One step of a random plan: what it depends on, whether it can be undone, and how its attempts end.
#[derive(Clone, Debug)]
struct StepShape {
    depends_on: Vec<prop::sample::Index>,
    compensable: bool,
    wanted: bool,
    max_attempts: u32,
    endings: Vec<EndingKind>,
    undo_endings: Vec<EndingKind>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum EndingKind {
    Ok,
    Err,
    Trap,
}

fn ending_kind() -> impl Strategy<Value = EndingKind> {
    prop_oneof![8 => Just(EndingKind::Ok), 1 => Just(EndingKind::Err), 2 => Just(EndingKind::Trap)]
}

fn shapes() -> impl Strategy<Value = Vec<StepShape>> {
    let shape = (
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.9),
        1..4_u32,
        prop::collection::vec(ending_kind(), 4),
        prop::collection::vec(ending_kind(), 64),
    );
    let shape = shape.prop_map(|(depends_on, compensable, wanted, max_attempts, endings, undo_endings)| {
        StepShape { depends_on, compensable, wanted, max_attempts, endings, undo_endings }
    });
    prop::collection::vec(shape, 1..7)
}

fn name(index: usize) -> StepName {
    format!("step_{index}").into()
}

fn plan(shapes: &[StepShape]) -> Plan {
    let steps = shapes.iter().enumerate().map(|(index, shape)| {
        // Only earlier ones: so there is no cycle.
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

fn accepted(timeout_ms: u64) -> RunState {
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
struct Trial<'a> {
    plan: &'a Plan,
    shapes: &'a [StepShape],
    state: RunState,
    transitions: Vec<(Timestamp, Vec<Event>)>,
    now: Timestamp,
}

impl<'a> Trial<'a> {
    fn new(plan: &'a Plan, shapes: &'a [StepShape], timeout_ms: u64) -> Self {
        Self { plan, shapes, state: accepted(timeout_ms), transitions: Vec::new(), now: START }
    }

    fn apply(&mut self, signal: Signal) {
        let Reaction { state, events } = react(self.plan, &self.state, signal, self.now).unwrap();
        self.state = state;
        if !events.is_empty() {
            self.transitions.push((self.now, events));
        }
    }

    fn in_flight(&self) -> Vec<Attempt> {
        let commands = decide(self.plan, &self.state, self.now).into_iter();
        commands
            .filter_map(|command| match command {
                Command::Run(attempt) => Some(attempt),
                Command::Record(event) => panic!("{event:?} was due and not recorded"),
                Command::WaitUntil(_) => None,
            })
            .collect()
    }

    fn ending(&self, attempt: &Attempt) -> Ending {
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

    /// One more happening; `choice` picks among the attempts in flight. False when the run is over.
    fn proceed(&mut self, choice: usize) -> bool {
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

    fn finish(&mut self) {
        for _ in 0..1_000 {
            if !self.proceed(0) {
                return;
            }
        }
        panic!("the run does not end: {:#?}", self.state);
    }

    fn log(&self) -> Vec<Event> {
        self.transitions.iter().flat_map(|(_, events)| events.clone()).collect()
    }
}

/// What must hold of every log that has come to its end.
fn check_ended(plan: &Plan, log: &[Event], state: &RunState) {
    assert!(state.status.is_over(), "{:?}", state.status);
    assert_eq!(state.sequence as usize, log.len());

    let mut folded = RunState::new(state.accepted.clone());
    log.iter().for_each(|event| evolve(&mut folded, event));
    assert_eq!(&folded, state, "the state is not the fold of the log");

    let first_undo = log.iter().position(|event| matches!(event, Event::CompensationStarted { .. }));
    let forward_after = log.iter().skip(first_undo.unwrap_or(log.len())).find(|event| {
        matches!(event, Event::StepStarted { .. } | Event::StepCompleted { .. } | Event::StepSkipped { .. })
    });
    assert_eq!(forward_after, None, "a step went on after the first compensation");

    let mut started: Vec<StepName> = Vec::new();
    for event in log {
        match event {
            Event::StepStarted { step, .. } if !started.contains(step) => started.push(step.clone()),
            _ => {}
        }
    }
    let compensable: Vec<StepName> =
        started.into_iter().filter(|step| plan.step(step).unwrap().compensation.is_some()).rev().collect();
    // Up to an operator's first act: from there on the order is the operator's.
    let by_itself = log.iter().take_while(|event| !event.event_type().starts_with("OPERATOR"));
    let mut settled: Vec<StepName> = Vec::new();
    for event in by_itself.clone() {
        if let Event::CompensationCompleted { step, .. } | Event::CompensationFailed { step, .. } = event {
            settled.push(step.clone());
        }
    }
    match state.status {
        Status::Completed => assert!(settled.is_empty()),
        Status::Failed => assert!(compensable.is_empty() && settled.is_empty()),
        _ if by_itself.count() < log.len() => assert_eq!(settled, compensable[..settled.len()]),
        _ => assert_eq!(settled, compensable, "not undone last first, each once"),
    }
    let done = |step: &StepName| {
        log.iter()
            .filter(|event| matches!(event, Event::CompensationCompleted { step: of, .. } if of == step))
            .count()
    };
    assert!(compensable.iter().all(|step| done(step) <= 1), "something was undone twice");
    let failed = state.undoing.iter().filter(|undo| undo.state_name() == "failed").count();
    assert_eq!(failed > 0, state.status == Status::CompensationFailed);
    assert!(state.undoing.iter().all(|undo| undo.is_over()));
}

fn order(what: What) -> Signal {
    let author = Author { by: Some("ops".into()), reason: Some("the bank said so".into()), order_id: None };
    Signal::Ordered(Order { what, author })
}

fn cancel() -> Signal {
    order(What::Cancel)
}

/// The log as it would be had no host been lost.
fn without_reruns(log: &[Event]) -> Vec<Event> {
    let is_rerun = |event: &&Event| matches!(event, Event::StepStarted { rerun, .. } | Event::CompensationStarted { rerun, .. } if *rerun > 0);
    log.iter().filter(|event| !is_rerun(event)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_run_ends_with_everything_undone_last_first(shapes in shapes(), choices in prop::collection::vec(0..6_usize, 40)) {
        let plan = plan(&shapes);
        let mut trial = Trial::new(&plan, &shapes, 3_600_000);
        for choice in choices {
            trial.proceed(choice);
        }
        trial.finish();
        check_ended(&plan, &trial.log(), &trial.state);
    }

    #[test]
    fn a_log_cut_anywhere_and_resumed_comes_to_the_same_end(shapes in shapes()) {
        let plan = plan(&shapes);
        let mut whole = Trial::new(&plan, &shapes, 3_600_000);
        whole.finish();
        for cut in 0..=whole.transitions.len() {
            let mut resumed = Trial::new(&plan, &shapes, 3_600_000);
            for (at, events) in &whole.transitions[..cut] {
                events.iter().for_each(|event| evolve(&mut resumed.state, event));
                resumed.transitions.push((*at, events.clone()));
                resumed.now = *at;
            }
            resumed.apply(Signal::HostLost);
            resumed.finish();
            check_ended(&plan, &resumed.log(), &resumed.state);
            prop_assert_eq!(resumed.state.status, whole.state.status);
            prop_assert_eq!(kinds(&without_reruns(&resumed.log())), kinds(&whole.log()));
        }
    }

    #[test]
    fn deadlines_cancels_and_lost_hosts_at_any_point_leave_nothing_undone(
        shapes in shapes(),
        happenings in prop::collection::vec((0..6_usize, 0..10_u8), 0..40),
    ) {
        let plan = plan(&shapes);
        let mut trial = Trial::new(&plan, &shapes, 5_000);
        for (choice, happening) in happenings {
            let late = trial.in_flight_if_started().first().cloned();
            match happening {
                0 => trial.apply(Signal::HostLost),
                1 if !trial.state.status.is_over() => trial.apply(cancel()),
                2 => {
                    trial.now = trial.now.plus_millis(2_000);
                    trial.apply(Signal::Tick);
                }
                _ => { trial.proceed(choice); }
            }
            // Whatever was in flight before and is not any more can't be recorded.
            if let Some(late) = late.filter(|late| !trial.in_flight_if_started().contains(late)) {
                let ending = trial.ending(&late);
                prop_assert!(react(&plan, &trial.state, Signal::Ended(late, ending), trial.now).is_err());
            }
        }
        trial.finish();
        check_ended(&plan, &trial.log(), &trial.state);
    }

    #[test]
    fn an_operator_settles_whatever_could_not_be_undone(
        shapes in shapes(),
        before in 0..60_usize,
        acts in prop::collection::vec((0..4_u8, 0..6_usize, any::<prop::sample::Index>()), 0..30),
    ) {
        let plan = plan(&shapes);
        let mut trial = Trial::new(&plan, &shapes, 3_600_000);
        for _ in 0..before {
            trial.proceed(0);
        }
        for (act, choice, pick) in acts {
            let step = trial.state.undoing.get(pick.index(trial.state.undoing.len().max(1)));
            let Some(step) = step.map(|undo| undo.step.clone()) else {
                trial.proceed(choice);
                continue;
            };
            let signal = order(match act {
                0 => What::Retry { step: step.clone(), release: None },
                1 => What::Skip { step: step.clone() },
                2 => What::Settle { step: step.clone() },
                _ => { trial.proceed(choice); continue; }
            });
            let before = trial.state.undo(&step).unwrap().state_name();
            match react(&plan, &trial.state, signal.clone(), trial.now) {
                Ok(_) => trial.apply(signal),
                Err(Refused::Already { state, .. }) => {
                    let settled = matches!(before, "done" | "skipped" | "settled");
                    prop_assert!(state == before && (settled || act == 0));
                }
                Err(Refused::NotUndoing(status)) => prop_assert_eq!(status, Status::Compensated),
                Err(other) => panic!("{other}"),
            }
        }
        trial.finish();
        check_ended(&plan, &trial.log(), &trial.state);
        // Whatever is left can be settled, and then nothing is.
        let left: Vec<StepName> = trial.state.undoing.iter().filter(|undo| undo.state_name() == "failed").map(|undo| undo.step.clone()).collect();
        for step in left {
            prop_assert_eq!(trial.state.status, Status::CompensationFailed);
            trial.apply(order(What::Settle { step }));
        }
        prop_assert!(trial.state.status != Status::CompensationFailed);
        check_ended(&plan, &trial.log(), &trial.state);
    }

    #[test]
    fn stored_events_read_back_as_they_were(shapes in shapes(), cancelled in any::<bool>()) {
        let plan = plan(&shapes);
        let mut trial = Trial::new(&plan, &shapes, 3_600_000);
        trial.proceed(0);
        if cancelled && !trial.state.status.is_over() {
            trial.apply(cancel());
        }
        trial.finish();
        let left: Vec<StepName> = trial.state.undoing.iter().map(|undo| undo.step.clone()).collect();
        for step in left {
            let orders = [
                What::Retry { step: step.clone(), release: Some(7) },
                What::Skip { step: step.clone() },
                What::Settle { step },
            ];
            for what in orders {
                if react(&plan, &trial.state, order(what.clone()), trial.now).is_ok() {
                    trial.apply(order(what));
                }
            }
        }
        for event in trial.log() {
            let payload: Value = serde_json::from_str(&event.payload()).unwrap();
            prop_assert_eq!(&payload["v"], 1);
            prop_assert_eq!(Event::parse(event.event_type(), payload).unwrap(), event);
        }
    }
}

impl Trial<'_> {
    fn in_flight_if_started(&self) -> Vec<Attempt> {
        if self.transitions.is_empty() { Vec::new() } else { self.in_flight() }
    }
}

/// Types and steps: instants of retries depend on when the resumed clock stood.
fn kinds(log: &[Event]) -> Vec<(String, Value)> {
    log.iter()
        .map(|event| {
            let payload: Value = serde_json::from_str(&event.payload()).unwrap();
            (event.event_type().to_owned(), payload["step"].clone())
        })
        .collect()
}

#[test]
fn a_step_that_loses_its_host_three_times_fails() {
    let shapes = [StepShape {
        depends_on: Vec::new(),
        compensable: true,
        wanted: true,
        max_attempts: 3,
        endings: vec![EndingKind::Ok; 4],
        undo_endings: vec![EndingKind::Ok; 6],
    }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, 60_000);
    trial.apply(Signal::Tick);
    for _ in 0..3 {
        trial.apply(Signal::HostLost);
    }
    let log = trial.log();
    let reruns: Vec<u32> = log
        .iter()
        .filter_map(|event| match event {
            Event::StepStarted { rerun, attempt: 1, .. } => Some(*rerun),
            _ => None,
        })
        .collect();
    assert_eq!(reruns, [0, 1, 2]);
    let failure = log.iter().find_map(|event| match event {
        Event::StepFailed { error, .. } => Some(error.code),
        _ => None,
    });
    assert_eq!(failure, Some(FailureCode::HostLost));
    trial.finish();
    assert_eq!(trial.state.status, Status::Compensated);
}

#[test]
fn a_retry_by_an_operator_begins_a_new_budget_of_attempts() {
    let mut endings = vec![EndingKind::Trap; 9];
    endings.push(EndingKind::Ok);
    let shapes = [StepShape {
        depends_on: Vec::new(),
        compensable: true,
        wanted: true,
        max_attempts: 1,
        endings: vec![EndingKind::Err],
        undo_endings: endings,
    }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, 60_000);
    trial.finish();
    assert_eq!(trial.state.status, Status::CompensationFailed);
    assert_eq!(trial.state.undoing[0].attempts, 5);
    let step = name(0);
    trial.apply(order(What::Retry { step: step.clone(), release: Some(3) }));
    assert_eq!(trial.state.status, Status::Compensating);
    assert_eq!(trial.state.undoing[0].release, Some(3));
    let began = trial.now;
    trial.finish();
    assert_eq!(trial.state.status, Status::Compensated);
    assert_eq!(trial.state.undoing[0].attempts, 10);
    // Four waits of 1, 2, 4 and 8 seconds, 20 % more at most: the backoff began anew.
    assert!(trial.now.since(began).as_secs() <= 18, "{:?}", trial.now.since(began));
    let refused = react(&plan, &trial.state, order(What::Retry { step, release: None }), trial.now);
    assert_eq!(refused, Err(Refused::NotUndoing(Status::Compensated)));
}

/// The waits between the attempts of a step that always traps, in milliseconds.
fn waits(retry: Retry) -> Vec<u64> {
    let shapes = [StepShape {
        depends_on: Vec::new(),
        compensable: false,
        wanted: true,
        max_attempts: 1,
        endings: vec![EndingKind::Trap; 64],
        undo_endings: Vec::new(),
    }];
    let mut plan = plan(&shapes);
    plan.steps[0].retry = Some(retry);
    let mut trial = Trial::new(&plan, &shapes, u64::MAX / 4);
    trial.finish();
    let waits = trial.transitions.iter().flat_map(|(at, events)| events.iter().map(move |event| (at, event)));
    waits
        .filter_map(|(at, event)| match event {
            Event::StepRetryScheduled { next_attempt_at, .. } => {
                Some(u64::try_from(next_attempt_at.since(*at).as_millis()).unwrap())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn waits_grow_as_the_backoff_says_up_to_their_maximum() {
    let check = |backoff: Backoff, expected: [u64; 5]| {
        let retry = Retry { max_attempts: 6, backoff, initial_delay_ms: 1_000, max_delay_ms: 5_000 };
        for (wait, expected) in waits(retry).into_iter().zip(expected) {
            let most = (expected * 12 / 10).min(5_000);
            assert!((expected * 8 / 10..=most).contains(&wait), "{backoff:?}: {wait} for {expected}");
        }
    };
    check(Backoff::Exponential, [1_000, 2_000, 4_000, 5_000, 5_000]);
    check(Backoff::Linear, [1_000, 2_000, 3_000, 4_000, 5_000]);
    check(Backoff::Constant, [1_000, 1_000, 1_000, 1_000, 1_000]);
    assert!(waits(Retry::of_steps()).is_empty());
    assert_eq!(waits(Retry::of_compensations()).len(), 4);
    let endless = Retry {
        max_attempts: 60,
        backoff: Backoff::Exponential,
        initial_delay_ms: u64::MAX,
        max_delay_ms: 10,
    };
    assert!(waits(endless).iter().all(|wait| *wait <= 10));
}

#[test]
fn who_cancels_and_why_is_in_the_log_and_the_second_cancel_changes_nothing() {
    let shapes = [StepShape {
        depends_on: Vec::new(),
        compensable: true,
        wanted: true,
        max_attempts: 1,
        endings: vec![EndingKind::Ok],
        undo_endings: vec![EndingKind::Ok; 6],
    }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, 60_000);
    trial.apply(Signal::Tick);
    trial.apply(cancel());
    let events = trial.log().len();
    trial.apply(cancel());
    assert_eq!(trial.log().len(), events);
    let failed = trial.log().into_iter().find(|event| matches!(event, Event::WorkflowFailed { .. })).unwrap();
    let payload: Value = serde_json::from_str(&failed.payload()).unwrap();
    assert_eq!(payload["by"], "ops");
    assert_eq!(payload["reason"], "the bank said so");
    assert_eq!(payload["cause"], "CANCEL");
    trial.finish();
    assert_eq!(trial.state.status, Status::Compensated);
    let refused = react(&plan, &trial.state, cancel(), trial.now);
    assert_eq!(refused, Err(Refused::Over(Status::Compensated)));
}

#[test]
fn a_run_past_its_deadline_before_it_began_fails_with_its_first_event() {
    let shapes = [];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, 0);
    trial.apply(Signal::Tick);
    assert_eq!(kinds(&trial.log()), [("WORKFLOW_FAILED".to_owned(), Value::Null)]);
    assert_eq!(trial.state.status, Status::Failed);
}
