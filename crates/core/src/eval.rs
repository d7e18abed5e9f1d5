//! Expressions and bodies, computed as pure functions.
//!
//! A body is a function of its environment and of the answers to the calls that it has made: [`run`] computes it from its
//! beginning each time, and ends at the first call that has no answer yet. So the shell makes calls one by one without a
//! suspended evaluation to keep, and the n-th call is the n-th in every attempt: its idempotency key is stable.
//!
//! Expressions are total: whatever can't be computed is a [`Failure`] of the step, never a panic.

use serde_json::{Number, Value};

use crate::event::{Failure, FailureCode};
use crate::plan::{BinaryOp, Call, Expr, Plan, Statement};
use crate::state::RunState;

/// What a body ended in, or waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress<'p> {
    Call(PendingCall<'p>),
    /// `Return e`, `Return ok of e`, or null where the body ends without.
    Returned(Value),
    /// `Return err of e`, an `err` that a call answered, or a value that can't be computed.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq)]
pub struct PendingCall<'p> {
    pub call: &'p Call,
    /// The call's number in the body, from 1.
    pub number: u32,
    pub args: Vec<Value>,
}

/// What names stand for while a body or an expression is computed.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    plan: &'a Plan,
    input: &'a Value,
    state: Option<&'a RunState>,
}

impl<'a> Env<'a> {
    pub fn new(plan: &'a Plan, state: &'a RunState) -> Self {
        Self { plan, input: &state.accepted.input, state: Some(state) }
    }

    /// For `keyed by`, which is computed before there is a run.
    pub fn of_input(plan: &'a Plan, input: &'a Value) -> Self {
        Self { plan, input, state: None }
    }

    /// With one parameter the input is its value, with several an object by their names.
    fn parameter(&self, name: &str) -> &'a Value {
        match self.plan.parameters.as_slice() {
            [_] => self.input,
            _ => self.input.get(name).unwrap_or(&Value::Null),
        }
    }

    fn step(&self, name: &str) -> &'a Value {
        self.state.and_then(|state| state.value(name)).map_or(&Value::Null, |value| value)
    }
}

/// Computes `body`, given the answers to its first calls.
pub fn run<'p>(body: &'p [Statement], env: Env<'_>, answers: &[Result<Value, Failure>]) -> Progress<'p> {
    let mut frame = Frame { env, answers, calls_made: 0, locals: Vec::new() };
    match frame.block(body) {
        Ok(Some(value)) => Progress::Returned(value),
        Ok(None) => Progress::Returned(Value::Null),
        Err(Stop::Call(call)) => Progress::Call(call),
        Err(Stop::Failed(failure)) => Progress::Failed(failure),
    }
}

/// Computes an expression without calls: `when`, `keyed by`.
///
/// # Errors
/// It can't be computed; also if there is a call in it, which a checked plan hasn't.
pub fn pure(expr: &Expr, env: Env<'_>) -> Result<Value, Failure> {
    let mut frame = Frame { env, answers: &[], calls_made: 0, locals: Vec::new() };
    frame.expr(expr).map_err(|stop| match stop {
        Stop::Failed(failure) => failure,
        Stop::Call(pending) => type_error(format!("`{}` can't be called here", pending.call.function)),
    })
}

struct Frame<'a> {
    env: Env<'a>,
    answers: &'a [Result<Value, Failure>],
    calls_made: u32,
    /// Inner blocks push behind outer ones and are cut off at their end.
    locals: Vec<(String, Value)>,
}

/// Why a computation doesn't go on.
enum Stop<'p> {
    Call(PendingCall<'p>),
    Failed(Failure),
}

