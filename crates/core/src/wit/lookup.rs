//! Finds functions and types by the words of their names.

use std::fmt;

use super::{Exports, Function, NamedType, Type};
use crate::name;

impl Exports {
    /// Finds the function `name` of `interface`. Both are matched by their words.
    ///
    /// The interface is its own name (`cart` for `acme:shop/cart@1.0.0`) or its full name. Without an interface, the
    /// function must be the only export of that name.
    ///
    /// # Errors
    /// No function matches, or more than one does.
    pub fn find_function(&self, interface: Option<&str>, name: &str) -> Result<&Function, LookupError> {
        let words = name::kebab(name);
        let matches: Vec<&Function> = self
            .functions
            .iter()
            .filter(|f| has_words(&f.name, &words) && interface.is_none_or(|wanted| f.is_in(wanted)))
            .collect();
        let wanted = match interface {
            Some(interface) => format!("{interface}.{name}"),
            None => name.to_owned(),
        };
        match matches.as_slice() {
            [one] => Ok(one),
            [] => Err(LookupError::Unknown { wanted, offered: names(&self.functions) }),
            several => Err(LookupError::Ambiguous { wanted, candidates: names(several.iter().copied()) }),
        }
    }

    /// Finds the type that is exported under `name`, which is matched by its words. Equal types of that name in several
    /// interfaces are one type.
    ///
    /// # Errors
    /// Different types are exported under that name.
    pub fn find_type(&self, name: &str) -> Result<Option<&Type>, LookupError> {
        let mut matches = self.types.iter().filter(|t| name::same(&t.name, name));
        let Some(first) = matches.next() else { return Ok(None) };
        if matches.all(|other| other.ty == first.ty) {
            return Ok(Some(&first.ty));
        }
        let candidates = self
            .types
            .iter()
            .filter(|t| name::same(&t.name, name))
            .map(|t| qualified(t.interface.as_deref(), &t.name))
            .collect();
        Err(LookupError::Ambiguous { wanted: name.to_owned(), candidates })
    }
}

impl Function {
    /// Whether it can be called with JSON: its signature has no resource, stream, future or error context.
    pub fn is_callable(&self) -> bool {
        self.opaque().is_none()
    }

    /// The first part of its signature that has no JSON, or `None` if all parts have.
    pub fn opaque(&self) -> Option<&str> {
        self.params.iter().map(|p| &p.ty).chain(&self.result).find_map(Type::opaque)
    }

    /// The full name, such as `acme:shop/cart@1.0.0.place-order`, or `place-order` at the top level.
    pub fn qualified_name(&self) -> String {
        qualified(self.interface.as_deref(), &self.name)
    }

    /// Whether its interface is `wanted`, which is an own name, matched by its words, or a full name.
    pub fn is_in(&self, wanted: &str) -> bool {
        self.interface
            .as_deref()
            .is_some_and(|full| full == wanted || name::same(interface_own_name(full), wanted))
    }
}

impl NamedType {
    /// The full name, such as `acme:shop/cart@1.0.0.order`, or `order` at the top level.
    pub fn qualified_name(&self) -> String {
        qualified(self.interface.as_deref(), &self.name)
    }
}

impl Type {
    /// The first resource, stream, future or error context inside, or `None`.
    pub fn opaque(&self) -> Option<&str> {
        match self {
            Type::Opaque(description) => Some(description),
            Type::List(inner) | Type::Option(inner) => inner.opaque(),
            Type::Tuple(parts) => parts.iter().find_map(Type::opaque),
            Type::Record(fields) => fields.iter().find_map(|f| f.ty.opaque()),
            Type::Variant(cases) => cases.iter().filter_map(|c| c.ty.as_ref()).find_map(Type::opaque),
            Type::Result { ok, err } => [ok, err].into_iter().flatten().find_map(|t| t.opaque()),
            Type::Map(key, value) => key.opaque().or_else(|| value.opaque()),
            _ => None,
        }
    }
}

/// Writes the type as WIT does, but with its structure in place of names: names of types such as `order` are not kept.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = match self {
            Type::Bool => "bool",
            Type::S8 => "s8",
            Type::U8 => "u8",
            Type::S16 => "s16",
            Type::U16 => "u16",
            Type::S32 => "s32",
            Type::U32 => "u32",
            Type::S64 => "s64",
            Type::U64 => "u64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::Any => "any JSON",
            Type::Unit => "no value",
            Type::Opaque(description) => description,
            Type::List(inner) => return write!(f, "list<{inner}>"),
            Type::Option(inner) => return write!(f, "option<{inner}>"),
            Type::Map(key, value) => return write!(f, "map<{key}, {value}>"),
            Type::Tuple(parts) => return write_list(f, "tuple<", parts.iter().map(ToString::to_string), ">"),
            Type::Record(fields) => {
                return write_list(
                    f,
                    "record { ",
                    fields.iter().map(|p| format!("{}: {}", p.name, p.ty)),
                    " }",
                );
            }
            Type::Variant(cases) => {
                let case = |c: &super::Case| match &c.ty {
                    Some(ty) => format!("{}({ty})", c.name),
                    None => c.name.clone(),
                };
                return write_list(f, "variant { ", cases.iter().map(case), " }");
            }
            Type::Enum(names) => return write_list(f, "enum { ", names.iter().cloned(), " }"),
            Type::Flags(names) => return write_list(f, "flags { ", names.iter().cloned(), " }"),
            Type::Result { ok, err } => {
                return match (ok, err) {
                    (Some(ok), Some(err)) => write!(f, "result<{ok}, {err}>"),
                    (Some(ok), None) => write!(f, "result<{ok}>"),
                    (None, Some(err)) => write!(f, "result<_, {err}>"),
                    (None, None) => f.write_str("result"),
                };
            }
        };
        f.write_str(plain)
    }
}

