//! Checks calls against the exports of the components: functions, arguments, and paths into values of a known type.
//!
//! A type is known if it comes from a component: the type of a call, of a step that returns one, or of a parameter
//! whose type a component exports. Every other type is [`Type::Any`], and is checked when the step runs. Only what is
//! surely wrong is reported.

mod components;
mod describe;
mod fit;
mod infer;
mod lookup;
mod parts;
mod resolve;

pub use resolve::{ResolveError, resolve_type};

use std::borrow::Cow;
use std::cell::OnceCell;

use aster_core::wit::Type;

use crate::ast::{self, ExprKind, Statement, StatementKind};
use crate::check::{Model, surely_returns};
use crate::codes;
use crate::diagnostic::Sink;
use components::Called;
pub(crate) use components::Components;
use describe::describe;
use infer::{Scope, owned};

/// Checks each function against the registered components.
pub(crate) fn check(models: &[Model], components: &Components, sink: &mut Sink) {
    for model in models {
        if sink.is_full() {
            return;
        }
        let called = lookup::called(model, components, sink);
        named_types(model, &called, sink);
        bodies(model, &called, sink);
    }
}

fn named_types(model: &Model, called: &Called, sink: &mut Sink) {
    let params = model.function.params.iter().map(|param| &param.ty);
    for name in params.chain(&model.function.result).flat_map(|ty| &ty.named) {
        match called.named(&name.text) {
            Ok(Some(_)) => {}
            Ok(None) if called.missing => {}
            Ok(None) => {
                sink.report(
                    &codes::UNKNOWN_TYPE,
                    name.span,
                    format!("no called component exports a type `{}`", name.text),
                )
                .help("it stands for any JSON now; export the type from a component, or write `Json`");
            }
            Err(error) => {
                sink.report(&codes::TYPE_CONFLICT, name.span, error.to_string())
                    .help("give the type the same shape in each component, or another name in one of them");
            }
        }
    }
}

/// Checks the bodies of all steps. A step comes after its dependencies, so that the types of the values that it reads are
/// known.
fn bodies(model: &Model, called: &Called, sink: &mut Sink) {
    let count = model.workflow.steps.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_cached_key(|step| model.before[*step].len());
    let mut values: Vec<Option<Type>> = vec![None; count];
    let params: Params = model.function.params.iter().map(|_| OnceCell::new()).collect();
    for place in order {
        let step = &model.workflow.steps[place];
        let mut scope = Scope::new(model, called, &params, &values);
        if let Some(when) = &step.when {
            scope.condition(when, sink);
        }
        let mut value = scope.body(&step.body, sink);
        if !surely_returns(&step.body) {
            value = Some(infer::join_all(value, Type::Unit, sink));
        }
        let mut value = value.unwrap_or(Type::Any);
        if step.when.is_some() {
            value = infer::join(value, Type::Unit);
        }
        if let Some(compensation) = model.compensations[place] {
            // The value is null if the step never completed.
            let own = scope.copied(&value, sink);
            values[place] = Some(infer::join(own, Type::Unit));
            Scope::new(model, called, &params, &values).body(&compensation.body, sink);
        }
        values[place] = Some(value);
    }
    if let Some(trigger) = &model.workflow.settings.trigger {
        let scope = Scope::new(model, called, &params, &values);
        let ty = scope.infer(&trigger.key, sink);
        let inner = if let Type::Option(inner) = &*ty { inner } else { &*ty };
        if !(infer::is_number(inner) || infer::is_text(inner) || *inner == Type::Any) {
            let message = format!("the key is {}", describe(&ty));
            sink.report(&codes::TRIGGER_KEY, trigger.key.span, message).help("a key is a text or a number");
        }
    }
}

/// The types of the parameters. Each is resolved when it is first read.
type Params<'c> = Vec<OnceCell<Cow<'c, Type>>>;

impl<'t> Scope<'_, 't, '_> {
    /// Checks a body and returns the type of the value that it returns, or `None` if it never returns one.
    fn body(&mut self, statements: &'t [Statement], sink: &mut Sink) -> Option<Type> {
        let mut value = None;
        for statement in statements {
            match &statement.kind {
                StatementKind::Let { name, value } => {
                    let ty = self.infer(value, sink);
                    let ty = owned(ty, sink);
                    self.locals.insert(name.text.as_str(), ty);
                }
                StatementKind::Return { err, value: returned } => {
                    let ty = self.infer(returned, sink);
                    if !err {
                        let ty = owned(ty, sink);
                        value = Some(infer::join_all(value, ty, sink));
                    }
                }
                StatementKind::Await(_) => {}
                StatementKind::Lost => value = Some(Type::Any),
                StatementKind::Do(call) => {
                    self.call(call, sink);
                }
                StatementKind::If { condition, then, otherwise } => {
                    self.condition(condition, sink);
                    for branch in [then, otherwise] {
                        if let Some(ty) = self.body(branch, sink) {
                            value = Some(infer::join_all(value, ty, sink));
                        }
                    }
                }
            }
        }
        // The names of a block end with it. No name hides another.
        for statement in statements {
            if let StatementKind::Let { name, .. } = &statement.kind {
                self.locals.remove(name.text.as_str());
            }
        }
        value
    }

    fn condition(&mut self, expr: &ast::Expr, sink: &mut Sink) {
        let ty = self.infer(expr, sink);
        if matches!(expr.kind, ExprKind::Error) || infer::may_be_bool(&ty) {
            return;
        }
        sink.report(
            &codes::OPERAND_TYPE,
            expr.span,
            format!("a condition is true or false, and this is {}", describe(&ty)),
        )
        .help("compare it with something, `== …` for example");
    }
}
