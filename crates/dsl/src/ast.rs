//! The syntax tree: the content of the source, before it is known whether it makes sense.

use crate::Span;

#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A value of the source and its place.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct File {
    /// The dotted name as the source spells it.
    pub(crate) module: Option<Name>,
    pub(crate) functions: Vec<Function>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Name,
    pub(crate) params: Vec<Param>,
    pub(crate) result: Option<TypeExpr>,
    pub(crate) io: Option<Io>,
    pub(crate) workflow: Option<Workflow>,
}

#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) name: Name,
    pub(crate) ty: TypeExpr,
}

/// A type as the source writes it, with the names in it that stand for exported types.
#[derive(Debug)]
pub(crate) struct TypeExpr {
    pub(crate) ty: aster_core::plan::Type,
    pub(crate) named: Vec<Name>,
}

/// `It performs io`, and the components that may be called. `None` means any component.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) list: Option<Vec<Name>>,
}

#[derive(Debug, Default)]
pub(crate) struct Workflow {
    /// The place of the word `workflow`.
    pub(crate) span: Span,
    pub(crate) steps: Vec<Step>,
    pub(crate) settings: Settings,
    /// Compensations that stand after a step, at the indentation of the step.
    pub(crate) compensations: Vec<LateCompensation>,
    /// The place of an `await` after the last step, which belongs to no step.
    pub(crate) stray_await: Option<Span>,
    /// Whether a syntax error has lost a declaration, so that an unknown name may be no problem.
    pub(crate) incomplete: bool,
}

#[derive(Debug)]
pub(crate) struct LateCompensation {
    pub(crate) compensation: Compensation,
    /// The number of steps before it.
    pub(crate) after: usize,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: Name,
    /// The names after `depends on` in its head.
    pub(crate) depends_on: Option<Vec<Name>>,
    /// The names of the `await` before the step. An `await` in the body is one of its statements.
    pub(crate) awaits: Vec<Name>,
    pub(crate) when: Option<Expr>,
    pub(crate) body: Vec<Statement>,
    pub(crate) settings: Settings,
    pub(crate) compensations: Vec<Compensation>,
}

#[derive(Debug)]
pub(crate) struct Compensation {
    /// The place of the word `compensate`.
    pub(crate) span: Span,
    pub(crate) name: Option<Name>,
    pub(crate) body: Vec<Statement>,
    pub(crate) settings: Settings,
}

/// The settings of a workflow, a step or a compensation. Not every place has every setting.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) timeout_ms: Option<Spanned<u64>>,
    pub(crate) fuel: Option<Spanned<u64>>,
    pub(crate) memory_bytes: Option<Spanned<u64>>,
    pub(crate) retry: Option<Spanned<Retry>>,
    pub(crate) trigger: Option<Trigger>,
}

#[derive(Debug, Default)]
pub(crate) struct Retry {
    pub(crate) max_attempts: Option<u32>,
    pub(crate) backoff: Option<aster_core::plan::Backoff>,
    pub(crate) initial_delay_ms: Option<u64>,
    pub(crate) max_delay_ms: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Trigger {
    pub(crate) path: Name,
    pub(crate) key: Expr,
}

#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) kind: StatementKind,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum StatementKind {
    Let {
        name: Name,
        value: Expr,
    },
    Return {
        err: bool,
        value: Expr,
    },
    Await(Vec<Name>),
    Do(Call),
    If {
        condition: Expr,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    /// The statement could not be read, so it may be anything. This was reported.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
    /// The nesting of its plan as JSON; see [`crate::limits::EXPRESSION_DEPTH`].
    pub(crate) depth: u32,
}

#[derive(Debug)]
pub(crate) enum ExprKind {
    /// The expression could not be read, which was reported.
    Error,
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Vec<TextPart>),
    Name(String),
    Field(Box<Expr>, Name),
    Index(Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Record(Vec<(Name, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(aster_core::plan::BinaryOp, Box<Expr>, Box<Expr>),
    Call(Call),
}

#[derive(Debug)]
pub(crate) enum TextPart {
    Plain(String),
    Path(Expr),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) capability: Name,
    pub(crate) interface: Option<Name>,
    pub(crate) function: Name,
    pub(crate) args: Vec<Expr>,
    pub(crate) span: Span,
}

impl Expr {
    /// The direct subexpressions in evaluation order.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Error
            | ExprKind::Null
            | ExprKind::Bool(_)
            | ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Name(_) => Vec::new(),
            ExprKind::Text(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    TextPart::Plain(_) => None,
                    TextPart::Path(path) => Some(path),
                })
                .collect(),
            ExprKind::Field(of, _) | ExprKind::Not(of) | ExprKind::Negate(of) => vec![of],
            ExprKind::Index(a, b) | ExprKind::Binary(_, a, b) => vec![a, b],
            ExprKind::List(items) => items.iter().collect(),
            ExprKind::Record(fields) => fields.iter().map(|(_, value)| value).collect(),
            ExprKind::Call(call) => call.args.iter().collect(),
        }
    }

    /// All calls in evaluation order: inner ones come first.
    pub(crate) fn calls<'a>(&'a self, out: &mut Vec<&'a Call>) {
        self.children().into_iter().for_each(|child| child.calls(out));
        if let ExprKind::Call(call) = &self.kind {
            out.push(call);
        }
    }
}

/// The calls of a body in the order of the source.
pub(crate) fn calls(body: &[Statement]) -> Vec<&Call> {
    let mut out = Vec::new();
    for statement in body {
        match &statement.kind {
            StatementKind::Let { value, .. } | StatementKind::Return { value, .. } => value.calls(&mut out),
            StatementKind::Await(_) | StatementKind::Lost => {}
            StatementKind::Do(call) => {
                call.args.iter().for_each(|arg| arg.calls(&mut out));
                out.push(call);
            }
            StatementKind::If { condition, then, otherwise } => {
                condition.calls(&mut out);
                out.extend(calls(then));
                out.extend(calls(otherwise));
            }
        }
    }
    out
}
