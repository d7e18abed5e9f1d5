//! Single decisions of the saga, each in the state and at the instant where it turns.

mod common;

use std::sync::Arc;

use aster_core::event::{Author, Cause, Cost, Event, Failure, FailureCode};
use aster_core::id::Digest;
use aster_core::order::{self, Order, What};
use aster_core::plan::{Backoff, Expr, Plan, Retry, StepName};
use aster_core::saga::{Attempt, Command, Direction, Ending, Refused, Signal, decide, react, record};
use aster_core::state::{Outcome, Progress, RunState, Status, evolve};
use aster_core::time::Timestamp;
use aster_core::transition::Driver;
use serde_json::{Value, json};
use uuid::Uuid;

use common::{EndingKind, START, StepShape, Trial, accepted, cancel, name, order, plan};

const MINUTE: u64 = 60_000;

/// The types of events, each with its step: `STEP_STARTED step_0`.
fn told(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| {
        let payload: Value = serde_json::from_str(&event.payload()).unwrap();
        match payload["step"].as_str() {
            Some(step) => format!("{} {step}", event.event_type()),
            None => event.event_type().to_owned(),
        }
    };
    events.iter().map(one).collect()
}

fn attempt(step: usize, direction: Direction, number: u32, rerun: u32) -> Attempt {
    Attempt { step: name(step), direction, number, rerun }
}

fn ending(result: Result<Value, FailureCode>) -> Ending {
    let result = result.map(Arc::new).map_err(|code| Failure::new(code, "it failed"));
    Ending { result, cost: Cost::default() }
}

/// Each step depends on the one before it.
fn chain(plan: &mut Plan) {
    for place in 1..plan.steps.len() {
        plan.steps[place].depends_on = vec![name(place - 1)];
    }
}

/// The instants that `decide` asks to be woken at.
fn waits(plan: &Plan, state: &RunState, now: Timestamp) -> Vec<Timestamp> {
    let commands = decide(plan, state, now).into_iter();
    commands
        .filter_map(|command| match command {
            Command::WaitUntil(at) => Some(at),
            Command::Record(_) | Command::Run(_) => None,
        })
        .collect()
}

/// The events that time alone makes due.
fn due(plan: &Plan, state: &RunState, now: Timestamp) -> Vec<String> {
    told(&react(plan, state, Signal::Tick, now).unwrap().events)
}

/// The instant of the last retry that was scheduled.
fn scheduled(trial: &Trial) -> Timestamp {
    let last = trial.log().into_iter().rev().find_map(|event| match event {
        Event::StepRetryScheduled { next_attempt_at, .. }
        | Event::CompensationRetryScheduled { next_attempt_at, .. } => Some(next_attempt_at),
        _ => None,
    });
    last.expect("a retry was scheduled")
}

fn before(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis() - 1)
}

// Steps.

#[test]
fn a_step_begins_once_all_steps_that_it_depends_on_are_completed_or_skipped() {
    let shapes = [StepShape::sound(), StepShape { wanted: false, ..StepShape::sound() }, StepShape::sound()];
    let mut plan = plan(&shapes);
    plan.steps[2].depends_on = vec![name(0), name(1)];
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    assert_eq!(told(&trial.log()), ["WORKFLOW_STARTED", "STEP_STARTED step_0", "STEP_SKIPPED step_1"]);
    assert_eq!(trial.in_flight(), [attempt(0, Direction::Forward, 1, 0)]);
    trial.proceed(0);
    assert_eq!(told(&trial.transitions[1].1), ["STEP_COMPLETED step_0", "STEP_STARTED step_2"]);
}

#[test]
fn a_step_runs_or_is_skipped_as_its_condition_says() {
    let check = |condition: Value, expected: &str| {
        let shapes = [StepShape::sound()];
        let mut plan = plan(&shapes);
        plan.steps[0].when = Some(Expr::Literal(condition));
        let mut trial = Trial::new(&plan, &shapes, MINUTE);
        trial.apply(Signal::Tick);
        assert_eq!(told(&trial.log())[1], expected);
    };
    check(json!(true), "STEP_STARTED step_0");
    check(json!(false), "STEP_SKIPPED step_0");
    check(json!("true"), "STEP_FAILED step_0");
    check(Value::Null, "STEP_FAILED step_0");
}

