//! Conversion between JSON and values of WIT types, by the type alone. `core::wit::json` has the rules for names and
//! scalars, so that exactly the values which `core::wit::check` accepts can be converted.
//!
//! Wasmtime's dynamic values take [`VAL_BYTES`] for each part of a value, also for each byte of a `list<u8>`. So the
//! size of a value and the number of its parts are checked before it is converted: [`Size::of`] measures JSON, and
//! [`hostcall_fuel`] makes Wasmtime refuse a list by its length before it makes values of the elements.

use std::fmt;

use aster_core::wit::{Type, check, json};
use serde_json::{Map, Value};
use wasmtime::component::Val;

/// The most parts that a value may have. Each number, text, list, record and so on counts as one, and so do all bytes
/// of a `list<u8>` together. A part takes the host about 0.1 µs on its way from a guest to the database, and 80 bytes.
pub(super) const MAX_PARTS: usize = 100_000;
const VAL_BYTES: usize = size_of::<Val>();
/// Converting a value larger than this takes longer than a small guest runs.
const LARGE_BYTES: usize = 64 << 10;
const LARGE_PARTS: usize = 4 << 10;

/// Returns how much data Wasmtime may copy out of a guest at once, by its own count. Every allowed value of type
/// `result` is within this, and values far beyond the limits are refused.
pub(super) fn hostcall_fuel(result: Option<&Type>, max_value_bytes: usize) -> usize {
    // The factor of two is for list elements with a payload, which count as two parts. Texts, and the names of fields
    // and cases, count by their bytes.
    let parts = 2 * VAL_BYTES * MAX_PARTS + 2 * max_value_bytes;
    match result {
        Some(ty) if has_bytes(ty) => {
            parts.saturating_add((max_value_bytes / 4 * 3).saturating_mul(VAL_BYTES))
        }
        _ => parts,
    }
}

/// Returns whether the type contains a `list<u8>`. Its text has fewer bytes than Wasmtime takes for one byte of the
/// list.
fn has_bytes(ty: &Type) -> bool {
    let in_option = |ty: &Option<Box<Type>>| ty.as_deref().is_some_and(has_bytes);
    match ty {
        Type::List(element) => **element == Type::U8 || has_bytes(element),
        Type::Option(inner) => has_bytes(inner),
        Type::Tuple(parts) => parts.iter().any(has_bytes),
        Type::Record(fields) => fields.iter().any(|field| has_bytes(&field.ty)),
        Type::Variant(cases) => cases.iter().any(|case| case.ty.as_ref().is_some_and(has_bytes)),
        Type::Result { ok, err } => in_option(ok) || in_option(err),
        Type::Map(key, element) => has_bytes(key) || has_bytes(element),
        _ => false,
    }
}

/// The size of a value: approximately its bytes as JSON, and its parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    bytes: usize,
    parts: usize,
}

impl Size {
    /// # Errors
    /// Returns an error if the value is larger than a value may be. It isn't measured further then.
    pub(super) fn of(value: &Value, max_bytes: usize) -> Result<Self, TooMuch> {
        let mut size = Self::default();
        size.count(value, max_bytes)?;
        Ok(size)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.parts += other.parts;
    }

    pub(super) fn is_large(self) -> bool {
        self.bytes > LARGE_BYTES || self.parts > LARGE_PARTS
    }

    fn count(&mut self, value: &Value, max_bytes: usize) -> Result<(), TooMuch> {
        self.parts += 1;
        self.bytes += match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 1,
            Value::String(text) => text.len() + 2,
            Value::Array(items) => items.len() + 2,
            Value::Object(fields) => fields.keys().map(|name| name.len() + 4).sum::<usize>() + 2,
        };
        if self.bytes > max_bytes {
            return Err(TooMuch::Bytes(max_bytes));
        }
        if self.parts > MAX_PARTS {
            return Err(TooMuch::Parts);
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.count(item, max_bytes)),
            Value::Object(fields) => fields.values().try_for_each(|item| self.count(item, max_bytes)),
            _ => Ok(()),
        }
    }
}

