use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::plan::{Capabilities, PLAN_FORMAT, Type};

fn empty_plan() -> Plan {
    Plan {
        format: PLAN_FORMAT,
        name: "test.empty".into(),
        parameters: Vec::new(),
        result: Type::Json,
        capabilities: Capabilities::Any,
        timeout_ms: None,
        retry: None,
        fuel: None,
        trigger: None,
        steps: Vec::new(),
    }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let call = Call { capability: "C".into(), interface: None, function: name.into(), args, line: 1 };
    Expr::Call(call)
}

fn answered<const N: usize>(given: [Result<Value, Failure>; N]) -> Answers {
    let mut answers = Answers::default();
    given.into_iter().for_each(|answer| answers.push(answer));
    answers
}

/// An evaluation after sixty calls took 20 ms when each answer was copied.
#[test]
fn answers_are_not_copied_by_the_evaluations_that_pass_them() {
    let plan = empty_plan();
    let mut body: Vec<Statement> =
        (0..60).map(|n| Statement::Let { name: format!("v{n}"), value: call("f", Vec::new()) }).collect();
    let last = Expr::Field(Box::new(Expr::Local("v59".into())), "name".into());
    body.push(Statement::Return { err: false, value: last });
    let mut answers = Answers::default();
    for _ in 0..60 {
        answers.push(Ok(json!({"name": "short", "text": "x".repeat(1_000_000)})));
    }
    let mut frame = Frame::new(Env::of_input(&plan, &Value::Null), &answers.answers);
    let Ok(Some(value)) = frame.block(&body) else { panic!("it returns") };
    assert_eq!(value, json!("short"));
    assert!(frame.built_bytes < 1_000, "{} bytes were copied", frame.built_bytes);
}

#[test]
fn answers_that_take_too_much_together_fail_the_step() {
    let plan = empty_plan();
    let body: Vec<Statement> =
        (0..70).map(|n| Statement::Let { name: format!("v{n}"), value: call("f", Vec::new()) }).collect();
    let mut answers = Answers::default();
    let calls = (0..)
        .find(|_| {
            let progress = run(&body, Env::of_input(&plan, &Value::Null), &answers);
            answers.push(Ok(json!("x".repeat(1 << 20))));
            !matches!(progress, Progress::Call(_))
        })
        .expect("it ends");
    assert_eq!(calls, 64);
}

#[test]
fn a_body_asks_for_its_calls_one_by_one_and_uses_their_answers() {
    let plan = empty_plan();
    let env = Env::of_input(&plan, &Value::Null);
    let body = [Statement::Return { err: false, value: call("outer", vec![call("inner", Vec::new())]) }];
    let mut answers = Answers::default();
    let mut asked = Vec::new();
    loop {
        match run(&body, env, &answers) {
            Progress::Call(pending) => {
                asked.push((pending.call.function.clone(), pending.number, pending.args));
                answers.push(Ok(json!(asked.len())));
            }
            ended => {
                assert_eq!(ended, Progress::Returned(json!(2)));
                break;
            }
        }
    }
    assert_eq!(asked, [("inner".into(), 1, vec![]), ("outer".into(), 2, vec![json!(1)])]);
}

#[test]
fn an_err_that_a_call_answers_ends_the_body() {
    let plan = empty_plan();
    let failure = Failure::new(FailureCode::Error, "no");
    let body = [
        Statement::Let { name: "a".into(), value: call("f", Vec::new()) },
        Statement::Return { err: false, value: call("g", Vec::new()) },
    ];
    let ended = run(&body, Env::of_input(&plan, &Value::Null), &answered([Err(failure.clone())]));
    assert_eq!(ended, Progress::Failed(failure));
}

