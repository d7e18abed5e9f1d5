//! Round trips over arbitrary types, and agreement with `core::wit::check`.

use aster_core::wit::{Case, Field, Function, check, fits};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MAX: usize = 1 << 20;

fn name() -> impl Strategy<Value = String> {
    // No digit follows a dash, and words are long enough for spellings to differ.
    "[a-z]{2,5}(-[a-z]{2,4}){0,2}"
}

fn names(max: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(name(), 1..max).prop_map(|set| set.into_iter().collect())
}

fn scalar() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![
        Type::Bool,
        Type::S8,
        Type::U8,
        Type::S16,
        Type::U16,
        Type::S32,
        Type::U32,
        Type::S64,
        Type::U64,
        Type::F32,
        Type::F64,
        Type::Char,
        Type::String,
    ])
}

fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        4 => scalar(),
        1 => names(5).prop_map(Type::Enum),
        1 => names(5).prop_map(Type::Flags),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let key = prop::sample::select(vec![Type::String, Type::U32, Type::S64, Type::Bool, Type::Char]);
        prop_oneof![
            boxed.clone().prop_map(Type::List),
            boxed.clone().prop_map(Type::Option),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Type::Tuple),
            (names(5), prop::collection::vec(inner.clone(), 5)).prop_map(|(names, types)| Type::Record(
                names.into_iter().zip(types).map(|(name, ty)| Field { name, ty }).collect()
            )),
            (names(4), prop::collection::vec(prop::option::of(inner), 4)).prop_map(|(names, types)| {
                Type::Variant(names.into_iter().zip(types).map(|(name, ty)| Case { name, ty }).collect())
            }),
            (prop::option::of(boxed.clone()), prop::option::of(boxed.clone()))
                .prop_map(|(ok, err)| Type::Result { ok, err }),
            (key, boxed).prop_map(|(key, value)| Type::Map(Box::new(key), value)),
        ]
    })
}

/// Makes JSON of a type, exactly as the host writes it.
fn value_of(ty: &Type) -> BoxedStrategy<Value> {
    fn integer<T: Into<i128> + Arbitrary + 'static>() -> BoxedStrategy<Value> {
        any::<T>().prop_map(|n| json::integer_to_json(n.into())).boxed()
    }
    let text = "[^\\x00]{0,6}";
    match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::S8 => integer::<i8>(),
        Type::U8 => integer::<u8>(),
        Type::S16 => integer::<i16>(),
        Type::U16 => integer::<u16>(),
        Type::S32 => integer::<i32>(),
        Type::U32 => integer::<u32>(),
        Type::S64 => integer::<i64>(),
        Type::U64 => integer::<u64>(),
        Type::F32 => {
            use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
            (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO).prop_map(|n| json!(shortest(n))).boxed()
        }
        Type::F64 => {
            use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
            (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO).prop_map(|n| json!(n)).boxed()
        }
        Type::Char => "[^\\x00]".prop_map(Value::String).boxed(),
        Type::String => text.prop_map(Value::String).boxed(),
        Type::List(element) if **element == Type::U8 => {
            prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| json::bytes_to_json(&bytes)).boxed()
        }
        Type::List(element) => prop::collection::vec(value_of(element), 0..4).prop_map(Value::Array).boxed(),
        Type::Tuple(parts) => parts.iter().map(value_of).collect::<Vec<_>>().prop_map(Value::Array).boxed(),
        Type::Record(fields) => {
            let names: Vec<String> = fields.iter().map(|f| json::camel(&f.name)).collect();
            let values: Vec<_> = fields.iter().map(|f| value_of(&f.ty)).collect();
            values.prop_map(move |values| Value::Object(names.iter().cloned().zip(values).collect())).boxed()
        }
        Type::Variant(cases) => {
            let cases: Vec<_> = cases
                .iter()
                .map(|case| {
                    let name = json::camel(&case.name);
                    match &case.ty {
                        None => Just(Value::String(name)).boxed(),
                        Some(ty) => value_of(ty).prop_map(move |v| json!({ name.clone(): v })).boxed(),
                    }
                })
                .collect();
            prop::strategy::Union::new(cases).boxed()
        }
        Type::Enum(names) => {
            let names: Vec<String> = names.iter().map(|n| json::camel(n)).collect();
            prop::sample::select(names).prop_map(Value::String).boxed()
        }
        Type::Flags(names) => {
            let names: Vec<Value> = names.iter().map(|n| Value::String(json::camel(n))).collect();
            let all = names.len();
            prop::sample::subsequence(names, 0..=all).prop_map(Value::Array).boxed()
        }
        Type::Option(inner) => {
            let nested = matches!(**inner, Type::Option(_));
            let some = value_of(inner).prop_map(move |v| if nested { json!({ "some": v }) } else { v });
            prop_oneof![Just(Value::Null), some].boxed()
        }
        Type::Result { ok, err } => {
            let payload = |ty: &Option<Box<Type>>| match ty {
                Some(ty) => value_of(ty),
                None => Just(Value::Null).boxed(),
            };
            prop_oneof![
                payload(ok).prop_map(|v| json!({ "ok": v })),
                payload(err).prop_map(|v| json!({ "err": v })),
            ]
            .boxed()
        }
        Type::Map(key, element) if **key == Type::String => {
            prop::collection::btree_map(text, value_of(element), 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
                .boxed()
        }
        Type::Map(key, element) => {
            let key = (**key).clone();
            prop::collection::vec((value_of(&key), value_of(element)), 0..4)
                .prop_map(move |mut pairs| {
                    let mut seen = std::collections::HashSet::new();
                    pairs.retain(|(k, _)| seen.insert(check::map_key(&key, k)));
                    Value::Array(pairs.into_iter().map(|(k, v)| json!([k, v])).collect())
                })
                .boxed()
        }
        Type::Any | Type::Unit | Type::Opaque(_) => unreachable!("not among the types made here"),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-300_i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,3}|[0-9]{1,3}|AQI=".prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map("ok|err|some|[a-z]{2}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Replaces one place of a value, so that the value mostly fits and sometimes doesn't quite.
