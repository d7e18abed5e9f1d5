//! Checks the names in expressions.

use std::collections::HashSet;

use super::Model;
use crate::Span;
use crate::ast::{Call, Expr, ExprKind, Name, Statement, StatementKind};
use crate::codes;
use crate::diagnostic::Sink;

pub(super) fn check(model: &Model, sink: &mut Sink) {
    for (place, step) in model.workflow.steps.iter().enumerate() {
        if sink.is_full() {
            return;
        }
        if let Some(when) = &step.when {
            no_calls(when, "`when`", sink);
            Scope::new(model, place, false).expr(when, sink);
        }
        Scope::new(model, place, false).body(&step.body, sink);
        if let Some(compensation) = model.compensations[place] {
            Scope::new(model, place, true).body(&compensation.body, sink);
        }
    }
}

pub(super) fn no_calls(expr: &Expr, place: &str, sink: &mut Sink) {
    let mut calls = Vec::new();
    expr.calls(&mut calls);
    for call in calls {
        sink.report(&codes::CALL_PLACE, call.span, format!("no call can be made in {place}"))
            .help("call it in a step, and read that step's value here");
    }
}

/// The names that are known at one point of a step or its compensation.
struct Scope<'m, 't> {
    model: &'m Model<'t>,
    /// The place of the step.
    place: usize,
    /// Whether the step's own value can be read, as in its compensation.
    own_value: bool,
    /// The names of all `Let` so far. Those of inner blocks come after those of outer ones.
    locals: Vec<&'t str>,
    known: HashSet<&'t str>,
}

impl<'m, 't> Scope<'m, 't> {
    fn new(model: &'m Model<'t>, place: usize, own_value: bool) -> Self {
        Self { model, place, own_value, locals: Vec::new(), known: HashSet::new() }
    }

    fn body(&mut self, statements: &'t [Statement], sink: &mut Sink) {
        let outer = self.locals.len();
        for statement in statements {
            match &statement.kind {
                StatementKind::Let { name, value } => {
                    self.expr(value, sink);
                    self.declare(name, sink);
                }
                StatementKind::Return { value, .. } => self.expr(value, sink),
                StatementKind::Await(_) | StatementKind::Lost => {}
                StatementKind::Do(call) => {
                    self.component(call, sink);
                    call.args.iter().for_each(|arg| self.expr(arg, sink));
                }
                StatementKind::If { condition, then, otherwise } => {
                    self.expr(condition, sink);
                    self.body(then, sink);
                    self.body(otherwise, sink);
                }
            }
        }
        for name in self.locals.drain(outer..) {
            self.known.remove(name);
        }
    }

    fn declare(&mut self, name: &'t Name, sink: &mut Sink) {
        let text = name.text.as_str();
        let taken = if self.known.contains(text) {
            "a name of this block"
        } else if self.is_param(text) {
            "a parameter"
        } else if self.model.steps.contains_key(text) {
            "a step"
        } else {
            self.locals.push(text);
            self.known.insert(text);
            return;
        };
        sink.report(&codes::DECLARED_TWICE, name.span, format!("`{text}` is already {taken}"))
            .help("give this value another name; a name keeps its value");
    }

    fn expr(&self, expr: &Expr, sink: &mut Sink) {
        sink.work(1);
        if sink.is_full() {
            return;
        }
        if let ExprKind::Name(name) = &expr.kind {
            self.name(name, expr.span, sink);
        }
        if let ExprKind::Call(call) = &expr.kind {
            self.component(call, sink);
        }
        expr.children().into_iter().for_each(|child| self.expr(child, sink));
    }

    /// Checks the component of a call. The name of a value can't be called.
    fn component(&self, call: &Call, sink: &mut Sink) {
        let name = &call.capability;
        let text = name.text.as_str();
        if self.known.contains(text) || self.is_param(text) || self.model.steps.contains_key(text) {
            sink.report(&codes::CALL_FORM, name.span, format!("`{text}` is a value, and has no functions"))
                .help("only components have functions; give the value another name if a component is meant");
        }
    }

    fn name(&self, name: &str, span: Span, sink: &mut Sink) {
        if self.known.contains(name) || self.is_param(name) {
            return;
        }
        match self.model.steps.get(name) {
            Some(&step) => self.step(step, span, sink),
            None if self.model.workflow.incomplete => {}
            None => {
                let params = self.model.function.params.iter().map(|param| param.name.text.as_str());
                let steps = self.model.workflow.steps.iter().enumerate();
                let steps =
                    steps.filter(|(place, _)| self.readable(*place)).map(|(_, step)| step.name.text.as_str());
                let known = self.locals.iter().copied().chain(params).chain(steps);
                let help = sink.did_you_mean(name, known).unwrap_or_else(|| {
                    match name.starts_with(char::is_uppercase) {
                        true => format!("to call a component, write `{name}.function(…)`"),
                        false => "a name is a parameter, an earlier step, or a `Let` above".to_owned(),
                    }
                });
                sink.report(&codes::UNKNOWN_NAME, span, format!("`{name}` is not known here")).help(help);
            }
        }
    }

    fn step(&self, step: usize, span: Span, sink: &mut Sink) {
        let step_name = |place: usize| self.model.workflow.steps[place].name.text.as_str();
        let (own, other) = (step_name(self.place), step_name(step));
        if self.readable(step) {
            if !self.model.returns[step] && !self.model.workflow.incomplete {
                sink.report(
                    &codes::ALWAYS_NULL,
                    span,
                    format!("step `{other}` returns nothing, so this is null"),
                )
                .help(format!("write `Return ok of …` in step `{other}`"));
            }
            return;
        }
        let (message, help) = if step == self.place {
            (
                format!("step `{own}` has no value before it has returned"),
                "use what it is made of; only its compensation can read it".to_owned(),
            )
        } else if self.model.before[step].contains(self.place) {
            (
                format!("step `{other}` comes after step `{own}`"),
                format!("a step reads what comes before it: move this into a step after `{other}`"),
            )
        } else {
            (
                format!("step `{other}` is not surely complete when step `{own}` runs"),
                match &self.model.depends_on[self.place][..] {
                    many if many.len() > 8 => format!("let step `{own}` depend on `{other}` as well"),
                    _ => format!("let step `{own}` depend on it: `depends on [{}]`", self.with(other)),
                },
            )
        };
        sink.report(&codes::NOT_COMPLETE, span, message).help(help);
    }

    /// The names of the step's dependencies and one more.
    fn with(&self, more: &str) -> String {
        let own = self.model.depends_on[self.place]
            .iter()
            .map(|step| self.model.workflow.steps[*step].name.text.as_str());
        own.chain([more]).collect::<Vec<_>>().join(", ")
    }

    fn readable(&self, step: usize) -> bool {
        if step == self.place { self.own_value } else { self.model.before[self.place].contains(step) }
    }

    fn is_param(&self, name: &str) -> bool {
        self.model.params.contains_key(name)
    }
}