#[test]
fn a_value_that_doubles_itself_fails_before_it_fills_the_memory() {
    let plan = empty_plan();
    let double = |name: &str, of: &str| Statement::Let {
        name: name.into(),
        value: Expr::Text(vec![Expr::Local(of.into()), Expr::Local(of.into())]),
    };
    let mut body = vec![Statement::Let { name: "v0".into(), value: Expr::Literal(json!("ten bytes.")) }];
    body.extend((0..60).map(|n| double(&format!("v{}", n + 1), &format!("v{n}"))));
    let ended = run(&body, Env::of_input(&plan, &Value::Null), &Answers::default());
    let Progress::Failed(failure) = ended else { panic!("{ended:?}") };
    assert_eq!(failure.code, FailureCode::Type);
    assert!(failure.message.contains("take more than"), "{}", failure.message);
}

#[test]
fn depth_is_counted_by_levels() {
    let nested = |levels: usize| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    assert!(!is_too_deep(&nested(MAX_DEPTH)));
    assert!(is_too_deep(&nested(MAX_DEPTH + 1)));
    assert!(!is_too_deep(&Arc::new(json!({"a": [1, {"b": null}]}))));
}

fn field(of: Expr, name: &str) -> Expr {
    Expr::Field(Box::new(of), name.into())
}

#[test]
fn a_name_stands_for_its_innermost_value_and_for_the_outer_one_after_that() {
    let plan = empty_plan();
    let define =
        |name: &str, value: i64| Statement::Let { name: name.into(), value: Expr::Literal(json!(value)) };
    let local = |name: &str| Expr::Local(name.into());
    let inner = call("see", vec![local("a"), local("b")]);
    let body = [
        define("a", 1),
        Statement::If {
            condition: Expr::Literal(json!(true)),
            then: vec![
                define("a", 2),
                define("a", 3),
                define("b", 4),
                Statement::Let { name: "c".into(), value: inner },
            ],
            otherwise: Vec::new(),
        },
        Statement::Return { err: false, value: Expr::List(vec![local("a"), local("b"), local("c")]) },
    ];
    let env = Env::of_input(&plan, &Value::Null);
    let Progress::Call(pending) = run(&body, env, &Answers::default()) else { panic!("it calls") };
    assert_eq!(pending.args, [json!(3), json!(4)]);
    assert_eq!(run(&body, env, &answered([Ok(json!(0))])), Progress::Returned(json!([1, null, null])));
}

#[test]
fn many_names_take_no_longer_than_their_number() {
    let plan = empty_plan();
    // Each reads the first name. A search from name to name would take two billion comparisons.
    let first = Expr::Local("n0".into());
    let body: Vec<Statement> = (0..60_000)
        .map(|n| Statement::Let {
            name: format!("n{n}"),
            value: if n == 0 { Expr::Literal(json!(7)) } else { first.clone() },
        })
        .chain([Statement::Return { err: false, value: Expr::Local("n59999".into()) }])
        .collect();
    assert_eq!(
        run(&body, Env::of_input(&plan, &Value::Null), &Answers::default()),
        Progress::Returned(json!(7))
    );
}

#[test]
fn the_steps_of_an_evaluation_are_bounded_even_if_it_builds_nothing() {
    let mut plan = empty_plan();
    plan.parameters = vec![crate::plan::Parameter { name: "a".into(), ty: Type::Json }];
    let wide: Value =
        (0..100_000).map(|n| (format!("f{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    // The name has the words of the last field, so that all fields are compared.
    let read = field(Expr::Parameter("a".into()), "F99999");
    let body = |times| [Statement::Return { err: false, value: Expr::List(vec![read.clone(); times]) }];
    let env = Env::of_input(&plan, &wide);
    assert_eq!(run(&body(2), env, &Answers::default()), Progress::Returned(json!([99_999, 99_999])));
    let Progress::Failed(failure) = run(&body(20), env, &Answers::default()) else {
        panic!("it takes too long")
    };
    assert_eq!(failure.message, "the step's expressions take more than 1000000 steps");
}

#[test]
fn a_message_lists_some_of_many_fields() {
    let plan = empty_plan();
    let wide: Value = (0..100).map(|n| (format!("f{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let read = field(Expr::Literal(wide), "nothing");
    let Err(failure) = pure(&read, Env::of_input(&plan, &Value::Null)) else { panic!("there is none") };
    assert!(failure.message.ends_with(", …") && failure.message.len() < 300, "{}", failure.message);
}