fn spoil(value: &mut Value, mut place: usize, by: &Value) -> usize {
    if place == 0 {
        *value = by.clone();
        return usize::MAX;
    }
    place -= 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(object) => object.values_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        place = spoil(child, place, by);
        if place == usize::MAX {
            break;
        }
    }
    place
}

/// Makes one change at one place of a type, of the kinds that authors make between versions.
fn edit(ty: &mut Type, mut place: usize, kind: usize) -> usize {
    if place == 0 {
        match ty {
            Type::Record(fields) => match kind % 4 {
                0 => fields.push(Field { name: "zz-new".into(), ty: Type::Option(Box::new(Type::U8)) }),
                1 => fields.push(Field { name: "zz-new".into(), ty: Type::U8 }),
                2 => drop(fields.pop()),
                _ => fields.reverse(),
            },
            Type::Variant(cases) => match kind % 3 {
                0 => cases.push(Case { name: "zz-new".into(), ty: Some(Type::U8) }),
                1 if cases.len() > 1 => drop(cases.pop()),
                _ => cases.reverse(),
            },
            Type::Enum(names) | Type::Flags(names) => match kind % 3 {
                0 => names.push("zz-new".into()),
                1 if names.len() > 1 => drop(names.pop()),
                _ => names.reverse(),
            },
            Type::Tuple(parts) => parts.push(Type::Bool),
            Type::Option(inner) if kind.is_multiple_of(2) => *ty = (**inner).clone(),
            ty if kind.is_multiple_of(3) => *ty = Type::Option(Box::new(ty.clone())),
            ty => {
                *ty = [Type::U8, Type::S16, Type::U32, Type::S64, Type::U64, Type::F64, Type::String]
                    [kind % 7]
                    .clone();
            }
        }
        return usize::MAX;
    }
    place -= 1;
    let children: Vec<&mut Type> = match ty {
        Type::List(inner) | Type::Option(inner) => vec![inner],
        Type::Tuple(parts) => parts.iter_mut().collect(),
        Type::Record(fields) => fields.iter_mut().map(|f| &mut f.ty).collect(),
        Type::Variant(cases) => cases.iter_mut().filter_map(|c| c.ty.as_mut()).collect(),
        Type::Result { ok, err } => [ok, err].into_iter().flatten().map(AsMut::as_mut).collect(),
        Type::Map(key, value) => vec![key, value],
        _ => Vec::new(),
    };
    for child in children {
        place = edit(child, place, kind);
        if place == usize::MAX {
            break;
        }
    }
    place
}

