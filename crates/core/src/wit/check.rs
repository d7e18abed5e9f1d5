//! Checks JSON against a WIT type. It finds all mismatches at once, each with its path.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Case, Field, Type, json};

/// The most mismatches that are collected. The first ones say enough.
pub const MAX_MISMATCHES: usize = 20;

/// The most parts of a value and of its type that are looked at. If a record has a thousand options, a list of empty
/// objects has a thousand parts for each three bytes, and [`normalize`](super::normalize) would write all of them.
pub const MAX_PARTS: usize = 4_000_000;

/// More names than this are looked up in a table.
const FEW: usize = 16;

/// One place where a value doesn't fit its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The place for people, such as `order.items[2].quantity`.
    pub path: String,
    /// The place for programs: a JSON pointer (RFC 6901) from the checked value on, such as `/items/2/quantity`.
    pub pointer: String,
    /// What is wrong at that place. It doesn't repeat the path.
    pub message: String,
}

/// Returns the places where `value` doesn't fit `ty`, at most [`MAX_MISMATCHES`]. There are none if it fits. Messages call
/// the value itself `path`.
pub fn check(ty: &Type, value: &Value, path: &str) -> Vec<Mismatch> {
    let mut checker = Checker { root: path, trail: Vec::new(), found: Vec::new(), parts: 0 };
    checker.value(ty, value);
    if checker.parts > MAX_PARTS {
        checker.trail.clear();
        checker.found.truncate(MAX_MISMATCHES - 1);
        checker.note(format!("the value has more than {MAX_PARTS} parts, with those that its type adds"));
    }
    checker.found
}

enum Segment<'a> {
    Field(&'a str),
    Index(usize),
}

struct Checker<'a> {
    root: &'a str,
    /// The path from the root to the current value.
    trail: Vec<Segment<'a>>,
    found: Vec<Mismatch>,
    /// The number of parts that were looked at so far.
    parts: usize,
}

impl<'a> Checker<'a> {
    /// Whether another mismatch would be collected, and not too many parts were looked at.
    fn goes_on(&self) -> bool {
        self.found.len() < MAX_MISMATCHES && self.parts <= MAX_PARTS
    }

    fn value(&mut self, ty: &'a Type, value: &'a Value) {
        self.parts += match ty {
            Type::Record(fields) => 1 + fields.len(),
            // Comparing a name costs a fraction of what other parts cost.
            Type::Enum(names) | Type::Flags(names) => 1 + names.len() / 4,
            Type::Variant(cases) => 1 + cases.len() / 4,
            _ => 1,
        };
        if !self.goes_on() {
            return;
        }
        let result = match ty {
            Type::Any => Ok(()),
            Type::Unit if value.is_null() => Ok(()),
            Type::Unit => Err(format!("expected null, found {}", json::brief(value))),
            Type::Bool if value.is_boolean() => Ok(()),
            Type::Bool => Err(format!("expected true or false, found {}", json::brief(value))),
            Type::S8 | Type::U8 | Type::S16 | Type::U16 | Type::S32 | Type::U32 | Type::S64 | Type::U64 => {
                let range = json::integer_range(ty).expect("these are the integer types");
                json::integer(value, range).map(drop)
            }
            Type::F32 => json::float(value, true).map(drop),
            Type::F64 => json::float(value, false).map(drop),
            Type::Char => json::character(value).map(drop),
            Type::String => json::text(value).map(drop),
            Type::List(element) if **element == Type::U8 => json::bytes(value).map(drop),
            Type::List(element) => self.list(element, value),
            Type::Tuple(parts) => self.tuple(parts, value),
            Type::Record(fields) => self.record(fields, value),
            Type::Variant(cases) => self.variant(cases, value),
            Type::Enum(names) => match value {
                Value::String(name) if names.iter().any(|n| json::spells(n, name)) => Ok(()),
                _ => Err(expected_one_of(names.iter().map(String::as_str), value)),
            },
            Type::Flags(names) => self.flags(names, value),
            Type::Option(_) if value.is_null() => Ok(()),
            Type::Option(inner) if matches!(**inner, Type::Option(_)) => match value {
                Value::Object(object) if object.len() == 1 && object.contains_key("some") => {
                    self.below(Segment::Field("some"), inner, &object["some"]);
                    Ok(())
                }
                _ => Err(format!("expected null or {{\"some\": …}}, found {}", json::brief(value))),
            },
            Type::Option(inner) => {
                self.value(inner, value);
                Ok(())
            }
            Type::Result { ok, err } => self.result(ok.as_deref(), err.as_deref(), value),
            Type::Map(key, element) => self.map(key, element, value),
            Type::Opaque(description) => Err(format!("a {description} can't be given as JSON")),
        };
        if let Err(message) = result {
            self.note(message);
        }
    }