/// The own name of an interface: `cart` for `acme:shop/cart@1.0.0`.
pub fn interface_own_name(full: &str) -> &str {
    let after_package = full.rsplit_once('/').map_or(full, |(_, name)| name);
    after_package.split_once('@').map_or(after_package, |(name, _)| name)
}

/// Why a name doesn't identify one export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("nothing is exported as `{wanted}`; there {}", offer(offered))]
    Unknown { wanted: String, offered: Vec<String> },
    #[error("`{wanted}` could be any of {}", candidates.join(", "))]
    Ambiguous { wanted: String, candidates: Vec<String> },
}

fn offer(names: &[String]) -> String {
    const SHOWN: usize = 20;
    match names {
        [] => "are no functions".into(),
        [one] => format!("is only `{one}`"),
        several if several.len() > SHOWN => format!("are {}, …", several[..SHOWN].join(", ")),
        several => format!("are {}", several.join(", ")),
    }
}

/// Whether the name of an export has these words, which are given in kebab-case. Most names are already in kebab-case.
pub fn has_words(export: &str, words: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_kebab = export.bytes().all(plain) && !export.contains("--");
    export == words || !is_kebab && name::kebab(export) == words
}

fn names<'a>(functions: impl IntoIterator<Item = &'a Function>) -> Vec<String> {
    functions.into_iter().map(Function::qualified_name).collect()
}

fn qualified(interface: Option<&str>, name: &str) -> String {
    match interface {
        Some(interface) => format!("{interface}.{name}"),
        None => name.to_owned(),
    }
}

fn write_list(
    f: &mut fmt::Formatter<'_>,
    open: &str,
    parts: impl Iterator<Item = String>,
    close: &str,
) -> fmt::Result {
    let parts: Vec<String> = parts.collect();
    write!(f, "{open}{}{close}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(interface: Option<&str>, name: &str) -> Function {
        Function { interface: interface.map(Into::into), name: name.into(), params: vec![], result: None }
    }

    fn shop() -> Exports {
        Exports {
            functions: vec![
                function(Some("acme:shop/cart@1.0.0"), "place-order"),
                function(Some("acme:shop/cart@1.0.0"), "clear"),
                function(Some("acme:shop/wish-list"), "clear"),
                function(None, "ping"),
            ],
            types: vec![
                NamedType { interface: Some("a:b/c".into()), name: "order".into(), ty: Type::U8 },
                NamedType { interface: Some("a:b/d".into()), name: "order".into(), ty: Type::U8 },
                NamedType { interface: Some("a:b/c".into()), name: "line-item".into(), ty: Type::U8 },
                NamedType { interface: Some("a:b/d".into()), name: "line-item".into(), ty: Type::U16 },
            ],
        }
    }

    #[test]
    fn a_function_is_found_by_the_words_of_its_name() {
        let shop = shop();
        for name in ["placeOrder", "place_order", "place-order"] {
            assert_eq!(shop.find_function(None, name).expect(name).name, "place-order");
        }
        assert_eq!(
            shop.find_function(Some("Cart"), "clear").expect("cart").qualified_name(),
            "acme:shop/cart@1.0.0.clear"
        );
        assert!(shop.find_function(Some("wishList"), "clear").is_ok());
        assert!(shop.find_function(Some("acme:shop/wish-list"), "clear").is_ok());
        assert!(shop.find_function(None, "ping").is_ok());
        assert!(shop.find_function(Some("cart"), "ping").is_err(), "the top level is in no interface");
    }

    #[test]
    fn an_unqualified_name_must_be_the_only_one() {
        let error = shop().find_function(None, "clear").expect_err("there are two");
        assert_eq!(
            error.to_string(),
            "`clear` could be any of acme:shop/cart@1.0.0.clear, acme:shop/wish-list.clear"
        );
        let error = shop().find_function(Some("cart"), "pay").expect_err("there is none");
        assert!(error.to_string().starts_with("nothing is exported as `cart.pay`; there are "), "{error}");
    }

    #[test]
    fn one_type_under_a_name_in_two_interfaces_is_one_type() {
        assert_eq!(shop().find_type("Order"), Ok(Some(&Type::U8)));
        assert_eq!(shop().find_type("Receipt"), Ok(None));
        assert!(matches!(shop().find_type("LineItem"), Err(LookupError::Ambiguous { .. })));
    }

    #[test]
    fn a_part_without_json_is_found_at_any_depth() {
        let stream = Type::Opaque("stream<u8>".into());
        let mut f = function(None, "watch");
        assert!(f.is_callable());
        f.result = Some(Type::Result { ok: Some(Box::new(Type::List(Box::new(stream)))), err: None });
        assert_eq!(f.opaque(), Some("stream<u8>"));
    }
}