#[test]
fn a_condition_reads_the_values_of_earlier_steps() {
    for wanted in [true, false] {
        let shapes = [StepShape::sound(), StepShape::sound()];
        let mut plan = plan(&shapes);
        chain(&mut plan);
        plan.steps[1].when = Some(Expr::Step(name(0)));
        let mut trial = Trial::new(&plan, &shapes, MINUTE);
        trial.apply(Signal::Tick);
        trial.apply(Signal::Ended(attempt(0, Direction::Forward, 1, 0), ending(Ok(json!(wanted)))));
        let expected = if wanted { "STEP_STARTED step_1" } else { "STEP_SKIPPED step_1" };
        assert_eq!(told(&trial.log())[3], expected);
    }
}

#[test]
fn a_step_whose_condition_cannot_be_computed_fails_without_an_attempt() {
    let shapes = [StepShape::sound(), StepShape::sound()];
    let mut plan = plan(&shapes);
    chain(&mut plan);
    plan.steps[1].when = Some(Expr::Literal(json!(3)));
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    let failed = trial.log().into_iter().find_map(|event| match event {
        Event::StepFailed { step, attempt, error, .. } => Some((step, attempt, error.code, error.message)),
        _ => None,
    });
    let message = "`when` takes true or false, not `3`".to_owned();
    assert_eq!(failed, Some((name(1), 0, FailureCode::Type, message)));
    // The step never began, so only the step before it is undone.
    assert_eq!(trial.state.stack, [name(0)]);
}

#[test]
fn a_run_completes_with_the_value_of_its_last_step() {
    let check = |wanted: bool, expected: Value| {
        let shapes = [StepShape::sound(), StepShape { wanted, ..StepShape::sound() }];
        let mut plan = plan(&shapes);
        chain(&mut plan);
        let mut trial = Trial::new(&plan, &shapes, MINUTE);
        trial.finish();
        assert_eq!(trial.state.result.as_deref(), Some(&expected));
        let row = record(&plan, &trial.state, trial.now);
        assert_eq!((row.status, row.result.as_deref()), (Status::Completed, Some(&expected)));
        assert_eq!((row.cause, row.error, row.driver), (None, None, Driver::Nobody));
    };
    check(true, json!(1));
    check(false, Value::Null);
}

#[test]
fn the_values_of_steps_are_null_until_they_complete() {
    let shapes = [StepShape::sound(), StepShape::sound()];
    let mut plan = plan(&shapes);
    chain(&mut plan);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    assert_eq!(trial.state.value("step_0").map(|value| &**value), Some(&Value::Null));
    assert_eq!(trial.state.value("step_1"), None);
    assert_eq!(trial.state.outcome("step_0"), Outcome::None);
    trial.proceed(0);
    assert_eq!(trial.state.value("step_0").map(|value| &**value), Some(&json!(1)));
    assert_eq!(trial.state.outcome("step_0"), Outcome::Completed);
    assert_eq!(trial.state.outcome("step_1"), Outcome::None);
}

// Instants.