/// A value exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    Bytes(usize),
    Parts,
    /// Wasmtime stopped copying. It doesn't say which limit was exceeded.
    Either(usize),
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |max: usize| super::limits::bytes(max as u64);
        match *self {
            Self::Bytes(max) => write!(f, "the value is larger than {}", bytes(max)),
            Self::Parts => write!(f, "the value has more than {MAX_PARTS} parts"),
            Self::Either(max) => write!(
                f,
                "the guest handed over a value that is larger than {}, or has more than {MAX_PARTS} parts",
                bytes(max)
            ),
        }
    }
}

/// A value doesn't fit its type. `core::wit::check` says where and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit;

/// Converts a JSON value to a parameter of type `ty`.
pub(super) fn to_val(ty: &Type, value: &Value) -> Result<Val, Unfit> {
    Ok(match ty {
        Type::Bool => Val::Bool(value.as_bool().ok_or(Unfit)?),
        Type::S8 => Val::S8(integer(ty, value)?),
        Type::U8 => Val::U8(integer(ty, value)?),
        Type::S16 => Val::S16(integer(ty, value)?),
        Type::U16 => Val::U16(integer(ty, value)?),
        Type::S32 => Val::S32(integer(ty, value)?),
        Type::U32 => Val::U32(integer(ty, value)?),
        Type::S64 => Val::S64(integer(ty, value)?),
        Type::U64 => Val::U64(integer(ty, value)?),
        #[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest, and known to be finite")]
        Type::F32 => Val::Float32(json::float(value, true).map_err(|_| Unfit)? as f32),
        Type::F64 => Val::Float64(json::float(value, false).map_err(|_| Unfit)?),
        Type::Char => Val::Char(json::character(value).map_err(|_| Unfit)?),
        Type::String => Val::String(json::text(value).map_err(|_| Unfit)?.to_owned()),
        Type::List(element) if **element == Type::U8 => {
            Val::List(json::bytes(value).map_err(|_| Unfit)?.into_iter().map(Val::U8).collect())
        }
        Type::List(element) => {
            let items = value.as_array().ok_or(Unfit)?;
            Val::List(items.iter().map(|item| to_val(element, item)).collect::<Result<_, _>>()?)
        }
        Type::Tuple(parts) => {
            let items = value.as_array().filter(|items| items.len() == parts.len()).ok_or(Unfit)?;
            Val::Tuple(parts.iter().zip(items).map(|(ty, item)| to_val(ty, item)).collect::<Result<_, _>>()?)
        }
        Type::Record(fields) => {
            let object = value.as_object().ok_or(Unfit)?;
            let mut found = 0;
            let mut record = Vec::with_capacity(fields.len());
            for field in fields {
                let mut spellings = object.iter().filter(|(key, _)| json::spells(&field.name, key));
                let value = match (spellings.next(), &field.ty) {
                    (Some((_, value)), ty) => {
                        found += 1;
                        to_val(ty, value)?
                    }
                    (None, Type::Option(_)) => Val::Option(None),
                    (None, _) => return Err(Unfit),
                };
                record.push((field.name.clone(), value));
            }
            // If there is a field too many, it is unknown, or spelled in two ways.
            if found != object.len() {
                return Err(Unfit);
            }
            Val::Record(record)
        }
        Type::Variant(cases) => {
            let (name, payload) = match value {
                Value::String(name) => (name, None),
                Value::Object(object) if object.len() == 1 => {
                    let (name, payload) = object.iter().next().ok_or(Unfit)?;
                    (name, Some(payload))
                }
                _ => return Err(Unfit),
            };
            let case = cases.iter().find(|case| json::spells(&case.name, name)).ok_or(Unfit)?;
            let payload = match (&case.ty, payload) {
                (Some(ty), Some(payload)) => Some(Box::new(to_val(ty, payload)?)),
                (None, None | Some(Value::Null)) => None,
                _ => return Err(Unfit),
            };
            Val::Variant(case.name.clone(), payload)
        }
        Type::Enum(names) => Val::Enum(spelled(names, value)?.to_owned()),
        Type::Flags(names) => {
            let mut flags: Vec<String> = Vec::new();
            for item in value.as_array().ok_or(Unfit)? {
                let name = spelled(names, item)?;
                if flags.iter().any(|flag| flag == name) {
                    return Err(Unfit);
                }
                flags.push(name.to_owned());
            }
            Val::Flags(flags)
        }
        Type::Option(_) if value.is_null() => Val::Option(None),
        Type::Option(inner) if matches!(**inner, Type::Option(_)) => {
            let marked = value.as_object().filter(|object| object.len() == 1);
            let some = marked.and_then(|object| object.get("some")).ok_or(Unfit)?;
            Val::Option(Some(Box::new(to_val(inner, some)?)))
        }
        Type::Option(inner) => Val::Option(Some(Box::new(to_val(inner, value)?))),
        Type::Result { ok, err } => {
            let object = value.as_object().filter(|object| object.len() == 1).ok_or(Unfit)?;
            let payload = |ty: &Option<Box<Type>>, value: &Value| match ty {
                Some(ty) => to_val(ty, value).map(|val| Some(Box::new(val))),
                None if value.is_null() => Ok(None),
                None => Err(Unfit),
            };
            match (object.get("ok"), object.get("err")) {
                (Some(value), _) => Val::Result(Ok(payload(ok, value)?)),
                (_, Some(value)) => Val::Result(Err(payload(err, value)?)),
                _ => return Err(Unfit),
            }
        }
        Type::Map(key, element) if **key == Type::String => {
            let mut pairs = Vec::new();
            for (name, value) in value.as_object().ok_or(Unfit)? {
                if name.contains('\0') {
                    return Err(Unfit);
                }
                pairs.push((Val::String(name.clone()), to_val(element, value)?));
            }
            Val::Map(pairs)
        }
        Type::Map(key, element) => {
            let mut keys = std::collections::HashSet::new();
            let mut pairs = Vec::new();
            for pair in value.as_array().ok_or(Unfit)? {
                let Some([k, v]) = pair.as_array().map(Vec::as_slice) else { return Err(Unfit) };
                if !keys.insert(check::map_key(key, k)) {
                    return Err(Unfit);
                }
                pairs.push((to_val(key, k)?, to_val(element, v)?));
            }
            Val::Map(pairs)
        }
        // These types are never in the signature of a callable function.
        Type::Any | Type::Unit | Type::Opaque(_) => return Err(Unfit),
    })
}

