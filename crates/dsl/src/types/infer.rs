//! The types of expressions, as far as they are known.

use std::collections::HashMap;

use aster_core::eval::MAX_DEPTH;
use aster_core::name::{lower_camel, same};
use aster_core::plan::BinaryOp;
use aster_core::wit::{Field, Type};

use super::{Called, describe, lookup, resolve};
use crate::Span;
use crate::ast::{Call, Expr, ExprKind, Name, TextPart};
use crate::check::Model;
use crate::codes;
use crate::diagnostic::{Sink, did_you_mean};

/// What is known at one point of a body.
pub(super) struct Scope<'s, 't> {
    model: &'s Model<'t>,
    pub(super) called: &'s Called,
    /// Of the steps, by place, as far as they have been looked at.
    values: &'s [Option<Type>],
    pub(super) locals: HashMap<String, Type>,
}

impl<'s, 't> Scope<'s, 't> {
    pub(super) fn new(model: &'s Model<'t>, called: &'s Called, values: &'s [Option<Type>]) -> Self {
        Self { model, called, values, locals: HashMap::new() }
    }

    /// The type of the expression's value. What is surely wrong inside it is reported.
    pub(super) fn infer(&mut self, expr: &Expr, sink: &mut Sink) -> Type {
        match &expr.kind {
            ExprKind::Error => Type::Any,
            ExprKind::Null => Type::Unit,
            ExprKind::Bool(_) => Type::Bool,
            ExprKind::Int(_) => Type::S64,
            ExprKind::Float(_) => Type::F64,
            ExprKind::Text(parts) => {
                for part in parts {
                    if let TextPart::Path(path) = part {
                        self.infer(path, sink);
                    }
                }
                Type::String
            }
            ExprKind::Name(name) => self.name(name),
            ExprKind::Field(of, name) => {
                let of = self.infer(of, sink);
                field(&of, name, sink)
            }
            ExprKind::Index(of, index) => {
                let list = self.infer(of, sink);
                let at = self.infer(index, sink);
                element(&list, of.span, index, &at, sink)
            }
            ExprKind::List(items) => {
                let mut all = None;
                for item in items {
                    let ty = self.infer(item, sink);
                    all = Some(join_all(all, ty));
                }
                // A list of bytes is a text, and this is none.
                let item = all.filter(|ty| *ty != Type::U8).unwrap_or(Type::Any);
                bounded(Type::List(Box::new(item)))
            }
            ExprKind::Record(fields) => {
                let field = |(name, value): &(Name, Expr)| Field {
                    name: name.text.clone(),
                    ty: self.infer(value, sink),
                };
                bounded(Type::Record(fields.iter().map(field).collect()))
            }
            ExprKind::Not(of) => {
                let ty = self.infer(of, sink);
                operand(&ty, of.span, "`not`", "true or false", may_be_bool(&ty), sink);
                Type::Bool
            }
            ExprKind::Negate(of) => {
                let ty = self.infer(of, sink);
                operand(&ty, of.span, "`-`", "a number", may_be_number(&ty), sink);
                match &ty {
                    Type::F32 | Type::F64 => Type::F64,
                    ty if is_integer(ty) => Type::S64,
                    _ => Type::Any,
                }
            }
            ExprKind::Binary(op, left, right) => self.binary(*op, left, right, sink),
            ExprKind::Call(call) => self.call(call, sink),
        }
    }

    /// Checks the call; its value is the `ok` of the function's result.
    pub(super) fn call(&mut self, call: &Call, sink: &mut Sink) -> Type {
        let Some(function) = lookup::function(call, self.called, sink) else {
            for arg in &call.args {
                self.infer(arg, sink);
            }
            return Type::Any;
        };
        if function.params.len() != call.args.len() {
            let params: Vec<String> = function
                .params
                .iter()
                .map(|param| format!("{}: {}", lower_camel(&param.name), describe(&param.ty)))
                .collect();
            let message = format!(
                "`{}` takes {}, and is given {}",
                call.function.text,
                arguments(function.params.len()),
                call.args.len()
            );
            let help = match params.is_empty() {
                true => "write nothing between its brackets".to_owned(),
                false => format!("it takes ({})", params.join(", ")),
            };
            sink.report(&codes::ARGUMENT_COUNT, call.function.span.to(call.span), message).help(help);
            for arg in &call.args {
                self.infer(arg, sink);
            }
        } else {
            for (param, arg) in function.params.iter().zip(&call.args) {
                self.argument(&param.name, arg, &param.ty, sink);
            }
        }
        match &function.result {
            None => Type::Unit,
            Some(Type::Result { ok, .. }) => ok.as_deref().cloned().unwrap_or(Type::Unit),
            Some(ty) => ty.clone(),
        }
    }

