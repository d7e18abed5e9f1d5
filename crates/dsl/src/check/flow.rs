//! Checks the order of statements: which are never reached, and where `await` may stand.

use super::Model;
use crate::Span;
use crate::ast::{Statement, StatementKind};
use crate::codes;
use crate::diagnostic::Sink;

pub(super) fn check(model: &Model, sink: &mut Sink) {
    for step in &model.workflow.steps {
        body(&step.body, sink);
        let rest = match step.body.first() {
            Some(Statement { kind: StatementKind::Await(_), .. }) => &step.body[1..],
            _ => &step.body[..],
        };
        misplaced_awaits(rest, sink);
    }
    for compensation in model.compensations.iter().flatten() {
        body(&compensation.body, sink);
        misplaced_awaits(&compensation.body, sink);
    }
    if let Some(span) = model.workflow.stray_await {
        report_await(span, sink);
    }
}

/// Whether the body can return a value.
pub(super) fn returns_value(body: &[Statement]) -> bool {
    body.iter().any(|statement| match &statement.kind {
        StatementKind::Return { err, .. } => !err,
        StatementKind::Lost => true,
        StatementKind::If { then, otherwise, .. } => returns_value(then) || returns_value(otherwise),
        _ => false,
    })
}

/// Whether the body always returns, so that no statement after it is reached.
pub(crate) fn surely_returns(body: &[Statement]) -> bool {
    body.iter().any(ends)
}

fn ends(statement: &Statement) -> bool {
    match &statement.kind {
        StatementKind::Return { .. } => true,
        StatementKind::If { then, otherwise, .. } => surely_returns(then) && surely_returns(otherwise),
        _ => false,
    }
}

fn body(statements: &[Statement], sink: &mut Sink) {
    if let Some(end) = statements.iter().position(ends)
        && let Some(next) = statements.get(end + 1)
        && !matches!(next.kind, StatementKind::Lost)
    {
        sink.report(&codes::UNREACHABLE, next.span, "this is never reached")
            .help("remove it, or write it before the `Return`")
            .label("the step has returned by then");
    }
    for statement in statements {
        if let StatementKind::If { then, otherwise, .. } = &statement.kind {
            body(then, sink);
            body(otherwise, sink);
        }
    }
}

fn misplaced_awaits(statements: &[Statement], sink: &mut Sink) {
    for statement in statements {
        match &statement.kind {
            StatementKind::Await(_) => report_await(statement.span, sink),
            StatementKind::If { then, otherwise, .. } => {
                misplaced_awaits(then, sink);
                misplaced_awaits(otherwise, sink);
            }
            _ => {}
        }
    }
}

fn report_await(span: Span, sink: &mut Sink) {
    sink.report(&codes::AWAIT_PLACE, span, "`await` can't stand here")
        .help("`await` is the first statement of a step, or stands right before the step that waits");
}
