//! Turns a checked tree into plans. Nothing is reported here any more.

use std::sync::Arc;

use aster_core::plan::{self, Capabilities, Limits, PLAN_FORMAT, Plan};
use serde_json::Value;

use crate::ast::{self, Expr, ExprKind, File, StatementKind, TextPart};
use crate::check::Model;
use crate::diagnostic::Sink;

/// Makes one plan for each function. The file has no errors.
pub(crate) fn lower(file: &File, models: &[Model], sink: &Sink) -> Vec<Plan> {
    let module = file.module.as_ref().map_or("", |module| module.text.as_str());
    models.iter().map(|model| Lowering::new(model, sink).plan(module)).collect()
}

struct Lowering<'l, 't, 's> {
    model: &'l Model<'t>,
    /// Finds the lines of spans.
    sink: &'l Sink<'s>,
    /// The names of the steps, which the plan shares.
    names: Vec<Arc<str>>,
}

impl<'l, 't, 's> Lowering<'l, 't, 's> {
    fn new(model: &'l Model<'t>, sink: &'l Sink<'s>) -> Self {
        let names = model.workflow.steps.iter().map(|step| Arc::from(step.name.text.as_str())).collect();
        Self { model, sink, names }
    }

    fn plan(&self, module: &str) -> Plan {
        let function = self.model.function;
        // A workflow has no `memory`.
        let settings = &self.model.workflow.settings;
        let ast::Settings { timeout_ms, fuel, memory_bytes: _, retry: _, trigger } = settings;
        Plan {
            format: PLAN_FORMAT,
            name: format!("{module}.{}", function.name.text),
            parameters: function
                .params
                .iter()
                .map(|param| plan::Parameter { name: param.name.text.clone(), ty: param.ty.ty.clone() })
                .collect(),
            result: function.result.as_ref().map_or(plan::Type::Json, |result| result.ty.clone()),
            capabilities: match &function.io {
                None => Capabilities::Only(Vec::new()),
                Some(ast::Io { list: None }) => Capabilities::Any,
                Some(ast::Io { list: Some(list) }) => {
                    Capabilities::Only(list.iter().map(|name| name.text.clone()).collect())
                }
            },
            timeout_ms: timeout_ms.as_ref().map(|timeout| timeout.value),
            retry: retry(settings),
            fuel: fuel.as_ref().map(|fuel| fuel.value),
            trigger: trigger.as_ref().map(|trigger| plan::Trigger {
                path: trigger.path.text.clone(),
                key: self.expr(&trigger.key),
                key_field: last_name(&trigger.key),
            }),
            steps: (0..self.model.workflow.steps.len()).map(|place| self.step(place)).collect(),
        }
    }

    fn step(&self, place: usize) -> plan::Step {
        let step = &self.model.workflow.steps[place];
        plan::Step {
            name: Arc::clone(&self.names[place]),
            line: self.line(step.name.span),
            depends_on: self.model.depends_on[place]
                .iter()
                .map(|other| Arc::clone(&self.names[*other]))
                .collect(),
            when: step.when.as_ref().map(|when| self.expr(when)),
            body: self.body(&step.body),
            limits: limits(&step.settings),
            retry: retry(&step.settings),
            compensation: self.model.compensations[place].map(|compensation| plan::Compensation {
                line: self.line(compensation.span),
                body: self.body(&compensation.body),
                limits: limits(&compensation.settings),
                retry: retry(&compensation.settings),
            }),
        }
    }

    fn body(&self, statements: &[ast::Statement]) -> Vec<plan::Statement> {
        statements.iter().filter_map(|statement| self.statement(statement)).collect()
    }

    /// An `await` is no statement of the plan, since it is among the dependencies of the step.
    fn statement(&self, statement: &ast::Statement) -> Option<plan::Statement> {
        Some(match &statement.kind {
            StatementKind::Await(_) | StatementKind::Lost => return None,
            StatementKind::Let { name, value } => {
                plan::Statement::Let { name: name.text.clone(), value: self.expr(value) }
            }
            StatementKind::Return { err, value } => {
                plan::Statement::Return { err: *err, value: self.expr(value) }
            }
            StatementKind::Do(call) => plan::Statement::Do { call: self.call(call) },
            StatementKind::If { condition, then, otherwise } => plan::Statement::If {
                condition: self.expr(condition),
                then: self.body(then),
                otherwise: self.body(otherwise),
            },
        })
    }