    fn name(&self, name: &str) -> Type {
        if let Some(ty) = self.locals.get(name) {
            return ty.clone();
        }
        if let Some(place) = self.model.params.get(name) {
            let param = &self.model.function.params[*place];
            return resolve::resolve_type(&param.ty.ty, &self.called.exports).unwrap_or(Type::Any);
        }
        self.model.steps.get(name).and_then(|step| self.values[*step].clone()).unwrap_or(Type::Any)
    }

    fn binary(&mut self, op: BinaryOp, left: &Expr, right: &Expr, sink: &mut Sink) -> Type {
        let (a, b) = (self.infer(left, sink), self.infer(right, sink));
        let mut both = |name: &str, expected: &str, may_be: fn(&Type) -> bool| {
            operand(&a, left.span, name, expected, may_be(&a), sink);
            operand(&b, right.span, name, expected, may_be(&b), sink);
        };
        match op {
            BinaryOp::Or => both("`or`", "true or false", may_be_bool),
            BinaryOp::And => both("`and`", "true or false", may_be_bool),
            BinaryOp::Eq | BinaryOp::Ne => {}
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
                both("a comparison", "a number or a text", may_be_ordered);
            }
            BinaryOp::Add => both("`+`", "a number, a text or a list", may_be_added),
            BinaryOp::Sub => both("`-`", "a number", may_be_number),
            BinaryOp::Mul => both("`*`", "a number", may_be_number),
            BinaryOp::Div => both("`/`", "a number", may_be_number),
        }
        match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => {
                let float = |ty: &Type| matches!(ty, Type::F32 | Type::F64);
                match (is_number(&a) && is_number(&b), is_text(&a) && is_text(&b)) {
                    (true, _) if float(&a) || float(&b) => Type::F64,
                    (true, _) => Type::S64,
                    (_, true) => Type::String,
                    _ if matches!((&a, &b), (Type::List(_), Type::List(_))) => join(a, b),
                    _ => Type::Any,
                }
            }
            _ => Type::Bool,
        }
    }
}

/// Of an inferred type.
const MAX_PARTS: usize = 10_000;

/// A type that is larger than any that a component has is not looked into any further: each `Let` could double it.
fn bounded(ty: Type) -> Type {
    /// What is left of `parts` after those of `ty`, none if there are more; looks `levels` deep.
    fn after(ty: &Type, parts: usize, levels: usize) -> Option<usize> {
        let (parts, levels) = (parts.checked_sub(1)?, levels.checked_sub(1)?);
        match ty {
            Type::List(item) | Type::Option(item) => after(item, parts, levels),
            Type::Record(fields) => {
                fields.iter().try_fold(parts, |parts, field| after(&field.ty, parts, levels))
            }
            Type::Tuple(items) => items.iter().try_fold(parts, |parts, item| after(item, parts, levels)),
            _ => Some(parts),
        }
    }
    if after(&ty, MAX_PARTS, MAX_DEPTH).is_some() { ty } else { Type::Any }
}

/// The type of a value that is one or the other.
pub(super) fn join(a: Type, b: Type) -> Type {
    match (a, b) {
        (a, b) if a == b => a,
        (Type::Any, _) | (_, Type::Any) => Type::Any,
        (Type::Unit, Type::Option(inner)) | (Type::Option(inner), Type::Unit) => Type::Option(inner),
        (Type::Unit, ty) | (ty, Type::Unit) => Type::Option(Box::new(ty)),
        (Type::Option(a), Type::Option(b)) => Type::Option(Box::new(join(*a, *b))),
        (Type::Option(a), b) | (b, Type::Option(a)) => Type::Option(Box::new(join(*a, b))),
        (Type::List(a), Type::List(b)) => Type::List(Box::new(join(*a, *b))),
        _ => Type::Any,
    }
}

pub(super) fn join_all(before: Option<Type>, more: Type) -> Type {
    match before {
        Some(before) => join(before, more),
        None => more,
    }
}

pub(super) fn is_integer(ty: &Type) -> bool {
    matches!(ty, Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 | Type::S64 | Type::U64)
}

pub(super) fn is_number(ty: &Type) -> bool {
    is_integer(ty) || matches!(ty, Type::F32 | Type::F64)
}

/// Whether its JSON is always a text.
pub(super) fn is_text(ty: &Type) -> bool {
    matches!(ty, Type::String | Type::Char | Type::Enum(_))
        || matches!(ty, Type::List(item) if **item == Type::U8)
}

pub(super) fn may_be_bool(ty: &Type) -> bool {
    may_be(ty, |ty| *ty == Type::Bool)
}