    fn list(&mut self, element: &'a Type, value: &'a Value) -> Result<(), String> {
        let Value::Array(items) = value else {
            return Err(format!("expected an array, found {}", json::brief(value)));
        };
        for (i, item) in items.iter().enumerate() {
            self.below(Segment::Index(i), element, item);
            if !self.goes_on() {
                break;
            }
        }
        Ok(())
    }

    fn tuple(&mut self, parts: &'a [Type], value: &'a Value) -> Result<(), String> {
        let Value::Array(items) = value else {
            return Err(format!("expected an array of {}, found {}", parts.len(), json::brief(value)));
        };
        if items.len() != parts.len() {
            return Err(format!("expected an array of {}, found {}", parts.len(), items.len()));
        }
        for (i, (part, item)) in parts.iter().zip(items).enumerate() {
            self.below(Segment::Index(i), part, item);
        }
        Ok(())
    }

    fn record(&mut self, fields: &'a [Field], value: &'a Value) -> Result<(), String> {
        let Value::Object(object) = value else {
            return Err(format!("expected an object, found {}", json::brief(value)));
        };
        let table = (fields.len() > FEW && object.len() > FEW).then(|| places(fields));
        let place = |key: &str| match &table {
            Some(table) => table.get(key).copied(),
            None => fields.iter().position(|field| json::spells(&field.name, key)),
        };
        // The key and value that each field is given, and those of a second time.
        let mut given: Vec<[Option<(&'a String, &'a Value)>; 2]> = vec![[None; 2]; fields.len()];
        let mut unknown = Vec::new();
        for (key, value) in object {
            match place(key).map(|place| &mut given[place]) {
                Some([first @ None, _]) => *first = Some((key, value)),
                Some([_, second]) => *second = second.or(Some((key, value))),
                None if unknown.len() < MAX_MISMATCHES => unknown.push(key),
                None => {}
            }
        }
        for (field, given) in fields.iter().zip(given) {
            match given {
                [Some((key, value)), None] => self.below(Segment::Field(key), &field.ty, value),
                [Some(_), Some((second, _))] => {
                    self.note_at(second, "the field is given twice, in two spellings".into());
                }
                [None, _] if matches!(field.ty, Type::Option(_)) => {}
                [None, _] => self.note_at(&json::camel(&field.name), "the field is missing".into()),
            }
        }
        for key in unknown {
            self.note_at(key, "there is no such field".into());
        }
        Ok(())
    }

    fn variant(&mut self, cases: &'a [Case], value: &'a Value) -> Result<(), String> {
        let names = || cases.iter().map(|c| c.name.as_str());
        let find = |name: &str| cases.iter().find(|c| json::spells(&c.name, name));
        match value {
            Value::String(name) => match find(name) {
                Some(Case { ty: None, .. }) => Ok(()),
                Some(Case { ty: Some(_), .. }) => {
                    Err(format!("the case `{name}` has a payload: expected {{\"{name}\": …}}"))
                }
                None => Err(expected_one_of(names(), value)),
            },
            Value::Object(object) => {
                match single(object).map(|(name, payload)| (name, payload, find(name))) {
                    Some((name, payload, Some(case))) => {
                        self.payload(name, case.ty.as_ref(), payload);
                        Ok(())
                    }
                    Some((name, _, None)) => {
                        self.note_at(name, format!("there is no such case: {}", one_of(names())));
                        Ok(())
                    }
                    None => {
                        Err(format!("expected an object with the one case, found {} fields", object.len()))
                    }
                }
            }
            other => Err(expected_one_of(names(), other)),
        }
    }

    fn result(
        &mut self,
        ok: Option<&'a Type>,
        err: Option<&'a Type>,
        value: &'a Value,
    ) -> Result<(), String> {
        match value.as_object().and_then(single) {
            Some((name @ "ok", payload)) => self.payload(name, ok, payload),
            Some((name @ "err", payload)) => self.payload(name, err, payload),
            _ => {
                return Err(format!(
                    "expected {{\"ok\": …}} or {{\"err\": …}}, found {}",
                    json::brief(value)
                ));
            }
        }
        Ok(())
    }

    fn flags(&mut self, names: &'a [String], value: &'a Value) -> Result<(), String> {
        let Value::Array(items) = value else {
            return Err(format!("expected an array of names, found {}", json::brief(value)));
        };
        let mut seen = vec![false; names.len()];
        for (i, item) in items.iter().enumerate() {
            self.parts += 1 + names.len() / 4;
            if !self.goes_on() {
                break;
            }
            let flag = item.as_str().and_then(|name| names.iter().position(|n| json::spells(n, name)));
            let message = match flag {
                Some(flag) if !std::mem::replace(&mut seen[flag], true) => continue,
                Some(flag) => format!("`{}` is given twice", json::camel(&names[flag])),
                None => expected_one_of(names.iter().map(String::as_str), item),
            };
            self.trail.push(Segment::Index(i));
            self.note(message);
            self.trail.pop();
        }
        Ok(())
    }