proptest! {
    #[test]
    fn a_compatible_parameter_takes_every_value_of_the_old_one(
        (old, value) in any_type().prop_flat_map(|ty| (Just(ty.clone()), value_of(&ty))),
        place in 0..6_usize,
        kind in 0..12_usize,
    ) {
        let mut new = old.clone();
        edit(&mut new, place, kind);
        let function = |ty: &Type| Function {
            interface: None,
            name: "f".into(),
            params: vec![Field { name: "value".into(), ty: ty.clone() }],
            result: None,
        };
        if fits(&function(&old), &function(&new)).is_empty() {
            let mismatches = check(&new, &value, "x");
            prop_assert_eq!(mismatches, vec![], "{} to {} with {}", old, new, value);
        }
    }

    #[test]
    fn a_value_that_the_host_writes_is_read_back_unchanged((ty, value) in any_type().prop_flat_map(|ty| (Just(ty.clone()), value_of(&ty)))) {
        prop_assert_eq!(check(&ty, &value, "x"), vec![]);
        let val = to_val(&ty, &value);
        prop_assert!(val.is_ok(), "{} doesn't take {}", ty, value);
        let back = to_json(&ty, val.expect("tested above"), MAX);
        prop_assert_eq!(back, Ok(value));
    }

    #[test]
    fn the_check_and_the_conversion_agree(
        (ty, mut value) in any_type().prop_flat_map(|ty| (Just(ty.clone()), value_of(&ty))),
        place in 0..6_usize,
        by in any_json(),
    ) {
        spoil(&mut value, place, &by);
        let mismatches = check(&ty, &value, "x");
        prop_assert_eq!(to_val(&ty, &value).is_ok(), mismatches.is_empty(), "{} {} {:?}", ty, value, mismatches);
        for mismatch in mismatches {
            prop_assert!(mismatch.path.starts_with('x'), "{:?}", mismatch);
            // The pointer leads to the place, or to a field that is missing there.
            let parent = mismatch.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
            prop_assert!(value.pointer(parent).is_some(), "{:?} in {}", mismatch, value);
        }
    }
}

#[test]
fn an_answer_that_json_cannot_express_is_refused_with_its_place() {
    let point = Type::Record(vec![Field { name: "far-x".into(), ty: Type::F64 }]);
    let ty = Type::List(Box::new(point));
    let val = Val::List(vec![Val::Record(vec![("far-x".into(), Val::Float64(f64::NAN))])]);
    let refused = to_json(&ty, val, MAX).expect_err("NaN");
    assert_eq!(refused.to_string(), "result[0].farX: NaN is not a JSON number");
    let refused = to_json(&Type::String, Val::String("a\0".into()), MAX).expect_err("NUL");
    assert_eq!(refused.to_string(), "result: a text must not contain NUL");
}

#[test]
fn an_answer_is_limited_by_its_size_as_json() {
    let text = Val::String("x".repeat(100));
    assert!(to_json(&Type::String, text.clone(), 102).is_ok());
    let refused = to_json(&Type::String, text, 101).expect_err("too large");
    assert_eq!(refused.to_string(), "result: the value is larger than 101 bytes");
}

#[test]
fn a_key_that_a_guest_gives_twice_has_its_last_value() {
    let pair = |k, v| (Val::U32(k), Val::Bool(v));
    let ty = Type::Map(Box::new(Type::U32), Box::new(Type::Bool));
    let val = Val::Map(vec![pair(1, true), pair(2, true), pair(1, false)]);
    assert_eq!(to_json(&ty, val, MAX), Ok(json!([[1, false], [2, true]])));
}

#[test]
fn single_floats_are_written_short() {
    assert_eq!(to_json(&Type::F32, Val::Float32(0.1), MAX), Ok(json!(0.1)));
}

#[test]
fn a_value_is_measured_before_it_is_converted() {
    let of = |value: &Value| Size::of(value, MAX);
    assert!(!of(&json!({"order": [1, "two", null]})).expect("it is small").is_large());
    assert!(of(&json!("x".repeat(100_000))).expect("it is small enough").is_large());
    assert!(of(&json!(vec![0; 10_000])).expect("it is small enough").is_large());
    assert!(of(&json!(vec![0; MAX_PARTS - 1])).is_ok());
    assert_eq!(of(&json!(vec![0; MAX_PARTS])).expect_err("one too many"), TooMuch::Parts);
    assert!(of(&json!("x".repeat(MAX - 2))).is_ok());
    assert_eq!(of(&json!("x".repeat(MAX - 1))).expect_err("too large"), TooMuch::Bytes(MAX));
}

#[test]
fn a_value_is_refused_while_it_is_converted() {
    let list = Type::List(Box::new(Type::Bool));
    let answer = |n| to_json(&list, Val::List(vec![Val::Bool(true); n]), usize::MAX);
    assert!(answer(MAX_PARTS - 1).is_ok());
    assert_eq!(
        answer(MAX_PARTS).expect_err("one too many").to_string(),
        format!("result[{}]: the value has more than {MAX_PARTS} parts", MAX_PARTS - 1)
    );
}