/// Converts a guest's answer to JSON of type `ty`. Its text may have at most `max_bytes`, counting the value's own
/// parts and the separators.
pub(super) fn to_json(ty: &Type, val: Val, max_bytes: usize) -> Result<Value, Refused> {
    Writer { left: max_bytes, max_bytes, parts_left: MAX_PARTS }.value(ty, val)
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The path from the outside in, reversed.
    trail: Vec<String>,
    message: String,
}

impl Refused {
    fn new(message: impl Into<String>) -> Self {
        Self { trail: Vec::new(), message: message.into() }
    }

    fn below(mut self, segment: impl FnOnce() -> String) -> Self {
        self.trail.push(segment());
        self
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("result")?;
        self.trail.iter().rev().try_for_each(|segment| f.write_str(segment))?;
        write!(f, ": {}", self.message)
    }
}

struct Writer {
    left: usize,
    max_bytes: usize,
    parts_left: usize,
}

impl Writer {
    fn value(&mut self, ty: &Type, val: Val) -> Result<Value, Refused> {
        let parts_left = self.parts_left.checked_sub(1);
        self.parts_left = parts_left.ok_or_else(|| Refused::new(TooMuch::Parts.to_string()))?;
        Ok(match (ty, val) {
            (Type::Bool, Val::Bool(b)) => {
                self.count(5)?;
                Value::Bool(b)
            }
            (_, Val::S8(n)) => self.integer(n.into())?,
            (_, Val::U8(n)) => self.integer(n.into())?,
            (_, Val::S16(n)) => self.integer(n.into())?,
            (_, Val::U16(n)) => self.integer(n.into())?,
            (_, Val::S32(n)) => self.integer(n.into())?,
            (_, Val::U32(n)) => self.integer(n.into())?,
            (_, Val::S64(n)) => self.integer(n.into())?,
            (_, Val::U64(n)) => self.integer(n.into())?,
            (_, Val::Float32(n)) => self.float(shortest(n))?,
            (_, Val::Float64(n)) => self.float(n)?,
            (_, Val::Char(c)) => self.text(c.to_string())?,
            (_, Val::String(text)) => self.text(text)?,
            (Type::List(element), Val::List(items)) if **element == Type::U8 => {
                self.count(items.len().div_ceil(3) * 4 + 2)?;
                let byte = |item| if let Val::U8(byte) = item { Ok(byte) } else { Err(disagree()) };
                let bytes = items.into_iter().map(byte).collect::<Result<Vec<u8>, Refused>>()?;
                json::bytes_to_json(&bytes)
            }
            (Type::List(element), Val::List(items)) => {
                self.count(items.len() + 2)?;
                let mut out = Vec::with_capacity(items.len());
                for (i, item) in items.into_iter().enumerate() {
                    out.push(self.value(element, item).map_err(|e| e.below(|| format!("[{i}]")))?);
                }
                Value::Array(out)
            }
            (Type::Tuple(parts), Val::Tuple(items)) => {
                self.count(items.len() + 2)?;
                let mut out = Vec::with_capacity(items.len());
                for (i, (ty, item)) in parts.iter().zip(items).enumerate() {
                    out.push(self.value(ty, item).map_err(|e| e.below(|| format!("[{i}]")))?);
                }
                Value::Array(out)
            }
            (Type::Record(fields), Val::Record(values)) => {
                self.count(2)?;
                let mut object = Map::new();
                for (field, (_, value)) in fields.iter().zip(values) {
                    self.count(field.name.len() + 4)?;
                    let name = json::camel(&field.name);
                    let value = self.value(&field.ty, value).map_err(|e| e.below(|| format!(".{name}")))?;
                    object.insert(name, value);
                }
                Value::Object(object)
            }
            (Type::Variant(cases), Val::Variant(name, payload)) => {
                self.count(name.len() + 5)?;
                let case = cases.iter().find(|case| case.name == name).ok_or_else(disagree)?;
                match (&case.ty, payload) {
                    (Some(ty), Some(payload)) => self.marked(&json::camel(&name), ty, *payload)?,
                    _ => Value::String(json::camel(&name)),
                }
            }
            (_, Val::Enum(name)) => {
                self.count(name.len() + 2)?;
                Value::String(json::camel(&name))
            }
            (_, Val::Flags(names)) => {
                self.count(names.iter().map(|name| name.len() + 3).sum::<usize>() + 2)?;
                Value::Array(names.iter().map(|name| Value::String(json::camel(name))).collect())
            }
            (_, Val::Option(None)) => {
                self.count(4)?;
                Value::Null
            }
            (Type::Option(inner), Val::Option(Some(val))) => {
                if matches!(**inner, Type::Option(_)) {
                    self.count(8)?;
                    self.marked("some", inner, *val)?
                } else {
                    self.value(inner, *val)?
                }
            }
            (Type::Result { ok, err }, Val::Result(result)) => {
                self.count(7)?;
                let (name, ty, payload) = match result {
                    Ok(payload) => ("ok", ok, payload),
                    Err(payload) => ("err", err, payload),
                };
                match (ty, payload) {
                    (Some(ty), Some(payload)) => self.marked(name, ty, *payload)?,
                    _ => Value::Object(Map::from_iter([(name.to_owned(), Value::Null)])),
                }
            }
            (Type::Map(key, element), Val::Map(pairs)) => self.map(key, element, pairs)?,
            _ => return Err(disagree()),
        })
    }