    fn expr(&self, expr: &Expr) -> plan::Expr {
        let boxed = |of: &Expr| Box::new(self.expr(of));
        match &expr.kind {
            // An error was reported for it, so no plan is made.
            ExprKind::Error | ExprKind::Null => plan::Expr::Literal(Value::Null),
            ExprKind::Bool(value) => plan::Expr::Literal(Value::Bool(*value)),
            ExprKind::Int(value) => plan::Expr::Literal(Value::from(*value)),
            ExprKind::Float(value) => plan::Expr::Literal(Value::from(*value)),
            ExprKind::Text(parts) => self.text(parts),
            // INVARIANT: a name has one meaning, since the check refuses a `Let` with the name of a parameter or step.
            ExprKind::Name(name) if self.model.params.contains_key(name.as_str()) => {
                plan::Expr::Parameter(name.clone())
            }
            ExprKind::Name(name) => match self.model.steps.get(name.as_str()) {
                Some(place) => plan::Expr::Step(Arc::clone(&self.names[*place])),
                None => plan::Expr::Local(name.clone()),
            },
            ExprKind::Field(of, name) => plan::Expr::Field(boxed(of), name.text.clone()),
            ExprKind::Index(of, index) => plan::Expr::Index(boxed(of), boxed(index)),
            ExprKind::List(items) => plan::Expr::List(items.iter().map(|item| self.expr(item)).collect()),
            ExprKind::Record(fields) => plan::Expr::Record(
                fields.iter().map(|(name, value)| (name.text.clone(), self.expr(value))).collect(),
            ),
            ExprKind::Not(of) => plan::Expr::Not(boxed(of)),
            ExprKind::Negate(of) => plan::Expr::Negate(boxed(of)),
            ExprKind::Binary(op, left, right) => plan::Expr::Binary(*op, boxed(left), boxed(right)),
            ExprKind::Call(call) => plan::Expr::Call(self.call(call)),
        }
    }

    fn text(&self, parts: &[TextPart]) -> plan::Expr {
        if let [TextPart::Plain(plain)] = parts {
            return plan::Expr::Literal(Value::String(plain.clone()));
        }
        let part = |part: &TextPart| match part {
            TextPart::Plain(plain) => plan::Expr::Literal(Value::String(plain.clone())),
            TextPart::Path(path) => self.expr(path),
        };
        plan::Expr::Text(parts.iter().map(part).collect())
    }

    fn call(&self, call: &ast::Call) -> plan::Call {
        plan::Call {
            capability: call.capability.text.clone(),
            interface: call.interface.as_ref().map(|interface| interface.text.clone()),
            function: call.function.text.clone(),
            args: call.args.iter().map(|arg| self.expr(arg)).collect(),
            line: self.line(call.span),
        }
    }

    fn line(&self, span: crate::Span) -> u32 {
        u32::try_from(self.sink.line(span.start)).unwrap_or(u32::MAX)
    }
}

fn limits(settings: &ast::Settings) -> Limits {
    // `retry` has a place of its own in the plan, and a `trigger` is never here.
    let ast::Settings { timeout_ms, fuel, memory_bytes, retry: _, trigger: _ } = settings;
    Limits {
        timeout_ms: timeout_ms.as_ref().map(|timeout| timeout.value),
        fuel: fuel.as_ref().map(|fuel| fuel.value),
        memory_bytes: memory_bytes.as_ref().map(|memory| memory.value),
    }
}

fn retry(settings: &ast::Settings) -> Option<plan::Retry> {
    let retry = &settings.retry.as_ref()?.value;
    let defaults = plan::Retry::attempts(retry.max_attempts.unwrap_or(1));
    Some(plan::Retry {
        backoff: retry.backoff.unwrap_or_default(),
        initial_delay_ms: retry.initial_delay_ms.unwrap_or(defaults.initial_delay_ms),
        max_delay_ms: retry.max_delay_ms.unwrap_or(defaults.max_delay_ms),
        ..defaults
    })
}

fn last_name(path: &Expr) -> String {
    match &path.kind {
        ExprKind::Name(name) => name.clone(),
        ExprKind::Field(_, name) => name.text.clone(),
        _ => String::new(),
    }
}
