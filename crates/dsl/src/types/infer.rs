//! Infers the types of expressions, as far as they are known.

use std::borrow::Cow;
use std::collections::HashMap;

use aster_core::eval::MAX_DEPTH;
use aster_core::name::{kebab, lower_camel};
use aster_core::plan::BinaryOp;
use aster_core::wit::{Case, Field, Type, json};

use super::fit::listed;
use super::parts::{known_parts, parts};
use super::{Called, Params, describe, lookup};
use crate::Span;
use crate::ast::{Call, Expr, ExprKind, Name, TextPart};
use crate::check::Model;
use crate::codes;
use crate::diagnostic::{CANDIDATES, Sink};

/// The types that are known at one point of a body.
pub(super) struct Scope<'s, 't, 'c> {
    model: &'s Model<'t>,
    called: &'s Called<'c>,
    /// The types of the parameters, by their places.
    params: &'s Params<'c>,
    /// The types of the steps that were already checked, by their places.
    values: &'s [Option<Type>],
    pub(super) locals: HashMap<&'t str, Type>,
}

impl<'s, 't, 'c> Scope<'s, 't, 'c> {
    pub(super) fn new(
        model: &'s Model<'t>,
        called: &'s Called<'c>,
        params: &'s Params<'c>,
        values: &'s [Option<Type>],
    ) -> Self {
        Self { model, called, params, values, locals: HashMap::new() }
    }

    /// Infers the type of an expression, and reports what is surely wrong inside it. A known type is borrowed, since it
    /// may be large, and a name may be read often.
    pub(super) fn infer(&self, expr: &Expr, sink: &mut Sink) -> Cow<'_, Type> {
        sink.looking_at(expr.span);
        if sink.is_full() || !sink.look_at_types(1) {
            return Cow::Owned(Type::Any);
        }
        Cow::Owned(match &expr.kind {
            ExprKind::Error => Type::Any,
            ExprKind::Null => Type::Unit,
            ExprKind::Bool(_) => Type::Bool,
            ExprKind::Int(_) => Type::S64,
            ExprKind::Float(_) => Type::F64,
            ExprKind::Name(name) => return self.name(name),
            ExprKind::Field(of, name) => {
                let of = self.infer(of, sink);
                return field(of, name, sink);
            }
            ExprKind::Index(of, index) => {
                let list = self.infer(of, sink);
                let at = self.infer(index, sink);
                return element(list, of.span, index, &at, sink);
            }
            ExprKind::Call(call) => return self.call(call, sink),
            ExprKind::Text(parts) => {
                for part in parts {
                    if let TextPart::Path(path) = part {
                        self.infer(path, sink);
                    }
                }
                Type::String
            }
            ExprKind::List(items) => {
                let mut all: Option<Cow<'_, Type>> = None;
                for item in items {
                    let ty = self.infer(item, sink);
                    all = Some(match all {
                        None => ty,
                        // It is mostly the same type again.
                        Some(Cow::Borrowed(before)) if matches!(ty, Cow::Borrowed(ty) if std::ptr::eq(ty, before)) => {
                            ty
                        }
                        Some(Cow::Owned(Type::Any)) => Cow::Owned(Type::Any),
                        Some(before) => {
                            let (before, ty) = (owned(before, sink), owned(ty, sink));
                            Cow::Owned(join_all(Some(before), ty, sink))
                        }
                    });
                }
                // A list of bytes would be a text in JSON, which this list isn't.
                let item = all.filter(|ty| **ty != Type::U8).map_or(Type::Any, |ty| owned(ty, sink));
                bounded(Type::List(Box::new(item)), sink)
            }
            ExprKind::Record(fields) => {
                let mut typed = Vec::with_capacity(fields.len());
                for (name, value) in fields {
                    let ty = self.infer(value, sink);
                    typed.push(Field { name: name.text.clone(), ty: owned(ty, sink) });
                }
                bounded(Type::Record(typed), sink)
            }
            ExprKind::Not(of) => {
                let ty = self.infer(of, sink);
                operand(&ty, of.span, "`not`", "true or false", may_be_bool(&ty), sink);
                Type::Bool
            }
            ExprKind::Negate(of) => {
                let ty = self.infer(of, sink);
                operand(&ty, of.span, "`-`", "a number", may_be_number(&ty), sink);
                match &*ty {
                    Type::F32 | Type::F64 => Type::F64,
                    ty if is_integer(ty) => Type::S64,
                    _ => Type::Any,
                }
            }
            ExprKind::Binary(op, left, right) => self.binary(*op, left, right, sink),
        })
    }

    /// Copies a type. Returns `Any` if types are no longer looked at.
    pub(super) fn copied(&self, ty: &Type, sink: &mut Sink) -> Type {
        owned(Cow::Borrowed(ty), sink)
    }

    /// Checks a call and returns the type of its value, which is the `ok` of a result.
    pub(super) fn call(&self, call: &Call, sink: &mut Sink) -> Cow<'_, Type> {
        sink.looking_at(call.span);
        let Some(function) = lookup::function(call, self.called, sink) else {
            for arg in &call.args {
                self.infer(arg, sink);
            }
            return Cow::Owned(Type::Any);
        };
        if function.params.len() != call.args.len() {
            let params: Vec<String> = function
                .params
                .iter()
                .take(20)
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
            None => Cow::Owned(Type::Unit),
            Some(Type::Result { ok, .. }) => ok.as_deref().map_or(Cow::Owned(Type::Unit), Cow::Borrowed),
            Some(ty) => Cow::Borrowed(ty),
        }
    }

    fn name(&self, name: &str) -> Cow<'_, Type> {
        if let Some(ty) = self.locals.get(name) {
            return Cow::Borrowed(ty);
        }
        if let Some(place) = self.model.params.get(name) {
            let find = || self.called.resolve(&self.model.function.params[*place].ty);
            return Cow::Borrowed(&**self.params[*place].get_or_init(find));
        }
        let value = self.model.steps.get(name).and_then(|step| self.values[*step].as_ref());
        value.map_or(Cow::Owned(Type::Any), Cow::Borrowed)
    }

    fn binary(&self, op: BinaryOp, left: &Expr, right: &Expr, sink: &mut Sink) -> Type {
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
                    _ if matches!((&*a, &*b), (Type::List(_), Type::List(_))) => {
                        let (a, b) = (owned(a, sink), owned(b, sink));
                        join_all(Some(a), b, sink)
                    }
                    _ => Type::Any,
                }
            }
            _ => Type::Bool,
        }
    }
}

