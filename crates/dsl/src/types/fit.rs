//! Checks that arguments fit their parameters.
//!
//! The rules are those of the JSON mapping. A value of a known type fits if some value of that type does. A value that
//! is only sometimes wrong, such as an integer that may be too large, is checked when the step runs.

use std::collections::{HashMap, HashSet};

use aster_core::name::{kebab, lower_camel};
use aster_core::wit::{Case, Field, Type, json};

use super::describe;
use super::infer::{Scope, is_integer, is_number, is_text};
use crate::Span;
use crate::ast::{Expr, ExprKind, Name, TextPart};
use crate::codes;
use crate::diagnostic::{Sink, brief};

impl Scope<'_, '_, '_> {
    /// Checks the argument for the parameter `name`.
    pub(super) fn argument(&self, name: &str, arg: &Expr, param: &Type, sink: &mut Sink) {
        if sink.is_full() || !sink.look_at_types(1) {
            return;
        }
        let inner = strip(param);
        match (&arg.kind, inner) {
            (ExprKind::List(items), Type::List(item)) if **item != Type::U8 => {
                items.iter().for_each(|value| self.argument(name, value, item, sink));
            }
            (ExprKind::List(items), Type::Tuple(types)) if items.len() == types.len() => {
                items.iter().zip(types).for_each(|(value, ty)| self.argument(name, value, ty, sink));
            }
            (ExprKind::List(items), Type::Flags(flags)) => {
                let all = Type::Enum(flags.clone());
                if !sink.look_at_types(flags.len()) {
                    return;
                }
                items.iter().for_each(|value| self.argument(name, value, &all, sink));
            }
            (ExprKind::Record(given), Type::Record(fields)) => {
                self.record(name, arg.span, given, fields, sink)
            }
            (ExprKind::Record(given), Type::Map(key, value)) if **key == Type::String => {
                given.iter().for_each(|(_, given)| self.argument(name, given, value, sink));
            }
            (ExprKind::Text(parts), Type::Enum(_) | Type::Variant(_) | Type::Char)
                if plain(parts).is_some() =>
            {
                constant(name, arg.span, plain(parts).unwrap_or_default(), inner, sink);
            }
            (ExprKind::Int(value), ty) if is_integer(ty) && !in_range(*value, ty) => {
                let message =
                    format!("`{}` is {}, and {value} is out of its range", lower_camel(name), describe(ty));
                sink.report(&codes::ARGUMENT_TYPE, arg.span, message).help("write a number that it can hold");
            }
            _ => {
                let ty = self.infer(arg, sink);
                if *ty == Type::Unit && !accepts_null(param) {
                    let message = format!("`{}` can't be null: it is {}", lower_camel(name), describe(param));
                    sink.report(&codes::NULL_ARGUMENT, arg.span, message)
                        .help("write a value, or make the parameter an `option` in the component");
                } else if !fits(&ty, param, sink) {
                    mismatch(name, arg.span, &ty, param, sink);
                } else if matches!(*ty, Type::Option(_)) && !accepts_null(param) {
                    let message = format!(
                        "`{}` can't be null, and this may be: it is {}",
                        lower_camel(name),
                        describe(&ty)
                    );
                    sink.report(&codes::MAY_BE_NULL, arg.span, message)
                        .help("write what is never null, or make the parameter an `option` in the component");
                }
            }
        }
    }

    fn record(&self, name: &str, span: Span, given: &[(Name, Expr)], fields: &[Field], sink: &mut Sink) {
        if !sink.look_at_types(given.len() + fields.len()) {
            return;
        }
        let known: Vec<String> = fields.iter().map(|field| lower_camel(&field.name)).collect();
        let mut by_name: HashMap<String, &Field> = HashMap::new();
        for (field, camel) in fields.iter().zip(&known) {
            for name in [field.name.clone(), camel.clone()] {
                by_name.entry(name).or_insert(field);
            }
        }
        for (key, value) in given {
            if sink.is_full() {
                return;
            }
            if let Some(field) = by_name.get(&key.text) {
                self.argument(&field.name, value, &field.ty, sink);
                continue;
            }
            self.infer(value, sink);
            let near = sink.did_you_mean(&key.text, known.iter().map(String::as_str));
            sink.report(
                &codes::ARGUMENT_TYPE,
                key.span,
                format!("`{}` has no field `{}`", lower_camel(name), key.text),
            )
            .help(near.unwrap_or_else(|| format!("its fields are {}", listed(&known))));
        }
        let given: HashSet<String> = given.iter().map(|(key, _)| kebab(&key.text)).collect();
        let missing: Vec<String> = fields
            .iter()
            .filter(|field| !accepts_null(&field.ty) && !given.contains(&kebab(&field.name)))
            .map(|field| lower_camel(&field.name))
            .collect();
        if !missing.is_empty() {
            let message = format!("`{}` lacks {}", lower_camel(name), listed(&missing));
            sink.report(&codes::ARGUMENT_TYPE, span, message).help("write every field that is not an option");
        }
    }
}