    /// If a key occurs twice, its last value counts, as the component model says.
    fn map(&mut self, key: &Type, element: &Type, pairs: Vec<(Val, Val)>) -> Result<Value, Refused> {
        self.count(2)?;
        if *key == Type::String {
            let mut object = Map::new();
            for (name, val) in pairs {
                let Val::String(name) = name else { return Err(disagree()) };
                self.count(name.len() + 4)?;
                if name.contains('\0') {
                    return Err(Refused::new("a key must not contain NUL"));
                }
                let value = self.value(element, val).map_err(|e| e.below(|| format!(".{name}")))?;
                object.insert(name, value);
            }
            return Ok(Value::Object(object));
        }
        let mut places = std::collections::HashMap::new();
        let mut out: Vec<Value> = Vec::with_capacity(pairs.len());
        for (i, (k, v)) in pairs.into_iter().enumerate() {
            self.count(4)?;
            let k = self.value(key, k).map_err(|e| e.below(|| format!("[{i}][0]")))?;
            let v = self.value(element, v).map_err(|e| e.below(|| format!("[{i}][1]")))?;
            let place = *places.entry(check::map_key(key, &k)).or_insert(out.len());
            let pair = Value::Array(vec![k, v]);
            match out.get_mut(place) {
                Some(earlier) => *earlier = pair,
                None => out.push(pair),
            }
        }
        Ok(Value::Array(out))
    }

