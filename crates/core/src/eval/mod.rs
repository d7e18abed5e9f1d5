//! The evaluator of expressions and bodies, which are pure functions.
//!
//! A body is a function of its environment and of the answers to its calls. [`run`] computes the body from its beginning
//! each time, and ends at the first call that has no answer yet. So the shell makes the calls one by one and keeps no
//! suspended evaluation. The n-th call is the n-th in every attempt, so its idempotency key is stable.
//!
//! Expressions are total: one that can't be computed is a [`Failure`] of the step, never a panic.

mod operator;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use self::operator::{negate, operate};
use crate::event::{Failure, FailureCode};
use crate::plan::{BinaryOp, Call, Expr, Plan, Statement};
use crate::state::RunState;

/// The most bytes of values that one evaluation may build or copy, the answers of its calls included. Without it, a text
/// that is doubled thirty times would take the host's memory.
pub const MAX_BUILT_BYTES: usize = 64 << 20;

/// The most calls that one attempt may make. The body is computed again for each call, so this bounds that work, too.
pub const MAX_CALLS: u32 = 256;

/// The most steps of one evaluation. Each expression and statement is a step, and so is each field whose words are compared
/// with a name. It bounds an evaluation that builds little to some hundred milliseconds.
pub const MAX_STEPS: usize = 1_000_000;

/// The deepest nesting of values. Stored values must be read back, and readers of JSON stop at 128 levels.
pub const MAX_DEPTH: usize = 64;

/// The end of an evaluation: a call that the body waits for, or the end of the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress<'p> {
    Call(PendingCall<'p>),
    /// The value of `Return e` or `Return ok of e`, or null if the body ends without a `Return`.
    Returned(Value),
    /// The error of `Return err of e` or of a failed call, or a value that can't be computed.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq)]
pub struct PendingCall<'p> {
    pub call: &'p Call,
    /// The call's number in the body, from 1.
    pub number: u32,
    pub args: Vec<Value>,
}

/// The answers of the calls of a body, in their order.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    answers: Vec<Result<Value, Failure>>,
    /// INVARIANT: the size of all values. It is kept, since every evaluation needs it.
    bytes: usize,
}

impl Answers {
    pub fn push(&mut self, answer: Result<Value, Failure>) {
        self.bytes = self.bytes.saturating_add(answer.as_ref().map_or(0, size));
        self.answers.push(answer);
    }
}

/// The meaning of names while a body or an expression is computed.
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

    /// For `keyed by`, which is computed before the run exists.
    pub fn of_input(plan: &'a Plan, input: &'a Value) -> Self {
        Self { plan, input, state: None }
    }

    /// A single parameter is the input itself. Several are fields of the input, by their names.
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
pub fn run<'p>(body: &'p [Statement], env: Env<'_>, answers: &Answers) -> Progress<'p> {
    let mut frame = Frame::new(env, &answers.answers);
    let returned = frame.count(answers.bytes).map_err(Stop::Failed).and_then(|()| frame.block(body));
    match returned {
        Ok(Some(value)) => Progress::Returned(value),
        Ok(None) => Progress::Returned(Value::Null),
        Err(Stop::Call(call)) => Progress::Call(call),
        Err(Stop::Failed(failure)) => Progress::Failed(failure),
    }
}

/// Computes an expression without calls, such as `when` and `keyed by`.
///
/// # Errors
/// The expression can't be computed, or it has a call. Checked plans have none there.
pub fn pure(expr: &Expr, env: Env<'_>) -> Result<Value, Failure> {
    let mut frame = Frame::new(env, &[]);
    frame.owned(expr).map_err(|stop| match stop {
        Stop::Failed(failure) => failure,
        Stop::Call(pending) => type_error(format!("`{}` can't be called here", pending.call.function)),
    })
}

/// One evaluation. Existing values (input, steps, answers) are borrowed until they become part of another value. So an
/// evaluation, which each call begins again, costs little however large they are.
struct Frame<'a, 'p> {
    env: Env<'a>,
    answers: &'a [Result<Value, Failure>],
    calls_made: u32,
    /// Inner blocks push their locals after the outer ones, and drop them at their end.
    locals: Vec<Local<'a, 'p>>,
    /// The place of each name's innermost local.
    places: HashMap<&'p str, usize>,
    built_bytes: usize,
    steps: usize,
}