impl From<Failure> for Stop<'_> {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl Frame<'_> {
    /// The returned value, if the block returns.
    fn block<'p>(&mut self, statements: &'p [Statement]) -> Result<Option<Value>, Stop<'p>> {
        let outer = self.locals.len();
        for statement in statements {
            if let Some(value) = self.statement(statement)? {
                return Ok(Some(value));
            }
        }
        self.locals.truncate(outer);
        Ok(None)
    }

    fn statement<'p>(&mut self, statement: &'p Statement) -> Result<Option<Value>, Stop<'p>> {
        match statement {
            Statement::Let { name, value } => {
                let value = self.expr(value)?;
                self.locals.push((name.clone(), value));
                Ok(None)
            }
            Statement::Return { err: false, value } => self.expr(value).map(Some),
            Statement::Return { err: true, value } => {
                let error = self.expr(value)?;
                Err(Stop::Failed(returned_error(error)))
            }
            Statement::Do { call } => self.call(call).map(|_| None),
            Statement::If { condition, then, otherwise } => {
                let branch = if self.truth(condition, "`If`")? { then } else { otherwise };
                self.block(branch)
            }
        }
    }

    fn expr<'p>(&mut self, expr: &'p Expr) -> Result<Value, Stop<'p>> {
        Ok(match expr {
            Expr::Literal(value) => value.clone(),
            Expr::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match self.expr(part)? {
                        Value::String(part) => text.push_str(&part),
                        other => text.push_str(&other.to_string()),
                    }
                }
                Value::String(text)
            }
            Expr::Parameter(name) => self.env.parameter(name).clone(),
            Expr::Step(name) => self.env.step(name).clone(),
            Expr::Local(name) => {
                let local = self.locals.iter().rev().find(|(local, _)| local == name);
                local.map(|(_, value)| value.clone()).unwrap_or(Value::Null)
            }
            Expr::Field(of, name) => self.field(of, name)?,
            Expr::Index(of, index) => {
                let list = self.expr(of)?;
                let index = self.expr(index)?;
                element(list, &index)?
            }
            Expr::List(items) => {
                let items: Result<Vec<Value>, _> = items.iter().map(|item| self.expr(item)).collect();
                Value::Array(items?)
            }
            Expr::Record(fields) => {
                let mut record = serde_json::Map::new();
                for (name, value) in fields {
                    record.insert(name.clone(), self.expr(value)?);
                }
                Value::Object(record)
            }
            Expr::Not(of) => Value::Bool(!self.truth(of, "`not`")?),
            Expr::Negate(of) => negate(self.expr(of)?)?,
            Expr::Binary(op, a, b) => self.binary(*op, a, b)?,
            Expr::Call(call) => self.call(call)?,
        })
    }

    /// Paths are walked by reference, so that a field of a large value doesn't copy the value.
    fn field<'p>(&mut self, of: &'p Expr, name: &str) -> Result<Value, Stop<'p>> {
        if let Some(value) = self.place(of)? {
            return Ok(field_of(value, name)?.clone());
        }
        let value = self.expr(of)?;
        Ok(field_of(&value, name)?.clone())
    }

    /// The value that a path of names stands for; `None` if `expr` is something else, or a local.
    fn place(&self, expr: &Expr) -> Result<Option<&Value>, Failure> {
        match expr {
            Expr::Parameter(name) => Ok(Some(self.env.parameter(name))),
            Expr::Step(name) => Ok(Some(self.env.step(name))),
            Expr::Field(of, name) => self.place(of)?.map(|value| field_of(value, name)).transpose(),
            _ => Ok(None),
        }
    }

    fn truth<'p>(&mut self, expr: &'p Expr, whose: &str) -> Result<bool, Stop<'p>> {
        match self.expr(expr)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(type_error(format!("{whose} takes true or false, not {}", kind(&other))).into()),
        }
    }

    fn binary<'p>(&mut self, op: BinaryOp, a: &'p Expr, b: &'p Expr) -> Result<Value, Stop<'p>> {
        match op {
            BinaryOp::And => Ok((self.truth(a, "`and`")? && self.truth(b, "`and`")?).into()),
            BinaryOp::Or => Ok((self.truth(a, "`or`")? || self.truth(b, "`or`")?).into()),
            _ => {
                let a = self.expr(a)?;
                let b = self.expr(b)?;
                Ok(operate(op, &a, &b)?)
            }
        }
    }

    fn call<'p>(&mut self, call: &'p Call) -> Result<Value, Stop<'p>> {
        let args: Result<Vec<Value>, _> = call.args.iter().map(|arg| self.expr(arg)).collect();
        let args = args?;
        self.calls_made += 1;
        match self.answers.get(self.calls_made as usize - 1) {
            Some(Ok(value)) => Ok(value.clone()),
            Some(Err(failure)) => Err(failure.clone().into()),
            None => Err(Stop::Call(PendingCall { call, number: self.calls_made, args })),
        }
    }
}

fn returned_error(error: Value) -> Failure {
    match error {
        Value::String(message) => Failure::new(FailureCode::Error, message),
        other => Failure { code: FailureCode::Error, message: other.to_string(), detail: Some(other) },
    }
}

/// A path through null is null; a field missing from a record that is there is an error. Fields are found by their words,
/// since a value's names are camelCase and the source's may be snake_case.
fn field_of<'v>(value: &'v Value, name: &str) -> Result<&'v Value, Failure> {
    const NULL: &Value = &Value::Null;
    match value {
        Value::Null => Ok(NULL),
        Value::Object(fields) => fields
            .get(name)
            .or_else(|| {
                fields.iter().find(|(field, _)| crate::name::same(field, name)).map(|(_, value)| value)
            })
            .ok_or_else(|| {
                let names: Vec<_> = fields.keys().map(|field| format!("`{field}`")).collect();
                let there = if names.is_empty() { "no fields".into() } else { names.join(", ") };
                type_error(format!("no field `{name}`: the record has {there}"))
            }),
        other => Err(type_error(format!("`.{name}` of {}: only a record has fields", kind(other)))),
    }
}

