//! Describes types in words, for messages.

use aster_core::name::lower_camel;
use aster_core::wit::Type;

/// Deeper parts of a type are left out, since they only blur a message.
const DEPTH: u32 = 2;

/// Describes a type, such as `a record { orderId, items }`. The words fit after "is".
pub(super) fn describe(ty: &Type) -> String {
    at_depth(ty, 0)
}

fn at_depth(ty: &Type, depth: u32) -> String {
    if depth > DEPTH {
        return "…".to_owned();
    }
    let of = |ty: &Type| at_depth(ty, depth + 1);
    match ty {
        Type::Bool => "true or false".to_owned(),
        Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 | Type::S64 | Type::U64 => {
            format!("an integer ({})", format!("{ty:?}").to_lowercase())
        }
        Type::F32 | Type::F64 => "a number".to_owned(),
        Type::Char => "a character".to_owned(),
        Type::String => "a text".to_owned(),
        Type::List(item) if **item == Type::U8 => "bytes as base64 text".to_owned(),
        Type::List(item) if **item == Type::Any => "a list".to_owned(),
        Type::List(item) => format!("a list, each item {}", of(item)),
        Type::Tuple(items) => format!("a tuple of {}", items.len()),
        Type::Record(fields) => format!("a record {}", names(fields.iter().map(|field| field.name.as_str()))),
        Type::Variant(cases) => format!("a variant {}", names(cases.iter().map(|case| case.name.as_str()))),
        Type::Enum(cases) => format!("one of {}", names(cases.iter().map(String::as_str))),
        Type::Flags(flags) => format!("flags {}", names(flags.iter().map(String::as_str))),
        Type::Option(inner) => format!("{} or null", of(inner)),
        Type::Result { .. } => "a result".to_owned(),
        Type::Map(..) => "a map".to_owned(),
        Type::Any => "any JSON".to_owned(),
        Type::Unit => "null".to_owned(),
        Type::Opaque(what) => what.clone(),
    }
}

fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut names = names.map(lower_camel);
    let shown: Vec<String> = names.by_ref().take(8).collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    format!("{{ {}{more} }}", shown.join(", "))
}