fn may_be_number(ty: &Type) -> bool {
    may_be(ty, is_number)
}

fn may_be_ordered(ty: &Type) -> bool {
    may_be(ty, |ty| is_number(ty) || is_text(ty) || matches!(ty, Type::Variant(_)))
}

fn may_be_added(ty: &Type) -> bool {
    may_be_ordered(ty) || may_be(ty, |ty| matches!(ty, Type::List(_) | Type::Tuple(_)))
}

fn may_be(ty: &Type, is: impl Fn(&Type) -> bool) -> bool {
    match ty {
        Type::Any => true,
        Type::Option(inner) => may_be(inner, is),
        ty => is(ty),
    }
}

fn operand(ty: &Type, span: Span, of: &str, expected: &str, fits: bool, sink: &mut Sink) {
    if !fits {
        sink.report(
            &codes::OPERAND_TYPE,
            span,
            format!("{of} takes {expected}, and this is {}", describe(ty)),
        )
        .help(format!("write something that is {expected} here"));
    }
}

fn arguments(count: usize) -> String {
    match count {
        0 => "no arguments".to_owned(),
        1 => "1 argument".to_owned(),
        n => format!("{n} arguments"),
    }
}

/// The type of `of.name`. A path through null is null.
fn field(of: &Type, name: &Name, sink: &mut Sink) -> Type {
    let (found, names): (Option<Type>, Vec<String>) = match of {
        Type::Any => return Type::Any,
        Type::Unit => return Type::Unit,
        // A nested option has a JSON of its own.
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => return Type::Any,
        Type::Option(inner) => return join(field(inner, name, sink), Type::Unit),
        Type::Map(key, value) if **key == Type::String => return join((**value).clone(), Type::Unit),
        Type::Record(fields) => (
            fields.iter().find(|field| spells(&field.name, &name.text)).map(|field| field.ty.clone()),
            fields.iter().map(|field| in_json(&field.name)).collect(),
        ),
        Type::Variant(cases) => {
            let payloads = || cases.iter().filter(|case| case.ty.is_some());
            (
                payloads().find(|case| spells(&case.name, &name.text)).and_then(|case| case.ty.clone()),
                payloads().map(|case| in_json(&case.name)).collect(),
            )
        }
        Type::Result { ok, err } => {
            let found = match name.text.as_str() {
                "ok" => Some(ok),
                "err" => Some(err),
                _ => None,
            };
            (
                found.map(|ty| ty.as_deref().cloned().unwrap_or(Type::Unit)),
                vec!["ok".to_owned(), "err".to_owned()],
            )
        }
        _ => (None, Vec::new()),
    };
    if let Some(found) = found {
        return found;
    }
    let message = format!("there is no `{}` in this: it is {}", name.text, describe(of));
    let near = did_you_mean(&name.text, names.iter().map(String::as_str));
    let help = near.unwrap_or_else(|| match names.is_empty() {
        true => "leave the field out".to_owned(),
        false => format!("it has `{}`", names.join("`, `")),
    });
    sink.report(&codes::UNKNOWN_FIELD, name.span, message).help(help);
    Type::Any
}

/// The type of `list[index]`.
fn element(list: &Type, span: Span, index: &Expr, at: &Type, sink: &mut Sink) -> Type {
    match list {
        Type::Any => return Type::Any,
        Type::Unit => return Type::Unit,
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => return Type::Any,
        Type::Option(inner) => return join(element(inner, span, index, at, sink), Type::Unit),
        Type::List(item) if **item != Type::U8 => {
            operand(at, index.span, "an index", "an integer", may_be(at, is_integer), sink);
            return (**item).clone();
        }
        Type::Tuple(items) => {
            let ExprKind::Int(place) = index.kind else { return Type::Any };
            if let Some(item) = usize::try_from(place).ok().and_then(|place| items.get(place)) {
                return item.clone();
            }
            sink.report(&codes::UNKNOWN_FIELD, index.span, format!("this tuple has {} items", items.len()))
                .help("the first one is `[0]`");
            return Type::Any;
        }
        // A map whose keys are no texts is a list of pairs.
        Type::Map(key, _) if **key != Type::String => return Type::Any,
        _ => {}
    }
    sink.report(&codes::UNKNOWN_FIELD, span, format!("this has no items: it is {}", describe(list)))
        .help("only a list or a tuple is read by an index");
    Type::Any
}

/// A path finds a field by its words, as the core does when it evaluates the path.
fn spells(field: &str, name: &str) -> bool {
    same(field, name)
}

fn in_json(field: &str) -> String {
    if field.contains('-') { lower_camel(field) } else { field.to_owned() }
}