struct Local<'a, 'p> {
    name: &'p str,
    value: Cow<'a, Value>,
    /// The place of the local that this one hides.
    hides: Option<usize>,
}

/// Why an evaluation stops.
enum Stop<'p> {
    Call(PendingCall<'p>),
    Failed(Failure),
}

impl From<Failure> for Stop<'_> {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl<'a, 'p> Frame<'a, 'p> {
    fn new(env: Env<'a>, answers: &'a [Result<Value, Failure>]) -> Self {
        Self {
            env,
            answers,
            calls_made: 0,
            locals: Vec::new(),
            places: HashMap::new(),
            built_bytes: 0,
            steps: 0,
        }
    }

    /// Counts steps that were taken or are about to be.
    fn step(&mut self, steps: usize) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(type_error(format!("the step's expressions take more than {MAX_STEPS} steps")));
        }
        Ok(())
    }

    /// The returned value, if the block returns.
    fn block(&mut self, statements: &'p [Statement]) -> Result<Option<Value>, Stop<'p>> {
        let outer = self.locals.len();
        for statement in statements {
            if let Some(value) = self.statement(statement)? {
                return Ok(Some(value));
            }
        }
        for local in self.locals.drain(outer..).rev() {
            match local.hides {
                Some(place) => self.places.insert(local.name, place),
                None => self.places.remove(local.name),
            };
        }
        Ok(None)
    }

    fn statement(&mut self, statement: &'p Statement) -> Result<Option<Value>, Stop<'p>> {
        self.step(1)?;
        match statement {
            Statement::Let { name, value } => {
                let value = self.expr(value)?;
                let hides = self.places.insert(name, self.locals.len());
                self.locals.push(Local { name, value, hides });
                Ok(None)
            }
            Statement::Return { err: false, value } => self.owned(value).map(Some),
            Statement::Return { err: true, value } => {
                let error = self.owned(value)?;
                Err(Stop::Failed(returned_error(error)))
            }
            Statement::Do { call } => self.call(call).map(|_| None),
            Statement::If { condition, then, otherwise } => {
                let branch = if self.truth(condition, "`If`")? { then } else { otherwise };
                self.block(branch)
            }
        }
    }

    fn expr(&mut self, expr: &'p Expr) -> Result<Cow<'a, Value>, Stop<'p>> {
        self.step(1)?;
        Ok(Cow::Owned(match expr {
            Expr::Literal(value) => self.built(value.clone())?,
            Expr::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    if text.len() > MAX_BUILT_BYTES {
                        break;
                    }
                    match &*self.expr(part)? {
                        Value::String(part) => text.push_str(part),
                        other => text.push_str(&other.to_string()),
                    }
                }
                self.built(Value::String(text))?
            }
            Expr::Parameter(name) => return Ok(Cow::Borrowed(self.env.parameter(name))),
            Expr::Step(name) => return Ok(Cow::Borrowed(self.env.step(name))),
            Expr::Local(name) => match self.local(name) {
                None => Value::Null,
                Some(Cow::Borrowed(value)) => return Ok(Cow::Borrowed(value)),
                Some(Cow::Owned(value)) => {
                    let value = value.clone();
                    self.built(value)?
                }
            },
            Expr::Field(of, name) => return self.field(of, name),
            Expr::Index(of, index) => {
                let list = self.expr(of)?;
                let index = self.expr(index)?;
                return Ok(element(list, &index)?);
            }
            Expr::List(items) => {
                let items: Result<Vec<Value>, _> = items.iter().map(|item| self.owned(item)).collect();
                self.nested(Value::Array(items?))?
            }
            Expr::Record(fields) => {
                let mut record = serde_json::Map::new();
                for (name, value) in fields {
                    record.insert(name.clone(), self.owned(value)?);
                }
                self.nested(Value::Object(record))?
            }
            Expr::Not(of) => Value::Bool(!self.truth(of, "`not`")?),
            Expr::Negate(of) => negate(self.owned(of)?)?,
            Expr::Binary(op, a, b) => self.binary(*op, a, b)?,
            Expr::Call(call) => return self.call(call).map(Cow::Borrowed),
        }))
    }

    /// Computes a value that becomes part of another one or leaves the evaluation.
    fn owned(&mut self, expr: &'p Expr) -> Result<Value, Stop<'p>> {
        let value = self.expr(expr)?;
        Ok(self.taken(value)?)
    }

    fn taken(&mut self, value: Cow<'a, Value>) -> Result<Value, Failure> {
        match value {
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => {
                self.count(size(value))?;
                Ok(value.clone())
            }
        }
    }

    /// Walks a path by reference, so that reading a field of a large value doesn't copy the value.
    fn field(&mut self, of: &'p Expr, name: &str) -> Result<Cow<'a, Value>, Stop<'p>> {
        let mut steps = 0;
        let found = match self.place(of, &mut steps)? {
            Some(value) => Some(field_of(value, name, &mut steps)?.clone()),
            None => None,
        };
        self.step(steps)?;
        if let Some(value) = found {
            return Ok(Cow::Owned(self.built(value)?));
        }
        let mut steps = 0;
        let found = match self.expr(of)? {
            Cow::Borrowed(value) => Cow::Borrowed(field_of(value, name, &mut steps)?),
            Cow::Owned(value) => Cow::Owned(field_of(&value, name, &mut steps)?.clone()),
        };
        self.step(steps)?;
        Ok(found)
    }

    /// The value of a path of names that begins at a value which was built here. Adds the steps taken to `steps`.
    fn place(&self, expr: &Expr, steps: &mut usize) -> Result<Option<&Value>, Failure> {
        match expr {
            Expr::Local(name) => Ok(match self.local(name) {
                Some(Cow::Owned(value)) => Some(value),
                _ => None,
            }),
            Expr::Field(of, name) => {
                let Some(value) = self.place(of, steps)? else { return Ok(None) };
                field_of(value, name, steps).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn local(&self, name: &str) -> Option<&Cow<'a, Value>> {
        self.places.get(name).map(|place| &self.locals[*place].value)
    }

    fn truth(&mut self, expr: &'p Expr, whose: &str) -> Result<bool, Stop<'p>> {
        match &*self.expr(expr)? {
            Value::Bool(truth) => Ok(*truth),
            other => Err(type_error(format!("{whose} takes true or false, not {}", kind(other))).into()),
        }
    }

    fn binary(&mut self, op: BinaryOp, a: &'p Expr, b: &'p Expr) -> Result<Value, Stop<'p>> {
        match op {
            BinaryOp::And => Ok((self.truth(a, "`and`")? && self.truth(b, "`and`")?).into()),
            BinaryOp::Or => Ok((self.truth(a, "`or`")? || self.truth(b, "`or`")?).into()),
            _ => {
                let a = self.expr(a)?;
                let b = self.expr(b)?;

                let value = operate(op, &a, &b)?;
                Ok(self.built(value)?)
            }
        }
    }

    /// Counts a value that was made or copied here against [`MAX_BUILT_BYTES`].
    fn built(&mut self, value: Value) -> Result<Value, Failure> {
        self.count(size(&value))?;
        Ok(value)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.built_bytes = self.built_bytes.saturating_add(bytes);
        if self.built_bytes > MAX_BUILT_BYTES {
            return Err(type_error(format!("the values of the step take more than {MAX_BUILT_BYTES} bytes")));
        }
        Ok(())
    }

    /// Does the same for a value around others, which may be one level too deep.
    fn nested(&mut self, value: Value) -> Result<Value, Failure> {
        if is_too_deep(&value) {
            return Err(type_error(format!("a value is nested deeper than {MAX_DEPTH} levels")));
        }
        self.built(value)
    }

    fn call(&mut self, call: &'p Call) -> Result<&'a Value, Stop<'p>> {
        let args: Result<Vec<Cow<'a, Value>>, _> = call.args.iter().map(|arg| self.expr(arg)).collect();
        let args = args?;
        self.calls_made += 1;
        if self.calls_made > MAX_CALLS {
            return Err(type_error(format!("the step makes more than {MAX_CALLS} calls")).into());
        }
        match self.answers.get(self.calls_made as usize - 1) {
            Some(Ok(value)) => Ok(value),
            Some(Err(failure)) => Err(failure.clone().into()),
            None => {
                let args: Result<Vec<Value>, _> = args.into_iter().map(|arg| self.taken(arg)).collect();
                Err(Stop::Call(PendingCall { call, number: self.calls_made, args: args? }))
            }
        }
    }
}

fn returned_error(error: Value) -> Failure {
    match error {
        Value::String(message) => Failure::new(FailureCode::Error, message),
        other => {
            Failure { detail: Some(other.clone()), ..Failure::new(FailureCode::Error, other.to_string()) }
        }
    }
}

/// The rough size of a value in bytes: its parts and its texts.
fn size(value: &Value) -> usize {
    let part = std::mem::size_of::<Value>();
    part + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| part + name.len() + size(value)).sum(),
    }
}

