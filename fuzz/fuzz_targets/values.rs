//! JSON against types of components: a check never panics, what it accepts has one normal form, and that leaves the host and
//! comes back unchanged.

#![no_main]

use arbitrary::{Result, Unstructured};
use aster_core::wit::check::MAX_MISMATCHES;
use aster_core::wit::json::with_safe_integers;
use aster_core::wit::{Case, Field, Function, Type, check, fits, normalize};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let mut given = Unstructured::new(bytes);
    let Ok(ty) = any_type(&mut given, 4) else { return };
    let Ok(value) = value_of(&ty, &mut given, 6) else { return };
    holds(&ty, value);
    // The rest is JSON as a client sends it.
    if let Ok(value) = serde_json::from_slice::<Value>(given.take_rest()) {
        holds(&ty, value);
    }
});

fn holds(ty: &Type, value: Value) {
    let mismatches = check(ty, &value, "value");
    assert!(mismatches.len() <= MAX_MISMATCHES);
    for mismatch in &mismatches {
        assert!(mismatch.pointer.is_empty() || mismatch.pointer.starts_with('/'), "{mismatch:?}");
    }
    let normal = normalize(ty, value);
    if mismatches.is_empty() {
        assert_eq!(check(ty, &normal, "value"), [], "{ty} {normal}");
        assert_eq!(normalize(ty, normal.clone()), normal, "{ty}");
        let outside = with_safe_integers(normal.clone());
        assert_eq!(check(ty, &outside, "value"), [], "{ty} {outside}");
    }
    let function = Function {
        interface: None,
        name: "f".to_owned(),
        params: vec![Field { name: "p".to_owned(), ty: ty.clone() }],
        result: Some(ty.clone()),
    };
    assert_eq!(fits(&function, &function), [], "{ty}");
}

fn any_type(given: &mut Unstructured, depth: u32) -> Result<Type> {
    let plain = [
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
        Type::Any,
        Type::Unit,
    ];
    if depth == 0 {
        return Ok(given.choose(&plain)?.clone());
    }
    let boxed = |given: &mut Unstructured| any_type(given, depth - 1).map(Box::new);
    let perhaps = |given: &mut Unstructured| {
        Ok(if given.arbitrary()? { Some(any_type(given, depth - 1)?) } else { None })
    };
    Ok(match given.int_in_range(0..=10)? {
        0 => Type::List(boxed(given)?),
        1 => Type::Option(boxed(given)?),
        2 => Type::Tuple(several(given, |given, _| any_type(given, depth - 1))?),
        3 => Type::Record(several(given, |given, n| {
            Ok(Field { name: name(given, n)?, ty: any_type(given, depth - 1)? })
        })?),
        4 => {
            Type::Variant(several(given, |given, n| Ok(Case { name: name(given, n)?, ty: perhaps(given)? }))?)
        }
        5 => Type::Enum(several(given, name)?),
        6 => Type::Flags(several(given, name)?),
        7 => Type::Result { ok: perhaps(given)?.map(Box::new), err: perhaps(given)?.map(Box::new) },
        8 => Type::Map(Box::new(given.choose(&plain[..13])?.clone()), boxed(given)?),
        _ => given.choose(&plain)?.clone(),
    })
}

/// From one to twenty, so that records have few fields and many.
fn several<T>(
    given: &mut Unstructured,
    mut one: impl FnMut(&mut Unstructured, usize) -> Result<T>,
) -> Result<Vec<T>> {
    (0..given.int_in_range(1..=20)?).map(|n| one(given, n)).collect()
}

/// Unique in its type, as WIT demands: the number is part of its last word.
fn name(given: &mut Unstructured, n: usize) -> Result<String> {
    let words = ["a", "order-id", "x-y-z", "HTTP-server", "ok", "some", "err"];
    Ok(format!("{}{n}", given.choose(&words)?))
}