    fn map(&mut self, key: &'a Type, element: &'a Type, value: &'a Value) -> Result<(), String> {
        if *key == Type::String {
            let Value::Object(object) = value else {
                return Err(format!("expected an object, found {}", json::brief(value)));
            };
            for (name, value) in object {
                if name.contains('\0') {
                    return Err("a key must not contain NUL".into());
                }
                self.below(Segment::Field(name), element, value);
                if !self.goes_on() {
                    break;
                }
            }
            return Ok(());
        }
        let Value::Array(pairs) = value else {
            return Err(format!("expected an array of pairs, found {}", json::brief(value)));
        };
        let mut keys = Vec::with_capacity(pairs.len());
        for (i, pair) in pairs.iter().enumerate() {
            if !self.goes_on() {
                return Ok(());
            }
            self.trail.push(Segment::Index(i));
            match pair.as_array().map(Vec::as_slice) {
                Some([k, v]) => {
                    self.below(Segment::Index(0), key, k);
                    self.below(Segment::Index(1), element, v);
                    keys.push((map_key(key, k), i));
                }
                _ => self.note(format!("expected a pair [key, value], found {}", json::brief(pair))),
            }
            self.trail.pop();
        }
        keys.sort_unstable();
        for pair in keys.windows(2) {
            if pair[0].0 == pair[1].0 {
                self.trail.push(Segment::Index(pair[1].1));
                self.note("the key is given twice".into());
                self.trail.pop();
            }
        }
        Ok(())
    }

    fn payload(&mut self, name: &'a str, ty: Option<&'a Type>, payload: &'a Value) {
        match ty {
            Some(ty) => self.below(Segment::Field(name), ty, payload),
            None if payload.is_null() => {}
            None => self.note_at(name, format!("expected null, found {}", json::brief(payload))),
        }
    }

    fn below(&mut self, segment: Segment<'a>, ty: &'a Type, value: &'a Value) {
        self.trail.push(segment);
        self.value(ty, value);
        self.trail.pop();
    }

    /// Notes a mismatch at the field `name` of the current value.
    fn note_at(&mut self, name: &str, message: String) {
        if self.found.len() < MAX_MISMATCHES {
            let (mut path, mut pointer) = self.place();
            push_field(&mut path, &mut pointer, name);
            self.found.push(Mismatch { path, pointer, message });
        }
    }

    fn note(&mut self, message: String) {
        if self.found.len() < MAX_MISMATCHES {
            let (path, pointer) = self.place();
            self.found.push(Mismatch { path, pointer, message });
        }
    }

    fn place(&self) -> (String, String) {
        let mut path = self.root.to_owned();
        let mut pointer = String::new();
        for segment in &self.trail {
            match segment {
                Segment::Field(name) => push_field(&mut path, &mut pointer, name),
                Segment::Index(i) => {
                    path.push_str(&format!("[{i}]"));
                    pointer.push_str(&format!("/{i}"));
                }
            }
        }
        (path, pointer)
    }
}

/// The place of the field for each spelling. A spelling in WIT takes precedence over the JSON spelling of another field.
fn places(fields: &[Field]) -> HashMap<Cow<'_, str>, usize> {
    let mut places = HashMap::with_capacity(2 * fields.len());
    for (place, field) in fields.iter().enumerate() {
        places.entry(Cow::Borrowed(field.name.as_str())).or_insert(place);
    }
    for (place, field) in fields.iter().enumerate() {
        places.entry(Cow::Owned(json::camel(&field.name))).or_insert(place);
    }
    places
}

/// Returns a key of a map whose keys aren't texts, in a form that is the same for equal keys: `"1"` and `1` are one
/// integer, `1` and `1.0` are one float, and so are all numbers that an `f32` rounds to the same.
pub fn map_key(ty: &Type, key: &Value) -> String {
    let number = match ty {
        #[expect(clippy::cast_possible_truncation, reason = "the component is given the rounded one")]
        Type::F32 => json::float(key, true).ok().map(|n| (n as f32).to_string()),
        Type::F64 => json::float(key, false).ok().map(|n| n.to_string()),
        ty => json::integer_range(ty).and_then(|range| json::integer(key, range).ok()).map(|n| n.to_string()),
    };
    number.unwrap_or_else(|| key.to_string())
}

fn push_field(path: &mut String, pointer: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    // A client may have made up the name, so it can have any length.
    path.extend(name.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

fn single(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut entries = object.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) => Some((name, value)),
        _ => None,
    }
}

fn expected_one_of<'a>(names: impl Iterator<Item = &'a str>, found: &Value) -> String {
    format!("{}, found {}", one_of(names), json::brief(found))
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{}`", json::camel(name))).collect();
    format!("expected {}", names.join(" or "))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