/// Checks a literal text against a type that only some texts fit.
fn constant(name: &str, span: Span, text: &str, param: &Type, sink: &mut Sink) {
    let cases: Vec<&str> = match param {
        Type::Enum(cases) => cases.iter().map(String::as_str).collect(),
        Type::Variant(cases) => {
            cases.iter().filter(|case| case.ty.is_none()).map(|case| case.name.as_str()).collect()
        }
        _ if text.chars().nth(1).is_none() && !text.is_empty() => return,
        _ => {
            mismatch(name, span, &Type::String, param, sink);
            return;
        }
    };
    let known = cases.iter().any(|case| json::spells(case, text) || lower_camel(case) == text);
    if known || sink.is_full() || !sink.look_at_types(cases.len()) {
        return;
    }
    let cases: Vec<String> = cases.into_iter().map(lower_camel).collect();
    let near = sink.did_you_mean(text, cases.iter().map(String::as_str));
    sink.report(
        &codes::ARGUMENT_TYPE,
        span,
        format!("`{}` can't be `{}`", lower_camel(name), brief(text).escape_debug()),
    )
    .help(near.unwrap_or_else(|| format!("it is one of {}", listed(&cases))));
}

fn mismatch(name: &str, span: Span, ty: &Type, param: &Type, sink: &mut Sink) {
    let message = format!("`{}` is {}, and this is {}", lower_camel(name), describe(param), describe(ty));
    sink.report(&codes::ARGUMENT_TYPE, span, message)
        .help(format!("write something that is {}", describe(strip(param))));
}