#[test]
fn a_step_is_tried_again_at_the_instant_of_its_retry_and_not_before() {
    let endings = vec![EndingKind::Trap, EndingKind::Ok];
    let shapes = [StepShape { max_attempts: 2, endings, ..StepShape::sound() }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    let at = scheduled(&trial);
    let deadline = START.plus_millis(MINUTE);
    assert_eq!(waits(&plan, &trial.state, before(at)), [at, deadline]);
    assert_eq!(due(&plan, &trial.state, before(at)), [""; 0]);
    assert_eq!(record(&plan, &trial.state, before(at)).driver, Driver::ClaimableAt(at));
    assert_eq!(due(&plan, &trial.state, at), ["STEP_STARTED step_0"]);
}

#[test]
fn a_compensation_is_tried_again_at_the_instant_of_its_retry_and_not_before() {
    let undo_endings = vec![EndingKind::Trap, EndingKind::Ok];
    let shapes = [StepShape { undo_endings, ..StepShape::failing() }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    trial.proceed(0);
    let at = scheduled(&trial);
    assert_eq!(trial.state.undoing[0].progress, Progress::Waiting { attempt: 2, at });
    assert_eq!(waits(&plan, &trial.state, before(at)), [at]);
    assert_eq!(due(&plan, &trial.state, before(at)), [""; 0]);
    assert_eq!(record(&plan, &trial.state, before(at)).driver, Driver::ClaimableAt(at));
    assert_eq!(due(&plan, &trial.state, at), ["COMPENSATION_STARTED step_0"]);
}

#[test]
fn a_run_times_out_at_its_deadline_and_not_before() {
    let shapes = [StepShape::sound()];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    let deadline = START.plus_millis(MINUTE);
    assert_eq!(due(&plan, &trial.state, before(deadline)), [""; 0]);
    trial.now = deadline;
    trial.apply(Signal::Tick);
    let expected = ["STEP_CANCELLED step_0", "WORKFLOW_FAILED", "COMPENSATION_STARTED step_0"];
    assert_eq!(told(&trial.transitions[1].1), expected);
    let row = record(&plan, &trial.state, trial.now);
    assert_eq!((row.status, row.cause), (Status::Compensating, Some(Cause::Timeout)));
    assert_eq!(row.error.map(|error| error.code), Some(FailureCode::Timeout));
    assert_eq!(row.driver, Driver::Owner);
}

#[test]
fn a_run_stays_with_its_owner_while_one_step_waits_and_another_is_in_flight() {
    let endings = vec![EndingKind::Trap, EndingKind::Ok];
    let shapes = [StepShape { max_attempts: 2, endings, ..StepShape::sound() }, StepShape::sound()];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    assert!(matches!(trial.state.steps["step_0"].progress, Progress::Waiting { .. }));
    assert_eq!(record(&plan, &trial.state, trial.now).driver, Driver::Owner);
    trial.apply(Signal::Ended(attempt(1, Direction::Forward, 1, 0), ending(Ok(Value::Null))));
    assert_eq!(record(&plan, &trial.state, trial.now).driver, Driver::ClaimableAt(scheduled(&trial)));
}

// Retries.

/// How often step 0 is tried, and how often its compensation, if nothing ever succeeds.
fn attempts(retry: [Option<Retry>; 3]) -> (usize, usize) {
    let [of_workflow, of_step, of_compensation] = retry;
    let traps = vec![EndingKind::Trap; 16];
    let shapes = [StepShape { endings: traps.clone(), undo_endings: traps, ..StepShape::sound() }];
    let mut plan = plan(&shapes);
    plan.retry = of_workflow;
    plan.steps[0].retry = of_step;
    plan.steps[0].compensation.as_mut().unwrap().retry = of_compensation;
    let mut trial = Trial::new(&plan, &shapes, 60 * MINUTE);
    trial.finish();
    let count = |kind: &str| told(&trial.log()).iter().filter(|told| told.starts_with(kind)).count();
    (count("STEP_STARTED"), count("COMPENSATION_STARTED"))
}

#[test]
fn a_step_has_its_own_retry_or_the_workflows_and_a_compensation_only_its_own() {
    let retry = |attempts| Some(Retry::attempts(attempts));
    assert_eq!(attempts([None, None, None]), (1, 5));
    assert_eq!(attempts([retry(3), None, None]), (3, 5));
    assert_eq!(attempts([retry(3), retry(2), None]), (2, 5));
    assert_eq!(attempts([retry(3), retry(2), retry(7)]), (2, 7));
}

#[test]
fn an_error_that_no_attempt_can_mend_is_not_tried_again() {
    let shapes = [StepShape { max_attempts: 3, ..StepShape::failing() }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.finish();
    assert_eq!(told(&trial.log())[2], "STEP_FAILED step_0");
}

/// A replay computes the waits again, on any platform and in any later version, so they are written out here.
#[test]
fn the_waits_of_a_run_are_the_same_wherever_it_is_computed() {
    let check = |backoff: Backoff, step: &[u64], undo: &[u64]| {
        let traps = vec![EndingKind::Trap; 16];
        let shapes = [StepShape { endings: traps.clone(), undo_endings: traps, ..StepShape::sound() }];
        let mut plan = plan(&shapes);
        let retry = Retry { max_attempts: 6, backoff, initial_delay_ms: 1_000, max_delay_ms: 60_000 };
        plan.steps[0].retry = Some(retry.clone());
        plan.steps[0].compensation.as_mut().unwrap().retry = Some(Retry { max_attempts: 3, ..retry });
        let mut trial = Trial::new(&plan, &shapes, 60 * MINUTE);
        trial.finish();
        trial.apply(order(What::Retry { step: name(0), release: None }));
        trial.finish();
        let mut waits = (Vec::new(), Vec::new());
        for (at, events) in &trial.transitions {
            let waited = |until: &Timestamp| u64::try_from(until.since(*at).as_millis()).unwrap();
            for event in events {
                match event {
                    Event::StepRetryScheduled { next_attempt_at, .. } => {
                        waits.0.push(waited(next_attempt_at))
                    }
                    Event::CompensationRetryScheduled { next_attempt_at, .. } => {
                        waits.1.push(waited(next_attempt_at));
                    }
                    _ => {}
                }
            }
        }
        assert_eq!((&waits.0[..], &waits.1[..]), (step, undo), "{backoff:?}");
    };
    // Attempts 1 and 2 of the compensation, then 4 and 5, which are the first two of an operator's retry.
    check(Backoff::Exponential, &[1_003, 1_990, 4_644, 6_632, 14_016], &[1_003, 1_990, 829, 1_752]);
    check(Backoff::Linear, &[1_003, 1_990, 3_483, 3_316, 4_380], &[1_003, 1_990, 829, 1_752]);
    check(Backoff::Constant, &[1_003, 995, 1_161, 829, 876], &[1_003, 995, 829, 876]);
}

// Ends that come late, and hosts that are lost.

#[test]
fn only_the_attempt_in_flight_can_end() {
    let shapes = [StepShape::sound(), StepShape::sound()];
    let mut plan = plan(&shapes);
    chain(&mut plan);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.apply(Signal::HostLost);
    assert_eq!(trial.in_flight(), [attempt(0, Direction::Forward, 1, 1)]);
    let late = [
        attempt(0, Direction::Forward, 1, 0),
        attempt(0, Direction::Forward, 2, 1),
        attempt(0, Direction::Undo, 1, 1),
        attempt(1, Direction::Forward, 1, 0),
        attempt(2, Direction::Forward, 1, 0),
    ];
    for attempt in late {
        let signal = Signal::Ended(attempt.clone(), ending(Ok(Value::Null)));
        assert_eq!(react(&plan, &trial.state, signal, trial.now), Err(Refused::LateResult(attempt)));
    }
    trial.proceed(0);
    assert_eq!(trial.in_flight(), [attempt(1, Direction::Forward, 1, 0)]);
}

#[test]
fn a_lost_host_begins_again_what_was_in_flight_and_nothing_else() {
    let shapes = [StepShape::sound(), StepShape { compensable: false, ..StepShape::sound() }];
    let mut plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(1);
    let reaction = react(&plan, &trial.state, Signal::HostLost, trial.now).unwrap();
    let rerun = Event::StepStarted { step: name(0), attempt: 1, rerun: 1, compensable: true };
    assert_eq!(reaction.events, [rerun]);

    plan.steps[0].compensation = None;
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    let reaction = react(&plan, &trial.state, Signal::HostLost, trial.now).unwrap();
    let rerun = |step| Event::StepStarted { step: name(step), attempt: 1, rerun: 1, compensable: false };
    assert_eq!(reaction.events, [rerun(0), rerun(1)]);
}

#[test]
fn a_compensation_that_loses_its_host_three_times_fails() {
    let shapes = [StepShape::failing()];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    for rerun in 0..3 {
        assert_eq!(trial.in_flight(), [attempt(0, Direction::Undo, 1, rerun)]);
        trial.apply(Signal::HostLost);
    }
    assert_eq!(trial.state.status, Status::CompensationFailed);
    let code = trial.state.undoing[0].error.as_ref().map(|error| error.code);
    assert_eq!(code, Some(FailureCode::HostLost));
}

// Undoing.

#[test]
fn a_compensation_under_way_is_finished_before_another_that_an_operator_retries() {
    let undo_endings = vec![EndingKind::Err, EndingKind::Ok];
    let shapes = [
        StepShape::sound(),
        StepShape { undo_endings, ..StepShape::sound() },
        StepShape { compensable: false, ..StepShape::failing() },
    ];
    let mut plan = plan(&shapes);
    chain(&mut plan);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    for _ in 0..5 {
        trial.proceed(0);
    }
    // Step 1 could not be undone, and step 0 is being undone.
    assert_eq!(trial.in_flight(), [attempt(0, Direction::Undo, 1, 0)]);
    trial.apply(order(What::Retry { step: name(1), release: None }));
    assert_eq!(trial.in_flight(), [attempt(0, Direction::Undo, 1, 0)]);
    trial.proceed(0);
    assert_eq!(trial.in_flight(), [attempt(1, Direction::Undo, 2, 0)]);
    trial.proceed(0);
    assert_eq!(trial.state.status, Status::Compensated);
}

#[test]
fn a_run_that_could_not_be_undone_names_the_steps_that_are_left() {
    let stuck = StepShape { undo_endings: vec![EndingKind::Err; 6], ..StepShape::sound() };
    let shapes =
        [stuck.clone(), StepShape::sound(), stuck, StepShape { compensable: false, ..StepShape::failing() }];
    let mut plan = plan(&shapes);
    chain(&mut plan);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.finish();
    let last = trial.log().pop();
    assert_eq!(last, Some(Event::WorkflowCompensationFailed { failed: vec![name(2), name(0)] }));
    assert_eq!(record(&plan, &trial.state, trial.now).driver, Driver::Nobody);
    assert_eq!(decide(&plan, &trial.state, trial.now), []);
}

#[test]
fn the_compensations_of_a_run_are_known_before_it_fails() {
    let shapes = [StepShape::sound(), StepShape::sound()];
    let mut plan = plan(&shapes);
    chain(&mut plan);
    let steps = |state: &RunState| -> Vec<StepName> {
        state.compensations().into_iter().map(|undo| undo.step).collect()
    };
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    assert_eq!(steps(&trial.state), [name(1), name(0)]);
    let mut completed = Trial::new(&plan, &shapes, MINUTE);
    completed.finish();
    assert_eq!(steps(&completed.state), [] as [StepName; 0]);
    trial.apply(cancel());
    trial.proceed(0);
    let states: Vec<&str> = trial.state.compensations().iter().map(|undo| undo.state_name()).collect();
    assert_eq!((steps(&trial.state), states), (vec![name(1), name(0)], vec!["done", "running"]));
}

#[test]
fn a_compensation_keeps_its_newest_error_and_the_component_that_it_called_last() {
    let shapes = [StepShape::failing()];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);
    let cost = |digest: Option<u8>| Cost {
        component: Some("payment".into()),
        digest: digest.map(|byte| Digest([byte; 32])),
        ..Cost::default()
    };
    let end = |number, digest, result| {
        Signal::Ended(attempt(0, Direction::Undo, number, 0), Ending { cost: cost(digest), ..ending(result) })
    };
    trial.apply(end(1, Some(1), Err(FailureCode::Trap)));
    let undo = &trial.state.undoing[0];
    assert_eq!((undo.attempts, undo.state_name()), (1, "pending"));
    assert_eq!(undo.error.as_ref().map(|error| error.code), Some(FailureCode::Trap));
    assert_eq!(undo.component, Some(("payment".into(), Digest([1; 32]))));
    trial.now = scheduled(&trial);
    trial.apply(Signal::Tick);
    // An attempt that made no call says nothing about the component.
    trial.apply(end(2, None, Err(FailureCode::Timeout)));
    let undo = &trial.state.undoing[0];
    assert_eq!(undo.error.as_ref().map(|error| error.code), Some(FailureCode::Timeout));
    assert_eq!(undo.component, Some(("payment".into(), Digest([1; 32]))));
    trial.now = scheduled(&trial);
    trial.apply(Signal::Tick);
    trial.apply(end(3, Some(3), Ok(Value::Null)));
    let undo = &trial.state.undoing[0];
    assert_eq!((undo.attempts, undo.state_name()), (3, "done"));
    assert_eq!(undo.error.as_ref().map(|error| error.code), Some(FailureCode::Timeout));
    assert_eq!(undo.component, Some(("payment".into(), Digest([3; 32]))));
}

// Orders.

fn retry() -> What {
    What::Retry { step: name(0), release: None }
}

fn skip() -> What {
    What::Skip { step: name(0) }
}

fn settle() -> What {
    What::Settle { step: name(0) }
}

/// The reaction to an order, or why it is refused. Asserts that a check of the order gives the same answer.
fn answer(trial: &Trial, what: What) -> Result<Vec<String>, Refused> {
    let signal = order(what);
    let reaction = react(trial.plan, &trial.state, signal.clone(), trial.now);
    let Signal::Ordered(order) = signal else { unreachable!("it is an order") };
    assert_eq!(order::check(&trial.state, &order), reaction.clone().map(drop));
    reaction.map(|reaction| told(&reaction.events))
}

fn already(state: &'static str) -> Result<Vec<String>, Refused> {
    Err(Refused::Already { step: name(0), state })
}

fn events<const N: usize>(told: [&str; N]) -> Result<Vec<String>, Refused> {
    Ok(told.map(str::to_owned).into())
}

#[test]
fn a_run_that_has_not_failed_takes_a_cancel_and_no_act_on_a_compensation() {
    let shapes = [StepShape::sound()];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    for what in [retry(), skip(), settle()] {
        assert_eq!(answer(&trial, what), Err(Refused::NotUndoing(Status::Ready)));
    }
    assert_eq!(answer(&trial, What::Cancel), events(["WORKFLOW_FAILED"]));
    trial.apply(Signal::Tick);
    for what in [retry(), skip(), settle()] {
        assert_eq!(answer(&trial, what), Err(Refused::NotUndoing(Status::Running)));
    }
    let expected = ["STEP_CANCELLED step_0", "WORKFLOW_FAILED", "COMPENSATION_STARTED step_0"];
    assert_eq!(answer(&trial, What::Cancel), events(expected));
    trial.finish();
    for what in [retry(), skip(), settle()] {
        assert_eq!(answer(&trial, what), Err(Refused::NotUndoing(Status::Completed)));
    }
    assert_eq!(answer(&trial, What::Cancel), Err(Refused::Over(Status::Completed)));
}

#[test]
fn a_compensation_takes_the_acts_that_its_state_has_a_use_for() {
    let undo_endings = vec![EndingKind::Trap, EndingKind::Err, EndingKind::Ok];
    let shapes = [StepShape { undo_endings, ..StepShape::failing() }];
    let plan = plan(&shapes);
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.proceed(0);

    // In flight.
    assert_eq!(answer(&trial, What::Cancel), events([]));
    assert_eq!(answer(&trial, retry()), already("running"));
    assert_eq!(answer(&trial, skip()), events(["OPERATOR_SKIPPED step_0", "WORKFLOW_COMPENSATED"]));
    assert_eq!(answer(&trial, settle()), events(["OPERATOR_SETTLED step_0", "WORKFLOW_COMPENSATED"]));
    let other = What::Skip { step: name(1) };
    assert_eq!(answer(&trial, other), Err(Refused::NothingToUndo(name(1))));

    // Waiting for its second attempt.
    trial.proceed(0);
    assert_eq!(answer(&trial, retry()), events(["OPERATOR_RETRIED step_0", "COMPENSATION_STARTED step_0"]));
    assert_eq!(answer(&trial, skip()), events(["OPERATOR_SKIPPED step_0", "WORKFLOW_COMPENSATED"]));

    // Failed.
    trial.finish();
    assert_eq!(trial.state.status, Status::CompensationFailed);
    assert_eq!(answer(&trial, What::Cancel), Err(Refused::Over(Status::CompensationFailed)));
    assert_eq!(answer(&trial, settle()), events(["OPERATOR_SETTLED step_0", "WORKFLOW_COMPENSATED"]));
    assert_eq!(answer(&trial, retry()), events(["OPERATOR_RETRIED step_0", "COMPENSATION_STARTED step_0"]));

    // Under way again, and done.
    trial.apply(order(retry()));
    assert_eq!(trial.in_flight(), [attempt(0, Direction::Undo, 3, 0)]);
    assert_eq!(trial.state.undoing[0].spent, 2);
    trial.finish();
    for what in [retry(), skip(), settle()] {
        assert_eq!(answer(&trial, what), Err(Refused::NotUndoing(Status::Compensated)));
    }
}

#[test]
fn a_compensation_that_is_over_takes_no_act_while_others_are_undone() {
    let check = |act: What, state: &'static str| {
        let shapes = [StepShape { compensable: false, ..StepShape::failing() }, StepShape::sound()];
        let mut plan = plan(&shapes);
        // Both steps have a compensation, and both have started.
        plan.steps[0].compensation = plan.steps[1].compensation.clone();
        let mut trial = Trial::new(&plan, &shapes, MINUTE);
        trial.apply(Signal::Tick);
        trial.proceed(0);
        let first = trial.state.undoing[0].step.clone();
        assert_eq!((first, trial.state.undoing[1].step.clone()), (name(1), name(0)));
        // The second waits for its turn.
        assert_eq!(answer(&trial, retry()), already("pending"));
        trial.apply(order(act));
        assert_eq!(trial.state.undo("step_0").unwrap().state_name(), state);
        for what in [retry(), skip(), settle()] {
            assert_eq!(answer(&trial, what), already(state));
        }
        trial.finish();
        assert_eq!(trial.state.status, Status::Compensated);
    };
    check(skip(), "skipped");
    check(settle(), "settled");
}

#[test]
fn an_order_that_was_carried_out_changes_nothing_when_it_is_found_again() {
    let shapes = [StepShape::failing()];
    let plan = plan(&shapes);
    let ids: [Uuid; 2] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let ordered = |what: What, id: Uuid| {
        let author = Author { by: None, reason: None, order_id: Some(id) };
        Signal::Ordered(Order { what, author })
    };
    let mut trial = Trial::new(&plan, &shapes, MINUTE);
    trial.apply(Signal::Tick);
    trial.apply(ordered(What::Cancel, ids[0]));
    trial.apply(ordered(skip(), ids[1]));
    assert_eq!(trial.state.status, Status::Compensated);
    assert_eq!(trial.state.orders, ids);
    for (what, id) in [(What::Cancel, ids[0]), (skip(), ids[1])] {
        let reaction = react(&plan, &trial.state, ordered(what, id), trial.now).unwrap();
        assert_eq!((reaction.state, reaction.events), (trial.state.clone(), Vec::new()));
    }
}

// States.

#[test]
fn a_status_reads_back_from_its_text() {
    for status in Status::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(status.to_string(), status.as_str());
        assert_eq!(serde_json::to_value(status).unwrap(), json!(status.as_str()));
    }
    let over: Vec<&str> =
        Status::ALL.into_iter().filter(|status| status.is_over()).map(Status::as_str).collect();
    assert_eq!(over, ["COMPLETED", "FAILED", "COMPENSATED", "COMPENSATION_FAILED"]);
    let unknown = "DONE".parse::<Status>().unwrap_err();
    assert!(unknown.to_string().starts_with("`DONE` is not a status"), "{unknown}");
}

#[test]
fn an_event_that_makes_no_sense_in_a_state_changes_only_the_sequence() {
    let step = name(0);
    let error = Failure::new(FailureCode::Trap, "it failed");
    let cost = Cost::default();
    let senseless = [
        Event::CompensationStarted { step: step.clone(), attempt: 1, rerun: 0 },
        Event::CompensationCompleted {
            step: step.clone(),
            attempt: 1,
            value: Arc::default(),
            cost: cost.clone(),
        },
        Event::CompensationFailed { step, attempt: 1, error, cost },
    ];
    let mut state = accepted(MINUTE);
    for (event, sequence) in senseless.iter().zip(1..) {
        evolve(&mut state, event);
        assert_eq!(state, RunState { sequence, ..accepted(MINUTE) });
    }
}