/// Mostly one that fits.
fn value_of(ty: &Type, given: &mut Unstructured, depth: u32) -> Result<Value> {
    if given.ratio(1, 12)? {
        return any_value(given, depth);
    }
    let spelled = |given: &mut Unstructured, name: &str| -> Result<String> {
        Ok(if given.arbitrary()? { name.to_owned() } else { aster_core::name::lower_camel(name) })
    };
    Ok(match ty {
        Type::Bool => Value::Bool(given.arbitrary()?),
        Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 | Type::S64 | Type::U64 => {
            match given.int_in_range(0..=3)? {
                0 => Value::from(given.arbitrary::<u8>()? & 0x7f),
                1 => Value::from(given.arbitrary::<i64>()?),
                2 => Value::from(given.arbitrary::<u64>()?),
                _ => Value::from(given.arbitrary::<i64>()?.to_string()),
            }
        }
        Type::F32 | Type::F64 => match given.arbitrary()? {
            true => Value::from(given.arbitrary::<f64>()?),
            false => Value::from(given.arbitrary::<i64>()?),
        },
        Type::Char => Value::from(given.arbitrary::<char>()?.to_string()),
        Type::String => Value::from(given.arbitrary::<String>()?),
        Type::List(item) if **item == Type::U8 => Value::from("AAEC"),
        Type::List(item) => items(given, |given| value_of(item, given, depth))?,
        Type::Tuple(types) => types.iter().map(|ty| value_of(ty, given, depth)).collect::<Result<_>>()?,
        Type::Record(fields) => {
            let mut record = Map::new();
            for field in fields {
                if given.ratio(1, 10)? {
                    continue;
                }
                record.insert(spelled(given, &field.name)?, value_of(&field.ty, given, depth)?);
            }
            Value::Object(record)
        }
        Type::Variant(cases) => {
            let case = given.choose(cases)?;
            let name = spelled(given, &case.name)?;
            match &case.ty {
                None if given.arbitrary()? => Value::String(name),
                None => Value::Object([(name, Value::Null)].into_iter().collect()),
                Some(ty) => Value::Object([(name, value_of(ty, given, depth)?)].into_iter().collect()),
            }
        }
        Type::Enum(names) => {
            let name = given.choose(names)?;
            Value::String(spelled(given, name)?)
        }
        Type::Flags(names) => items(given, |given| {
            let name = given.choose(names)?;
            spelled(given, name).map(Value::String)
        })?,
        Type::Option(_) if given.arbitrary()? => Value::Null,
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => {
            Value::Object([("some".to_owned(), value_of(inner, given, depth)?)].into_iter().collect())
        }
        Type::Option(inner) => value_of(inner, given, depth)?,
        Type::Result { ok, err } => {
            let (name, ty) = if given.arbitrary()? { ("ok", ok) } else { ("err", err) };
            let payload = ty.as_ref().map_or(Ok(Value::Null), |ty| value_of(ty, given, depth))?;
            Value::Object([(name.to_owned(), payload)].into_iter().collect())
        }
        Type::Map(key, value) if **key == Type::String => {
            let mut entries = Map::new();
            for _ in 0..given.int_in_range(0..=4)? {
                entries.insert(given.arbitrary()?, value_of(value, given, depth)?);
            }
            Value::Object(entries)
        }
        Type::Map(key, value) => items(given, |given| {
            Ok(Value::Array(vec![value_of(key, given, depth)?, value_of(value, given, depth)?]))
        })?,
        Type::Unit => Value::Null,
        Type::Any | Type::Opaque(_) => any_value(given, depth)?,
    })
}

fn any_value(given: &mut Unstructured, depth: u32) -> Result<Value> {
    Ok(match given.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => Value::Bool(given.arbitrary()?),
        2 => Value::from(given.arbitrary::<i64>()?),
        3 => Value::from(given.arbitrary::<f64>()?),
        4 => Value::from(given.arbitrary::<String>()?),
        5 => items(given, |given| any_value(given, depth - 1))?,
        _ => {
            let mut object = Map::new();
            for _ in 0..given.int_in_range(0..=4)? {
                object.insert(given.arbitrary()?, any_value(given, depth - 1)?);
            }
            Value::Object(object)
        }
    })
}

fn items(given: &mut Unstructured, mut one: impl FnMut(&mut Unstructured) -> Result<Value>) -> Result<Value> {
    (0..given.int_in_range(0..=4)?).map(|_| one(given)).collect::<Result<Vec<_>>>().map(Value::Array)
}