    fn marked(&mut self, name: &str, ty: &Type, val: Val) -> Result<Value, Refused> {
        let value = self.value(ty, val).map_err(|e| e.below(|| format!(".{name}")))?;
        Ok(Value::Object(Map::from_iter([(name.to_owned(), value)])))
    }

    fn integer(&mut self, n: i128) -> Result<Value, Refused> {
        self.count(if n.unsigned_abs() < 10 { 1 } else { n.unsigned_abs().ilog10() as usize + 1 })?;
        Ok(json::integer_to_json(n))
    }

    fn float(&mut self, n: f64) -> Result<Value, Refused> {
        self.count(3)?;
        match serde_json::Number::from_f64(n) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(Refused::new(format!("{n} is not a JSON number"))),
        }
    }

    fn text(&mut self, text: String) -> Result<Value, Refused> {
        self.count(text.len() + 2)?;
        if text.contains('\0') {
            return Err(Refused::new("a text must not contain NUL"));
        }
        Ok(Value::String(text))
    }

    fn count(&mut self, bytes: usize) -> Result<(), Refused> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            let too_much = TooMuch::Bytes(self.max_bytes);
            Refused::new(too_much.to_string())
        })?;
        Ok(())
    }
}

/// Makes the refusal for a value that contradicts its type. The types were read from the component itself, so this is a
/// fault of the host.
fn disagree() -> Refused {
    Refused::new("the value isn't of the type that its function has")
}

fn integer<T: TryFrom<i128>>(ty: &Type, value: &Value) -> Result<T, Unfit> {
    let range = json::integer_range(ty).ok_or(Unfit)?;
    let n = json::integer(value, range).map_err(|_| Unfit)?;
    T::try_from(n).map_err(|_| Unfit)
}

fn spelled<'a>(names: &'a [String], value: &Value) -> Result<&'a str, Unfit> {
    let name = value.as_str().ok_or(Unfit)?;
    names.iter().find(|n| json::spells(n, name)).map(String::as_str).ok_or(Unfit)
}

/// Returns the double with the fewest digits that equals this `f32`, so that 0.1 doesn't become 0.10000000149011612.
fn shortest(n: f32) -> f64 {
    let short: f64 = n.to_string().parse().unwrap_or(f64::NAN);
    #[expect(clippy::cast_possible_truncation, reason = "the test is whether the cast comes back")]
    let same = short as f32 == n;
    if same { short } else { f64::from(n) }
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
