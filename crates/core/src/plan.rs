//! The checked plan of a definition: a graph of steps, whose bodies are trees of expressions.
//!
//! A plan is stored with its definition as JSON with a version, and never made again for a run in flight. So every field
//! here belongs to a stored format: fields are added with a default and never renamed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version that this code writes. It reads all earlier ones.
pub const PLAN_FORMAT: u32 = 1;

/// A step's name, unique in its plan.
pub type StepName = Arc<str>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The [`PLAN_FORMAT`] of the code that made the plan.
    pub format: u32,
    /// The definition's full name, `module.function`.
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// The type that the head of the function produces.
    pub result: Type,
    pub capabilities: Capabilities,
    /// The longest time from acceptance to the end of the steps. `None` means the host's default.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// For steps without their own `retry` block. Compensations have another default.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// The fuel of each step that sets none itself. `None` means the host's default.
    #[serde(default)]
    pub fuel: Option<u64>,
    #[serde(default)]
    pub trigger: Option<Trigger>,
    /// In the order of the source. The value of the last step is the result of the workflow. A step may depend on a later
    /// one, but the dependencies have no cycle.
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| &*step.name == name)
    }

    /// All calls of the plan, those of compensations included, each with its step.
    pub fn calls(&self) -> Vec<(&Step, &Call)> {
        let mut calls = Vec::new();
        for step in &self.steps {
            let back = step.compensation.iter().flat_map(Compensation::calls);
            calls.extend(step.calls().into_iter().chain(back).map(|call| (step, call)));
        }
        calls
    }

    /// The names of all components that the plan can call, in kebab-case, sorted and each once.
    pub fn components(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.calls().iter().map(|(_, call)| crate::name::kebab(&call.capability)).collect();
        names.sort();
        names.dedup();
        names
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: Type,
}

/// A type of the language. `Named` stands for a WIT type that a called component exports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Type {
    Text,
    Int,
    Float,
    Double,
    Bool,
    Json,
    Unit,
    Io,
    Named(String),
    List(Box<Type>),
    Option(Box<Type>),
    /// One or two types: that of `ok`, and that of `err`.
    Result(Vec<Type>),
    Workflow(Vec<Type>),
}

/// The components that the workflow may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Capabilities {
    Any,
    Only(Vec<String>),
}

/// `trigger: POST "/api/orders" keyed by order.orderId.`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Begins with `/` and doesn't end with it.
    pub path: String,
    pub key: Expr,
    /// The last name in `keyed by`, under which the answers of the trigger give the key.
    pub key_field: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub name: StepName,
    /// The line of the source, counted from 1.
    pub line: u32,
    /// The steps that must be completed or skipped first. All belong to the same plan.
    pub depends_on: Vec<StepName>,
    /// The step is skipped if this is false. It has no call.
    #[serde(default)]
    pub when: Option<Expr>,
    pub body: Vec<Statement>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub retry: Option<Retry>,
    #[serde(default)]
    pub compensation: Option<Compensation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compensation {
    pub line: u32,
    pub body: Vec<Statement>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub retry: Option<Retry>,
}

impl Step {
    /// The calls of the body in evaluation order: inner ones come first.
    pub fn calls(&self) -> Vec<&Call> {
        calls_of(&self.body)
    }
}

impl Compensation {
    /// The calls of the body in evaluation order: inner ones come first.
    pub fn calls(&self) -> Vec<&Call> {
        calls_of(&self.body)
    }
}

fn calls_of(body: &[Statement]) -> Vec<&Call> {
    let mut calls = Vec::new();
    body.iter().for_each(|statement| statement.calls(&mut calls));
    calls
}

/// The limits that the source sets. `None` means the setting of the workflow, or else the host's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    #[serde(default)]
    pub fuel: Option<u64>,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// At least 1. The first attempt counts.
    pub max_attempts: u32,
    #[serde(default)]
    pub backoff: Backoff,
    /// The default is 1 s.
    pub initial_delay_ms: u64,
    /// The default is 1 min.
    pub max_delay_ms: u64,
}

impl Retry {
    pub const DEFAULT_INITIAL_DELAY_MS: u64 = 1_000;
    pub const DEFAULT_MAX_DELAY_MS: u64 = 60_000;

    /// The default of steps: one attempt.
    pub fn of_steps() -> Self {
        Self::attempts(1)
    }

    /// The default of compensations: five attempts with exponential backoff.
    pub fn of_compensations() -> Self {
        Self::attempts(5)
    }

    pub fn attempts(max_attempts: u32) -> Self {
        Self {
            max_attempts,
            backoff: Backoff::Exponential,
            initial_delay_ms: Self::DEFAULT_INITIAL_DELAY_MS,
            max_delay_ms: Self::DEFAULT_MAX_DELAY_MS,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backoff {
    /// Doubles each time.
    #[default]
    Exponential,
    /// Grows by the initial delay each time.
    Linear,
    Constant,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Statement {
    Let {
        name: String,
        value: Expr,
    },
    /// Ends the body. `Return e` and `Return ok of e` mean the same.
    Return {
        #[serde(default)]
        err: bool,
        value: Expr,
    },
    /// A call whose value is not used.
    Do {
        call: Call,
    },
    If {
        condition: Expr,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Expr {
    /// Null, true or false, a number, or a text without interpolation.
    Literal(Value),
    /// A text with `{path}` in it. The values of its parts are joined.
    Text(Vec<Expr>),
    Parameter(String),
    /// The value of an earlier step, or, in a compensation, of its own step.
    Step(StepName),
    Local(String),
    Field(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Record(Vec<(String, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    Call(Call),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BinaryOp {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
}

/// A call such as `Inventory.reserve(order.orderId, order.items)`, with the names as the source spells them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub capability: String,
    #[serde(default)]
    pub interface: Option<String>,
    pub function: String,
    pub args: Vec<Expr>,
    /// The line of the source, counted from 1.
    pub line: u32,
}

impl Statement {
    fn calls<'a>(&'a self, out: &mut Vec<&'a Call>) {
        match self {
            Statement::Let { value, .. } | Statement::Return { value, .. } => value.calls(out),
            Statement::Do { call } => call.calls(out),
            Statement::If { condition, then, otherwise } => {
                condition.calls(out);
                then.iter().chain(otherwise).for_each(|statement| statement.calls(out));
            }
        }
    }
}

impl Call {
    /// Inner calls come first, in evaluation order.
    fn calls<'a>(&'a self, out: &mut Vec<&'a Call>) {
        self.args.iter().for_each(|arg| arg.calls(out));
        out.push(self);
    }
}

impl Expr {
    fn calls<'a>(&'a self, out: &mut Vec<&'a Call>) {
        match self {
            Expr::Literal(_) | Expr::Parameter(_) | Expr::Step(_) | Expr::Local(_) => {}
            Expr::Text(parts) | Expr::List(parts) => parts.iter().for_each(|part| part.calls(out)),
            Expr::Field(of, _) | Expr::Not(of) | Expr::Negate(of) => of.calls(out),
            Expr::Index(a, b) | Expr::Binary(_, a, b) => {
                a.calls(out);
                b.calls(out);
            }
            Expr::Record(fields) => fields.iter().for_each(|(_, value)| value.calls(out)),
            Expr::Call(call) => call.calls(out),
        }
    }
}
