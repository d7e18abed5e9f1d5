//! The normal form of a JSON value that fits a type. Expressions of the language rely on it.

use serde_json::Value;

use super::{Type, json};

/// Returns `value` in its normal form. Records have all their fields, spelled in lowerCamelCase; an option that was
/// left out is null. Numbers have the form of their type: the integers `7.0` and `"7"` become `7`, and the float `5`
/// becomes `5.0`.
///
/// A part that doesn't fit `ty` is left unchanged. [`check`](fn@super::check) finds such parts.
pub fn normalize(ty: &Type, value: Value) -> Value {
    match (ty, value) {
        (Type::Record(fields), Value::Object(mut given)) => {
            let mut record = serde_json::Map::new();
            for field in fields {
                let name = json::camel(&field.name);
                let found = given.remove(&name).or_else(|| given.remove(&field.name));
                match (found, &field.ty) {
                    (Some(value), ty) => record.insert(name, normalize(ty, value)),
                    (None, Type::Option(_)) => record.insert(name, Value::Null),
                    (None, _) => None,
                };
            }
            record.append(&mut given);
            Value::Object(record)
        }
        (Type::List(item), Value::Array(items)) => {
            items.into_iter().map(|value| normalize(item, value)).collect()
        }
        (Type::Tuple(types), Value::Array(items)) if types.len() == items.len() => {
            types.iter().zip(items).map(|(ty, value)| normalize(ty, value)).collect()
        }
        // Only a nested option wraps its value, as `{"some": v}`.
        (Type::Option(inner), value) if !value.is_null() => match (&**inner, value) {
            (Type::Option(_), Value::Object(mut some)) if some.len() == 1 && some.contains_key("some") => {
                let value = some.remove("some").unwrap_or_default();
                Value::Object([("some".to_owned(), normalize(inner, value))].into_iter().collect())
            }
            (_, value) => normalize(inner, value),
        },
        (Type::Map(_, values), Value::Object(entries)) => {
            entries.into_iter().map(|(key, value)| (key, normalize(values, value))).collect()
        }
        (Type::Map(keys, values), Value::Array(pairs)) => {
            let pair = Type::Tuple(vec![(**keys).clone(), (**values).clone()]);
            pairs.into_iter().map(|value| normalize(&pair, value)).collect()
        }
        (Type::Variant(cases), Value::Object(payload)) => {
            let named = |name: &str| cases.iter().find(|case| json::spells(&case.name, name));
            let payload = payload.into_iter().map(|(name, value)| match named(&name) {
                Some(case) => {
                    let ty = case.ty.as_ref().unwrap_or(&Type::Any);
                    (json::camel(&case.name), normalize(ty, value))
                }
                None => (name, value),
            });
            Value::Object(payload.collect())
        }
        (Type::Variant(cases), Value::String(name)) => {
            spelled(cases.iter().map(|case| case.name.as_str()), name)
        }
        (Type::Enum(names), Value::String(name)) => spelled(names.iter().map(String::as_str), name),
        (Type::Flags(names), Value::Array(flags)) => flags
            .into_iter()
            .map(|flag| match flag {
                Value::String(name) => spelled(names.iter().map(String::as_str), name),
                other => other,
            })
            .collect(),
        (Type::Result { ok, err }, Value::Object(payload)) => {
            let payload = payload.into_iter().map(|(name, value)| {
                let ty = if name == "ok" { ok } else { err };
                let value = match ty {
                    Some(ty) => normalize(ty, value),
                    None => value,
                };
                (name, value)
            });
            Value::Object(payload.collect())
        }
        (Type::F32 | Type::F64, Value::Number(number)) => {
            let float = number.as_f64().and_then(serde_json::Number::from_f64);
            Value::Number(float.unwrap_or(number))
        }
        (ty, value) => match json::integer_range(ty).map(|range| json::integer(&value, range)) {
            Some(Ok(integer)) => json::integer_to_json(integer),
            _ => value,
        },
    }
}

/// The name of `names` that `given` spells, in lowerCamelCase; `given` itself if there is none.
fn spelled<'n>(mut names: impl Iterator<Item = &'n str>, given: String) -> Value {
    Value::String(names.find(|name| json::spells(name, &given)).map_or(given, json::camel))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Case, Field, check};
    use super::*;

    fn record(fields: &[(&str, Type)]) -> Type {
        let field = |(name, ty): &(&str, Type)| Field { name: (*name).to_owned(), ty: ty.clone() };
        Type::Record(fields.iter().map(field).collect())
    }

    fn option(ty: Type) -> Type {
        Type::Option(Box::new(ty))
    }

    #[track_caller]
    fn assert_normal(ty: &Type, given: Value, normal: Value) {
        assert_eq!(check(ty, &given, "it"), []);
        assert_eq!(normalize(ty, given), normal);
        assert_eq!(check(ty, &normal, "it"), []);
        assert_eq!(normalize(ty, normal.clone()), normal);
    }

    #[test]
    fn options_that_were_left_out_are_null_and_names_are_camel_case_at_any_depth() {
        let item = record(&[("product-id", Type::String), ("note", option(Type::String))]);
        let order = record(&[
            ("order-id", Type::String),
            ("items", Type::List(Box::new(item.clone()))),
            ("by-name", Type::Map(Box::new(Type::String), Box::new(item.clone()))),
            ("first", option(item.clone())),
            ("maybe", option(option(item.clone()))),
            ("how", Type::Variant(vec![Case { name: "by-post".into(), ty: Some(item.clone()) }])),
            ("ship-to", option(Type::String)),
        ]);
        let short = json!({"product-id": "A"});
        let whole = json!({"productId": "A", "note": null});
        assert_normal(
            &order,
            json!({"order-id": "1", "items": [short], "byName": {"x-y": short}, "first": short,
                "maybe": {"some": short}, "how": {"by-post": short}}),
            json!({"orderId": "1", "items": [whole], "byName": {"x-y": whole}, "first": whole,
                "maybe": {"some": whole}, "how": {"byPost": whole}, "shipTo": null}),
        );
    }

    #[test]
    fn numbers_get_the_form_of_their_type() {
        for (ty, given, normal) in [
            (Type::S64, json!("5"), json!(5)),
            (Type::S64, json!(7.0), json!(7)),
            (Type::S64, json!("9007199254740993"), json!(9_007_199_254_740_993_i64)),
            (Type::U64, json!("18446744073709551615"), json!(u64::MAX)),
            (Type::F64, json!(5), json!(5.0)),
            (Type::String, json!("5"), json!("5")),
        ] {
            let found = normalize(&ty, given.clone());
            assert_eq!(found.to_string(), normal.to_string(), "{ty:?} {given}");
            assert_normal(&ty, given, normal);
        }
    }

    #[test]
    fn cases_and_flags_are_camel_case() {
        let names = || vec!["by-post".to_owned(), "in-person".to_owned()];
        assert_normal(&Type::Enum(names()), json!("by-post"), json!("byPost"));
        assert_normal(&Type::Flags(names()), json!(["in-person", "byPost"]), json!(["inPerson", "byPost"]));
        let case = Case { name: "by-post".into(), ty: None };
        assert_normal(&Type::Variant(vec![case]), json!("by-post"), json!("byPost"));
    }

    #[test]
    fn a_value_of_any_type_stays_as_it_is() {
        assert_normal(&Type::Any, json!({"a-b": [1, null]}), json!({"a-b": [1, null]}));
    }
}
