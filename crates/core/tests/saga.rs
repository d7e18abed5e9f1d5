//! Properties of the saga over random plans and histories.

mod common;

use aster_core::event::{Event, FailureCode};
use aster_core::order::{self, What};
use aster_core::plan::{Backoff, Plan, Retry, StepName};
use aster_core::saga::{Attempt, Refused, Signal, decide, earliest_wait, react, record};
use aster_core::state::{RunState, Status, evolve};
use aster_core::transition::Driver;
use proptest::prelude::*;
use serde_json::Value;

use common::{EndingKind, StepShape, Trial, cancel, name, order, plan};

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

/// Asserts what must hold for the log of every run that has ended.
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

    let mut passed: Vec<&StepName> = Vec::new();
    for event in log {
        match event {
            Event::StepStarted { step, .. } => {
                let depends_on = &plan.step(step).unwrap().depends_on;
                assert!(
                    depends_on.iter().all(|before| passed.contains(&before)),
                    "`{step}` went before another"
                );
            }
            Event::StepCompleted { step, .. } | Event::StepSkipped { step } => passed.push(step),
            _ => {}
        }
    }

    let mut started: Vec<StepName> = Vec::new();
    for event in log {
        match event {
            Event::StepStarted { step, .. } if !started.contains(step) => started.push(step.clone()),
            _ => {}
        }
    }
    let compensable: Vec<StepName> =
        started.into_iter().filter(|step| plan.step(step).unwrap().compensation.is_some()).rev().collect();
    // Only the events before an operator's first act, since the operator decides the order after it.
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

/// Asserts the content of the run's row in a state in which nothing is due.
fn check_row(trial: &Trial) {
    let Trial { plan, state, now, .. } = trial;
    let row = record(plan, state, *now);
    assert_eq!((row.status, &row.result), (state.status, &state.result));
    assert_eq!(row.cause, state.failed.as_ref().map(|failed| failed.cause));
    assert_eq!(row.error.as_ref(), state.error());
    let expected = match earliest_wait(&decide(plan, state, *now)) {
        _ if state.status.is_over() => Driver::Nobody,
        _ if !trial.in_flight().is_empty() => Driver::Owner,
        Some(at) => Driver::ClaimableAt(at),
        None => panic!("nothing is in flight, and nothing is waited for: {state:#?}"),
    };
    assert_eq!(row.driver, expected);
}

/// The log without the attempts that began again because their host was lost.
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
            check_row(&trial);
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
            if !trial.transitions.is_empty() {
                check_row(&trial);
            }
            // The end of an attempt that is no longer in flight can't be recorded.
            if let Some(late) = late.filter(|late| !trial.in_flight_if_started().contains(late)) {
                let ending = trial.ending(&late);
                prop_assert!(react(&plan, &trial.state, Signal::Ended(late, ending), trial.now).is_err());
            }
        }
        trial.finish();
        check_ended(&plan, &trial.log(), &trial.state);
    }

    #[test]
    fn an_operator_can_settle_every_compensation_that_failed(
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
            let reaction = react(&plan, &trial.state, signal.clone(), trial.now);
            let Signal::Ordered(order) = &signal else { unreachable!("it is an order") };
            prop_assert_eq!(order::check(&trial.state, order), reaction.clone().map(drop));
            match reaction {
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
        // Every compensation that failed can be settled, and then none is left.
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

/// The type and the step of each event. The instants of retries depend on the clock of a resumed run, so they are left out.
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
    let shapes = [StepShape { max_attempts: 3, ..StepShape::sound() }];
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
    let shapes = [StepShape { undo_endings: endings, ..StepShape::failing() }];
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
    // The backoff began again: four waits of 1, 2, 4 and 8 seconds, and at most 20 % more.
    assert!(trial.now.since(began).as_secs() <= 18, "{:?}", trial.now.since(began));
    let refused = react(&plan, &trial.state, order(What::Retry { step, release: None }), trial.now);
    assert_eq!(refused, Err(Refused::NotUndoing(Status::Compensated)));
}

/// The waits between the attempts of a step that always traps, in milliseconds.
fn waits(retry: Retry) -> Vec<u64> {
    let endings = vec![EndingKind::Trap; 64];
    let shapes = [StepShape { compensable: false, endings, ..StepShape::sound() }];
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
fn the_author_of_a_cancel_is_in_the_log_and_a_second_cancel_changes_nothing() {
    let shapes = [StepShape::sound()];
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
