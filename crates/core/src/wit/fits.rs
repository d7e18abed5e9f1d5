//! Decides whether a new version of a component may replace an old one.
//!
//! The rule is about JSON, since a workflow sees nothing else: the order of fields and the names of parameters don't count.
//! Parameters may gain optional fields and cases, and their integers may get wider. Results may gain fields and lose cases.
//! All else must be equal.

use std::collections::BTreeSet;

use super::{Case, Exports, Field, Function, Type, json};
use crate::name;

/// One incompatible change of a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The name of the function.
    pub function: String,
    /// The place in its signature, such as `order.items[].quantity` or `result.total`. Empty for the function as a whole.
    pub path: String,
    pub message: String,
}

/// Returns the changes that keep callers of `old` from calling `new`. There are none if it fits.
pub fn fits(old: &Function, new: &Function) -> Vec<Break> {
    let mut comparison = Comparison { function: &old.name, breaks: Vec::new() };
    if old.params.len() == new.params.len() {
        for (old, new) in old.params.iter().zip(&new.params) {
            comparison.types(&old.ty, &new.ty, Position::Param, &json::camel(&old.name));
        }
    } else {
        let message =
            format!("takes {} instead of {}", parameters(new.params.len()), parameters(old.params.len()));
        comparison.note("", message);
    }
    comparison.payloads(old.result.as_ref(), new.result.as_ref(), Position::Result, "result");
    comparison.breaks
}

/// Returns the changes that keep the component version `new` from replacing `old`, for the functions in `calls`. Each
/// is given as a workflow names it, with or without its interface.
pub fn fits_calls<'a>(
    old: &Exports,
    new: &Exports,
    calls: impl IntoIterator<Item = (Option<&'a str>, &'a str)>,
) -> Vec<Break> {
    let mut breaks = Vec::new();
    for (interface, name) in calls {
        // A function that the old version lacks as well can't break.
        let Ok(before) = old.find_function(interface, name) else { continue };
        match new.find_function(interface, name) {
            Ok(after) => breaks.extend(fits(before, after)),
            Err(error) => breaks.push(Break {
                function: before.name.clone(),
                path: String::new(),
                message: error.to_string(),
            }),
        }
    }
    breaks
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Values go in. The new type must accept every value that the old one accepted.
    Param,
    /// Values come out. A reader of the old type must understand every value of the new one.
    Result,
}

struct Comparison<'a> {
    function: &'a str,
    breaks: Vec<Break>,
}