fn element(mut list: Value, index: &Value) -> Result<Value, Failure> {
    match (&mut list, index) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Array(items), Value::Number(number)) => {
            let len = items.len();
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok()).filter(|at| *at < len);
            let at = at.ok_or_else(|| type_error(format!("no element {number}: the list has {len}")))?;
            Ok(items.swap_remove(at))
        }
        (Value::Array(_), other) => {
            Err(type_error(format!("a list is indexed by a number, not {}", kind(other))))
        }
        (other, _) => Err(type_error(format!("`[…]` of {}: only a list has elements", kind(other)))),
    }
}

fn operate(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, Failure> {
    let symbol = symbol(op);
    match op {
        BinaryOp::Eq => return Ok(equal(a, b).into()),
        BinaryOp::Ne => return Ok((!equal(a, b)).into()),
        _ => {}
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => match op {
            BinaryOp::Add => Ok(Value::String(format!("{a}{b}"))),
            BinaryOp::Lt => Ok((a < b).into()),
            BinaryOp::Le => Ok((a <= b).into()),
            BinaryOp::Gt => Ok((a > b).into()),
            BinaryOp::Ge => Ok((a >= b).into()),
            _ => Err(type_error(format!("`{symbol}` of two texts"))),
        },
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => integers(op, a, b),
            _ => floats(op, a, b),
        },
        (Value::Array(a), Value::Array(b)) if op == BinaryOp::Add => {
            Ok(Value::Array(a.iter().chain(b).cloned().collect()))
        }
        _ => Err(type_error(format!("`{symbol}` of {} and {}", kind(a), kind(b)))),
    }
}

fn integers(op: BinaryOp, a: i64, b: i64) -> Result<Value, Failure> {
    let overflow = || type_error(format!("`{a} {} {b}` overflows a 64-bit integer", symbol(op)));
    Ok(match op {
        BinaryOp::Add => a.checked_add(b).ok_or_else(overflow)?.into(),
        BinaryOp::Sub => a.checked_sub(b).ok_or_else(overflow)?.into(),
        BinaryOp::Mul => a.checked_mul(b).ok_or_else(overflow)?.into(),
        BinaryOp::Div if b == 0 => return Err(type_error(format!("`{a} / 0`: division by zero"))),
        BinaryOp::Div => a.checked_div(b).ok_or_else(overflow)?.into(),
        BinaryOp::Lt => (a < b).into(),
        BinaryOp::Le => (a <= b).into(),
        BinaryOp::Gt => (a > b).into(),
        BinaryOp::Ge => (a >= b).into(),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::And | BinaryOp::Or => unreachable_op(op)?,
    })
}

fn floats(op: BinaryOp, a: &Number, b: &Number) -> Result<Value, Failure> {
    let (Some(x), Some(y)) = (a.as_f64(), b.as_f64()) else {
        return Err(type_error(format!("`{a} {} {b}` has a number that is out of range", symbol(op))));
    };
    let number = match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div if y == 0.0 => return Err(type_error(format!("`{a} / {b}`: division by zero"))),
        BinaryOp::Div => x / y,
        BinaryOp::Lt => return Ok((x < y).into()),
        BinaryOp::Le => return Ok((x <= y).into()),
        BinaryOp::Gt => return Ok((x > y).into()),
        BinaryOp::Ge => return Ok((x >= y).into()),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::And | BinaryOp::Or => return unreachable_op(op),
    };
    Number::from_f64(number)
        .map(Value::Number)
        .ok_or_else(|| type_error(format!("`{a} {} {b}` is too large for a number", symbol(op))))
}

/// These operators are computed before numbers are looked at.
fn unreachable_op(op: BinaryOp) -> Result<Value, Failure> {
    Err(type_error(format!("`{}` is not an operator of numbers", symbol(op))))
}

/// Numbers are equal by value (`1 == 1.0`), at any depth.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64() == b.as_f64(),
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

fn negate(value: Value) -> Result<Value, Failure> {
    let Value::Number(number) = &value else {
        return Err(type_error(format!("`-` of {}", kind(&value))));
    };
    if let Some(integer) = number.as_i64() {
        let negated = integer.checked_neg();
        return negated
            .map(Value::from)
            .ok_or_else(|| type_error(format!("`-{integer}` overflows a 64-bit integer")));
    }
    let float = number.as_f64().and_then(|float| Number::from_f64(-float));
    float.map(Value::Number).ok_or_else(|| type_error(format!("`-{number}` is out of range")))
}

fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Or => "or",
        BinaryOp::And => "and",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a record",
    }
}

fn type_error(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::Type, message)
}