/// The most parts of an inferred type.
const MAX_PARTS: usize = 10_000;

/// Returns `Any` for a type that is larger than any type of a component. Each `Let` could double it.
fn bounded(ty: Type, sink: &mut Sink) -> Type {
    match known_parts(&ty, MAX_PARTS, MAX_DEPTH) {
        Some(parts) if sink.look_at_types(parts) => ty,
        _ => Type::Any,
    }
}

/// The type itself, copied if it is borrowed. Returns `Any` if types are no longer looked at.
pub(super) fn owned(ty: Cow<'_, Type>, sink: &mut Sink) -> Type {
    match ty {
        Cow::Owned(ty) => ty,
        Cow::Borrowed(ty) if sink.look_at_types(parts(ty, MAX_PARTS)) => ty.clone(),
        Cow::Borrowed(_) => Type::Any,
    }
}

/// The type of a value that has one type or the other.
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

pub(super) fn join_all(before: Option<Type>, more: Type, sink: &mut Sink) -> Type {
    match before {
        // Both types are compared as a whole.
        Some(before) if sink.look_at_types(parts(&more, MAX_PARTS)) => join(before, more),
        Some(_) => Type::Any,
        None => more,
    }
}

pub(super) fn is_integer(ty: &Type) -> bool {
    matches!(ty, Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 | Type::S64 | Type::U64)
}

pub(super) fn is_number(ty: &Type) -> bool {
    is_integer(ty) || matches!(ty, Type::F32 | Type::F64)
}

/// Whether the JSON of every value is a text.
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
fn field<'a>(of: Cow<'a, Type>, name: &Name, sink: &mut Sink) -> Cow<'a, Type> {
    match of {
        Cow::Borrowed(of) => part(of, name, sink),
        // A type that is made for this path only is mostly small.
        Cow::Owned(of) => Cow::Owned(part(&of, name, sink).into_owned()),
    }
}