impl Comparison<'_> {
    fn types(&mut self, old: &Type, new: &Type, position: Position, path: &str) {
        match (old, new) {
            (Type::Record(old), Type::Record(new)) => self.records(old, new, position, path),
            (Type::Variant(old), Type::Variant(new)) => self.variants(old, new, position, path),
            (Type::Enum(old), Type::Enum(new)) => {
                self.names(old.iter(), new.iter(), position, path);
            }
            (Type::Flags(old_flags), Type::Flags(new_flags)) => {
                let set = |flags: &[String]| flags.iter().map(|f| name::kebab(f)).collect::<BTreeSet<_>>();
                if set(old_flags) != set(new_flags) {
                    self.differ(old, new, path);
                }
            }
            // A list of bytes is a text in JSON, any other list an array.
            (Type::List(old_item), Type::List(new_item))
                if (**old_item == Type::U8) == (**new_item == Type::U8) =>
            {
                self.types(old_item, new_item, position, &format!("{path}[]"));
            }
            (Type::Option(old), Type::Option(new)) => self.types(old, new, position, path),
            (Type::Tuple(old), Type::Tuple(new)) if old.len() == new.len() => {
                for (i, (old, new)) in old.iter().zip(new).enumerate() {
                    self.types(old, new, position, &format!("{path}[{i}]"));
                }
            }
            (Type::Result { ok: old_ok, err: old_err }, Type::Result { ok: new_ok, err: new_err }) => {
                self.payloads(old_ok.as_deref(), new_ok.as_deref(), position, &format!("{path}.ok"));
                self.payloads(old_err.as_deref(), new_err.as_deref(), position, &format!("{path}.err"));
            }
            (Type::Map(old_key, old_value), Type::Map(new_key, new_value)) => {
                self.types(old_key, new_key, position, &format!("{path}.key"));
                self.types(old_value, new_value, position, &format!("{path}[]"));
            }
            (old, new) if old == new => {}
            (old, new) => match (json::integer_range(old), json::integer_range(new)) {
                (Some(was), Some(is)) if position == Position::Param && is.0 <= was.0 && was.1 <= is.1 => {}
                _ => self.differ(old, new, path),
            },
        }
    }

    fn records(&mut self, old: &[Field], new: &[Field], position: Position, path: &str) {
        for field in old {
            let path = format!("{path}.{}", json::camel(&field.name));
            match new.iter().find(|f| name::same(&f.name, &field.name)) {
                Some(same) => self.types(&field.ty, &same.ty, position, &path),
                None => self.note(&path, "the field is gone"),
            }
        }
        if position == Position::Result {
            return;
        }
        for field in new {
            let added = !old.iter().any(|f| name::same(&f.name, &field.name));
            if added && !matches!(field.ty, Type::Option(_)) {
                let path = format!("{path}.{}", json::camel(&field.name));
                self.note(&path, "the field is new and not an option");
            }
        }
    }

    fn variants(&mut self, old: &[Case], new: &[Case], position: Position, path: &str) {
        self.names(old.iter().map(|c| &c.name), new.iter().map(|c| &c.name), position, path);
        for case in old {
            if let Some(same) = new.iter().find(|c| name::same(&c.name, &case.name)) {
                let path = format!("{path}.{}", json::camel(&case.name));
                self.payloads(case.ty.as_ref(), same.ty.as_ref(), position, &path);
            }
        }
    }

    /// The names of cases: those of parameters may become more, those of results fewer.
    fn names<'n>(
        &mut self,
        old: impl Iterator<Item = &'n String>,
        new: impl Iterator<Item = &'n String>,
        position: Position,
        path: &str,
    ) {
        let old: BTreeSet<String> = old.map(|n| name::kebab(n)).collect();
        let new: BTreeSet<String> = new.map(|n| name::kebab(n)).collect();
        let (broken, what) = match position {
            Position::Param => (old.difference(&new), "the case is gone"),
            Position::Result => (new.difference(&old), "the case is new"),
        };
        for case in broken {
            self.note(&format!("{path}.{}", json::camel(case)), what);
        }
    }

    fn payloads(&mut self, old: Option<&Type>, new: Option<&Type>, position: Position, path: &str) {
        match (old, new) {
            (Some(old), Some(new)) => self.types(old, new, position, path),
            (None, None) => {}
            (Some(old), None) => self.note(path, format!("was {old} and is nothing now")),
            (None, Some(new)) => self.note(path, format!("was nothing and is {new} now")),
        }
    }

    fn differ(&mut self, old: &Type, new: &Type, path: &str) {
        self.note(path, format!("was {old} and is {new} now"));
    }

    fn note(&mut self, path: &str, message: impl Into<String>) {
        self.breaks.push(Break {
            function: self.function.to_owned(),
            path: path.to_owned(),
            message: message.into(),
        });
    }
}