/// Whether a value is nested deeper than [`MAX_DEPTH`]. It looks no deeper than that.
pub fn is_too_deep(value: &Value) -> bool {
    fn deeper_than(levels: usize, value: &Value) -> bool {
        match value {
            Value::Array(items) => levels == 0 || items.iter().any(|value| deeper_than(levels - 1, value)),
            Value::Object(fields) => {
                levels == 0 || fields.values().any(|value| deeper_than(levels - 1, value))
            }
            _ => false,
        }
    }
    deeper_than(MAX_DEPTH, value)
}

/// The field `name` of a value. A path through null is null, but a field that a record lacks is an error. Fields are
/// found by their words, since a value has names in camelCase and the source may write snake_case.
///
/// Adds the steps taken to `steps`: a field that isn't spelled like `name` is compared by its words.
fn field_of<'v>(value: &'v Value, name: &str, steps: &mut usize) -> Result<&'v Value, Failure> {
    const NULL: &Value = &Value::Null;
    match value {
        Value::Null => Ok(NULL),
        Value::Object(fields) => fields
            .get(name)
            .or_else(|| {
                let words = crate::name::kebab(name);
                let mut by_words = fields.iter().inspect(|_| *steps += 1);
                by_words.find(|(field, _)| crate::name::kebab(field) == words).map(|(_, value)| value)
            })
            .ok_or_else(|| type_error(format!("no field `{name}`: the record has {}", named(fields)))),
        other => Err(type_error(format!("`.{name}` of {}: only a record has fields", kind(other)))),
    }
}

/// The names of a record's fields, for a message.
fn named(fields: &serde_json::Map<String, Value>) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<_> = fields.keys().take(SHOWN).map(|field| format!("`{field}`")).collect();
    match (shown.is_empty(), fields.len() > SHOWN) {
        (true, _) => "no fields".into(),
        (false, true) => format!("{}, …", shown.join(", ")),
        (false, false) => shown.join(", "),
    }
}

fn element<'a>(list: Cow<'a, Value>, index: &Value) -> Result<Cow<'a, Value>, Failure> {
    match (&*list, index) {
        (Value::Null, _) => Ok(Cow::Owned(Value::Null)),
        (Value::Array(items), Value::Number(number)) => {
            let len = items.len();
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok()).filter(|at| *at < len);
            let at = at.ok_or_else(|| type_error(format!("no element {number}: the list has {len}")))?;
            Ok(match list {
                Cow::Borrowed(list) => Cow::Borrowed(&list[at]),
                Cow::Owned(mut list) => Cow::Owned(list[at].take()),
            })
        }
        (Value::Array(_), other) => {
            Err(type_error(format!("a list is indexed by a number, not {}", kind(other))))
        }
        (other, _) => Err(type_error(format!("`[…]` of {}: only a list has elements", kind(other)))),
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
