//! The syntax tree: what the source says, before it is known whether it makes sense.

use crate::Span;

#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A value of the source and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct File {
    /// The dotted name, as it is written.
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

/// A type as it is written, with the names in it that stand for exported types.
#[derive(Debug)]
pub(crate) struct TypeExpr {
    pub(crate) ty: aster_core::plan::Type,
    pub(crate) named: Vec<Name>,
}

/// `It performs io`, and with which components; without a list: with any.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) list: Option<Vec<Name>>,
}

#[derive(Debug, Default)]
pub(crate) struct Workflow {
    /// The word `workflow`.
    pub(crate) span: Span,
    pub(crate) steps: Vec<Step>,
    pub(crate) settings: Settings,
    /// Compensations that stand after a step at its own indentation.
    pub(crate) compensations: Vec<LateCompensation>,
    /// An `await` after the last step, which belongs to none.
    pub(crate) stray_await: Option<Span>,
    /// A declaration was lost to a syntax error, so an unknown name may be no fault.
    pub(crate) incomplete: bool,
}

#[derive(Debug)]
pub(crate) struct LateCompensation {
    pub(crate) compensation: Compensation,
    /// How many steps stand before it.
    pub(crate) after: usize,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: Name,
    /// `depends on` of its head.
    pub(crate) depends_on: Option<Vec<Name>>,
    /// From `await` between steps; those in the body stand there.
    pub(crate) awaits: Vec<Name>,
    pub(crate) when: Option<Expr>,
    pub(crate) body: Vec<Statement>,
    pub(crate) settings: Settings,
    pub(crate) compensations: Vec<Compensation>,
}

#[derive(Debug)]
pub(crate) struct Compensation {
    /// The word `compensate`.
    pub(crate) span: Span,
    pub(crate) name: Option<Name>,
    pub(crate) body: Vec<Statement>,
    pub(crate) settings: Settings,
}

/// The settings of a workflow, a step or a compensation; each place has only some of them.
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
    /// Could not be read, so it may be anything. Already reported.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
    /// How deep its plan nests as JSON; see [`crate::limits::EXPRESSION_DEPTH`].
    pub(crate) depth: u32,
}

#[derive(Debug)]
pub(crate) enum ExprKind {
    /// Already reported.
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
    /// The expressions directly inside, in the order in which they are evaluated.
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

    /// Calls in evaluation order, inner ones first.
    pub(crate) fn calls<'a>(&'a self, out: &mut Vec<&'a Call>) {
        self.children().into_iter().for_each(|child| child.calls(out));
        if let ExprKind::Call(call) = &self.kind {
            out.push(call);
        }
    }
}

/// Calls of a body, in the order of the source.
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