fn parameters(n: usize) -> String {
    if n == 1 { "1 parameter".into() } else { format!("{n} parameters") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<const N: usize>(fields: [(&str, Type); N]) -> Type {
        Type::Record(fields.into_iter().map(|(name, ty)| Field { name: name.into(), ty }).collect())
    }

    fn variant<const N: usize>(cases: [(&str, Option<Type>); N]) -> Type {
        Type::Variant(cases.into_iter().map(|(name, ty)| Case { name: name.into(), ty }).collect())
    }

    fn enumeration(names: &[&str]) -> Type {
        Type::Enum(names.iter().map(ToString::to_string).collect())
    }

    fn flags(names: &[&str]) -> Type {
        Type::Flags(names.iter().map(ToString::to_string).collect())
    }

    fn list(ty: Type) -> Type {
        Type::List(Box::new(ty))
    }

    fn option(ty: Type) -> Type {
        Type::Option(Box::new(ty))
    }

    fn result(ok: Option<Type>, err: Option<Type>) -> Type {
        Type::Result { ok: ok.map(Box::new), err: err.map(Box::new) }
    }

    fn function(param: Type, result: Type) -> Function {
        Function {
            interface: None,
            name: "f".into(),
            params: vec![Field { name: "order".into(), ty: param }],
            result: Some(result),
        }
    }

    /// Each row: old, new, whether the change fits in a parameter, whether it fits in a result.
    #[test]
    fn a_change_of_a_type_fits_as_the_table_says() {
        use Type::{Bool, F32, F64, S8, S16, S64, String, U8, U16, U32, U64};
        let one = || ("a", U8);
        let table: Vec<(Type, Type, bool, bool)> = vec![
            // Equal.
            (U8, U8, true, true),
            (list(U8), list(U8), true, true),
            (record([one(), ("b", Bool)]), record([("b", Bool), one()]), true, true),
            // Fields.
            (record([one()]), record([one(), ("b", option(Bool))]), true, true),
            (record([one()]), record([one(), ("b", Bool)]), false, true),
            (record([one(), ("b", Bool)]), record([one()]), false, false),
            (record([one(), ("b", option(Bool))]), record([one()]), false, false),
            (record([one()]), record([("z", U8)]), false, false),
            // Cases.
            (enumeration(&["x"]), enumeration(&["x", "y"]), true, false),
            (enumeration(&["x", "y"]), enumeration(&["y"]), false, true),
            (enumeration(&["x", "y"]), enumeration(&["y", "x"]), true, true),
            (variant([("x", None)]), variant([("x", None), ("y", Some(U8))]), true, false),
            (variant([("x", None), ("y", Some(U8))]), variant([("y", Some(U8))]), false, true),
            (variant([("x", Some(U8))]), variant([("x", Some(U16))]), true, false),
            (variant([("x", None)]), variant([("x", Some(U8))]), false, false),
            (variant([("x", Some(U8))]), variant([("x", None)]), false, false),
            (variant([("x", None)]), enumeration(&["x"]), false, false),
            // Integers.
            (U8, U16, true, false),
            (U8, S16, true, false),
            (S8, U16, false, false),
            (U32, S64, true, false),
            (S64, U64, false, false),
            (U16, U8, false, false),
            (U32, F64, false, false),
            (F32, F64, false, false),
            // All else.
            (U8, String, false, false),
            (U8, option(U8), false, false),
            (option(U8), U8, false, false),
            (option(U8), option(U16), true, false),
            (option(U8), option(option(U8)), false, false),
            (flags(&["r", "w"]), flags(&["w", "r"]), true, true),
            (flags(&["r"]), flags(&["r", "w"]), false, false),
            (Type::Tuple(vec![U8, U8]), Type::Tuple(vec![U8, U16]), true, false),
            (Type::Tuple(vec![U8]), Type::Tuple(vec![U8, U8]), false, false),
            (list(U16), list(U32), true, false),
            (list(U8), list(U16), false, false),
            (list(U16), list(U8), false, false),
            (
                Type::Map(Box::new(String), Box::new(U8)),
                Type::Map(Box::new(String), Box::new(U16)),
                true,
                false,
            ),
            (Type::Map(Box::new(U8), Box::new(U8)), Type::Map(Box::new(String), Box::new(U8)), false, false),
            (
                result(Some(record([one()])), Some(enumeration(&["x", "y"]))),
                result(Some(record([one(), ("b", Bool)])), Some(enumeration(&["x"]))),
                false,
                true,
            ),
            (result(None, None), result(Some(U8), None), false, false),
            (U8, result(Some(U8), Some(String)), false, false),
        ];
        for (old, new, as_param, as_result) in table {
            let in_param = fits(&function(old.clone(), Bool), &function(new.clone(), Bool));
            assert_eq!(in_param.is_empty(), as_param, "parameter {old} to {new}: {in_param:?}");
            let in_result = fits(&function(Bool, old.clone()), &function(Bool, new.clone()));
            assert_eq!(in_result.is_empty(), as_result, "result {old} to {new}: {in_result:?}");
        }
    }

    #[test]
    fn a_break_names_its_place() {
        let old = function(record([("items", list(record([("quantity", Type::U32)])))]), Type::Bool);
        let new = function(record([("items", list(record([("quantity", Type::U16)])))]), Type::Bool);
        let breaks = fits(&old, &new);
        assert_eq!(breaks.len(), 1);
        assert_eq!(breaks[0].path, "order.items[].quantity");
        assert_eq!(breaks[0].message, "was u32 and is u16 now");
    }

    #[test]
    fn the_number_of_parameters_stays() {
        let old = function(Type::U8, Type::Bool);
        let mut new = old.clone();
        new.params.push(Field { name: "more".into(), ty: option(Type::U8) });
        assert_eq!(fits(&old, &new)[0].message, "takes 2 parameters instead of 1 parameter");
        let mut renamed = old.clone();
        renamed.params[0].name = "other".into();
        assert_eq!(fits(&old, &renamed), []);
    }

    #[test]
    fn only_functions_that_are_called_must_stay() {
        let exports = |names: &[&str]| Exports {
            functions: names
                .iter()
                .map(|name| Function { name: (*name).into(), ..function(Type::U8, Type::Bool) })
                .collect(),
            types: vec![],
        };
        let (old, new) = (exports(&["place-order", "cancel"]), exports(&["place-order"]));
        assert_eq!(fits_calls(&old, &new, [(None, "placeOrder")]), []);
        let breaks = fits_calls(&old, &new, [(None, "cancel")]);
        assert_eq!(breaks[0].function, "cancel");
        assert_eq!(breaks[0].message, "nothing is exported as `cancel`; there is only `place-order`");
    }
}