/// Whether some value of the type `arg` fits the type `param`. Also true if types are no longer looked at.
fn fits(arg: &Type, param: &Type, sink: &mut Sink) -> bool {
    if !sink.look_at_types(1) {
        return true;
    }
    match (arg, param) {
        (Type::Any, _) | (_, Type::Any) => true,
        (Type::Unit, _) => accepts_null(param),
        (Type::Option(arg), Type::Option(param)) => fits(arg, param, sink),
        // Null is accepted, or checked when the step runs. Only the value can be wrong.
        (Type::Option(arg), param) => fits(arg, param, sink),
        (arg, Type::Option(param)) => fits(arg, param, sink),
        (arg, param) if is_integer(param) => is_integer(arg),
        (arg, Type::F32 | Type::F64) => is_number(arg),
        (arg, Type::String) => is_text(arg) || has_bare_case(arg),
        (arg, Type::Char) => is_text(arg),
        (Type::Enum(arg), Type::Enum(param)) => {
            have_one_in_common(arg.iter().map(String::as_str), param.iter().map(String::as_str), sink)
        }
        (arg, Type::Enum(_)) => is_text(arg) || has_bare_case(arg),
        (Type::Variant(arg), Type::Variant(param)) => {
            have_one_in_common(arg.iter().map(name_of), param.iter().map(name_of), sink)
        }
        (arg, Type::Variant(_)) => is_text(arg) || matches!(arg, Type::Record(_) | Type::Map(..)),
        (arg, Type::List(item)) if **item == Type::U8 => is_text(arg),
        (Type::List(arg), Type::List(param)) => **arg != Type::U8 && fits(arg, param, sink),
        (Type::Tuple(items), Type::List(param)) => items.iter().all(|item| fits(item, param, sink)),
        (Type::Tuple(arg), Type::Tuple(param)) => {
            arg.len() == param.len() && arg.iter().zip(param).all(|(arg, param)| fits(arg, param, sink))
        }
        (Type::List(arg), Type::Tuple(param)) => {
            **arg != Type::U8 && param.iter().all(|param| fits(arg, param, sink))
        }
        (Type::List(arg), Type::Flags(_)) => fits(arg, &Type::String, sink),
        (Type::Record(arg), Type::Record(param)) => record_fits(arg, param, sink),
        (Type::Map(..), Type::Record(_)) => true,
        (Type::Record(arg), Type::Map(_, value)) => arg.iter().all(|field| fits(&field.ty, value, sink)),
        (Type::Map(_, arg), Type::Map(_, param)) => fits(arg, param, sink),
        (Type::List(_) | Type::Tuple(_), Type::Map(key, _)) => **key != Type::String,
        (Type::Record(_) | Type::Result { .. } | Type::Variant(_), Type::Result { .. }) => true,
        _ => arg == param,
    }
}

fn name_of(case: &Case) -> &str {
    &case.name
}

fn have_one_in_common<'n>(
    mut some: impl Iterator<Item = &'n str>,
    others: impl Iterator<Item = &'n str>,
    sink: &mut Sink,
) -> bool {
    let others: HashSet<&str> = others.collect();
    !sink.look_at_types(others.len()) || some.any(|name| others.contains(name))
}

/// Whether a record has all required fields of another and no unknown ones.
fn record_fits(arg: &[Field], param: &[Field], sink: &mut Sink) -> bool {
    if !sink.look_at_types(arg.len() + param.len()) {
        return true;
    }
    let by_name: HashMap<String, &Field> = param.iter().map(|field| (kebab(&field.name), field)).collect();
    let given: HashSet<String> = arg.iter().map(|field| kebab(&field.name)).collect();
    arg.iter()
        .all(|field| by_name.get(&kebab(&field.name)).is_some_and(|param| fits(&field.ty, &param.ty, sink)))
        && param.iter().all(|field| accepts_null(&field.ty) || given.contains(&kebab(&field.name)))
}

/// The first names of a list, for a message.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn accepts_null(param: &Type) -> bool {
    matches!(param, Type::Option(_) | Type::Any | Type::Unit)
}

/// The type inside an option, unless that is an option again; otherwise the type itself.
fn strip(param: &Type) -> &Type {
    match param {
        Type::Option(inner) if !matches!(**inner, Type::Option(_)) => inner,
        other => other,
    }
}

fn has_bare_case(ty: &Type) -> bool {
    matches!(ty, Type::Variant(cases) if cases.iter().any(|case| case.ty.is_none()))
}

fn plain(parts: &[TextPart]) -> Option<&str> {
    match parts {
        [TextPart::Plain(text)] => Some(text),
        _ => None,
    }
}

fn in_range(value: i64, ty: &Type) -> bool {
    match ty {
        Type::S8 => i8::try_from(value).is_ok(),
        Type::U8 => u8::try_from(value).is_ok(),
        Type::S16 => i16::try_from(value).is_ok(),
        Type::U16 => u16::try_from(value).is_ok(),
        Type::S32 => i32::try_from(value).is_ok(),
        Type::U32 => u32::try_from(value).is_ok(),
        Type::U64 => value >= 0,
        _ => true,
    }
}