fn part<'a>(of: &'a Type, name: &Name, sink: &mut Sink) -> Cow<'a, Type> {
    let any = Cow::Owned(Type::Any);
    let found = match of {
        Type::Any => return any,
        Type::Unit => return Cow::Owned(Type::Unit),
        // A nested option has its own form in JSON.
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => return any,
        Type::Option(inner) => {
            let found = part(inner, name, sink);
            return Cow::Owned(join(owned(found, sink), Type::Unit));
        }
        Type::Map(key, value) if **key == Type::String => {
            return Cow::Owned(join(owned(Cow::Borrowed(value), sink), Type::Unit));
        }
        Type::Record(fields) => {
            if !sink.look_at_types(fields.len() / 8) {
                return any;
            }
            find(fields, |field| &field.name, &name.text, sink).map(|field| Cow::Borrowed(&field.ty))
        }
        Type::Variant(cases) => {
            if !sink.look_at_types(cases.len() / 8) {
                return any;
            }
            let payloads: Vec<&Case> = cases.iter().filter(|case| case.ty.is_some()).collect();
            let case = find(&payloads, |case| &case.name, &name.text, sink);
            case.and_then(|case| case.ty.as_ref()).map(Cow::Borrowed)
        }
        Type::Result { ok, err } => {
            let found = match name.text.as_str() {
                "ok" => Some(ok),
                "err" => Some(err),
                _ => None,
            };
            found.map(|ty| ty.as_deref().map_or(Cow::Owned(Type::Unit), Cow::Borrowed))
        }
        _ => None,
    };
    found.unwrap_or_else(|| {
        unknown_part(of, name, sink);
        any
    })
}

/// Finds a field by its words, as the core does when it evaluates a path.
fn find<'a, T>(all: &'a [T], name_of: impl Fn(&T) -> &str, name: &str, sink: &mut Sink) -> Option<&'a T> {
    let spelled = |it: &&T| name_of(it) == name || json::spells(name_of(it), name);
    let found = all.iter().find(spelled);
    if found.is_some() || !sink.look_at_types(all.len()) {
        return found;
    }
    let words = kebab(name);
    all.iter().find(|it| kebab(name_of(it)) == words)
}

fn unknown_part(of: &Type, name: &Name, sink: &mut Sink) {
    // All names were already compared by their words.
    let names: Vec<&str> = match of {
        Type::Record(fields) => fields.iter().map(|field| field.name.as_str()).collect(),
        Type::Variant(cases) => {
            cases.iter().filter(|case| case.ty.is_some()).map(|case| case.name.as_str()).collect()
        }
        Type::Result { .. } => vec!["ok", "err"],
        _ => Vec::new(),
    };
    if sink.is_full() || !sink.look_at_types(names.len()) {
        return;
    }
    let names: Vec<String> = names.into_iter().take(CANDIDATES).map(in_json).collect();
    let message = format!("there is no `{}` in this: it is {}", name.text, describe(of));
    let near = sink.did_you_mean(&name.text, names.iter().map(String::as_str));
    let help = near.unwrap_or_else(|| match names.is_empty() {
        true => "leave the field out".to_owned(),
        false => format!("it has {}", listed(&names)),
    });
    sink.report(&codes::UNKNOWN_FIELD, name.span, message).help(help);
}

/// The type of `list[index]`.
fn element<'a>(list: Cow<'a, Type>, span: Span, index: &Expr, at: &Type, sink: &mut Sink) -> Cow<'a, Type> {
    match list {
        Cow::Borrowed(list) => item(list, span, index, at, sink),
        Cow::Owned(list) => Cow::Owned(item(&list, span, index, at, sink).into_owned()),
    }
}

fn item<'a>(list: &'a Type, span: Span, index: &Expr, at: &Type, sink: &mut Sink) -> Cow<'a, Type> {
    let any = Cow::Owned(Type::Any);
    match list {
        Type::Any => return any,
        Type::Unit => return Cow::Owned(Type::Unit),
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => return any,
        Type::Option(inner) => {
            let found = item(inner, span, index, at, sink);
            return Cow::Owned(join(owned(found, sink), Type::Unit));
        }
        Type::List(item) if **item != Type::U8 => {
            operand(at, index.span, "an index", "an integer", may_be(at, is_integer), sink);
            return Cow::Borrowed(item);
        }
        Type::Tuple(items) => {
            let ExprKind::Int(place) = index.kind else { return any };
            if let Some(item) = usize::try_from(place).ok().and_then(|place| items.get(place)) {
                return Cow::Borrowed(item);
            }
            sink.report(&codes::UNKNOWN_FIELD, index.span, format!("this tuple has {} items", items.len()))
                .help("the first one is `[0]`");
            return any;
        }
        // A map whose keys aren't texts is a list of pairs.
        Type::Map(key, _) if **key != Type::String => return any,
        _ => {}
    }
    sink.report(&codes::UNKNOWN_FIELD, span, format!("this has no items: it is {}", describe(list)))
        .help("only a list or a tuple is read by an index");
    any
}

fn in_json(field: &str) -> String {
    if field.contains('-') { lower_camel(field) } else { field.to_owned() }
}
