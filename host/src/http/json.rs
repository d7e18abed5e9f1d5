//! A strict reader of clients' JSON. It refuses texts that two parsers could understand differently, and values that
//! can't be stored.
//!
//! RFC 8259 leaves the meaning of an object with a repeated name open, and parsers differ: one checks the first value,
//! another acts on the last one. So this reader refuses such an object at any depth. One pass builds the value and
//! finds its faults.

use std::fmt;

use aster_core::eval::MAX_DEPTH;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why bytes are refused.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The bytes aren't JSON.
    Syntax(serde_json::Error),
    /// The bytes are JSON, but the value at `pointer` (RFC 6901) has this fault.
    Content { pointer: String, what: Content },
}

/// Why a JSON value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The object has had this name before.
    Duplicate,
    /// A text or an object's name contains NUL, which Postgres can't store.
    Nul,
    /// The value is nested deeper than [`MAX_DEPTH`] levels.
    TooDeep,
}

/// Parses one JSON value, with nothing after it.
///
/// # Errors
/// Returns an error if the bytes aren't JSON, repeat a name in one object, contain a NUL character, or are nested too
/// deeply.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let strict = Strict { levels: MAX_DEPTH, found: &mut found };
    match strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(match found {
            None => Fault::Syntax(error),
            Some(Found { what, path }) => Fault::Content { pointer: pointer(&path), what },
        }),
    }
}

/// A fault that was found. The enclosing readers add their own place on the way out, so that a valid value costs
/// nothing extra.
#[derive(Debug)]
struct Found {
    what: Content,
    /// The places from the fault outwards.
    path: Vec<Place>,
}

#[derive(Debug)]
enum Place {
    Name(String),
    Index(usize),
}

/// Makes a JSON pointer of the places, which lead from the fault outwards.
fn pointer(path: &[Place]) -> String {
    let mut pointer = String::new();
    for place in path.iter().rev() {
        pointer.push('/');
        match place {
            Place::Name(name) => {
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1").replace('\0', "\u{fffd}"));
            }
            Place::Index(index) => pointer.push_str(&index.to_string()),
        }
    }
    pointer
}

struct Strict<'a> {
    /// How many more levels of arrays and objects may follow.
    levels: usize,
    found: &'a mut Option<Found>,
}

impl Strict<'_> {
    fn refuse<E: de::Error>(&mut self, what: Content, path: Vec<Place>) -> E {
        *self.found = Some(Found { what, path });
        // The caller of `parse` makes a message of `found`, so this one is never shown.
        E::custom("refused")
    }

    fn inner<E: de::Error>(&mut self) -> Result<Strict<'_>, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Strict { levels, found: self.found }),
            None => Err(self.refuse(Content::TooDeep, Vec::new())),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: de::Error>(mut self, value: String) -> Result<Value, E> {
        match value.contains('\0') {
            false => Ok(Value::String(value)),
            true => Err(self.refuse(Content::Nul, Vec::new())),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut inner = self.inner()?;
        let mut values = Vec::new();
        loop {
            let seed = Strict { levels: inner.levels, found: inner.found };
            match items.next_element_seed(seed) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => return Ok(Value::Array(values)),
                Err(error) => {
                    inner.lies_at(Place::Index(values.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut inner = self.inner()?;
        let mut values = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if name.contains('\0') {
                return Err(inner.refuse(Content::Nul, vec![Place::Name(name)]));
            }
            let seed = Strict { levels: inner.levels, found: inner.found };
            let value = match fields.next_value_seed(seed) {
                Ok(value) => value,
                Err(error) => {
                    inner.lies_at(Place::Name(name));
                    return Err(error);
                }
            };
            match values.entry(name) {
                serde_json::map::Entry::Vacant(place) => {
                    place.insert(value);
                }
                serde_json::map::Entry::Occupied(place) => {
                    let name = place.key().clone();
                    return Err(inner.refuse(Content::Duplicate, vec![Place::Name(name)]));
                }
            }
        }
        Ok(Value::Object(values))
    }
}

impl Strict<'_> {
    /// Adds an enclosing place, if a fault was found inside.
    fn lies_at(&mut self, place: Place) {
        if let Some(found) = self.found {
            found.path.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, pointer: &str, what: Content) {
        match parse(text.as_bytes()) {
            Err(Fault::Content { pointer: found, what: why }) => {
                assert_eq!((found.as_str(), why), (pointer, what), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_repeated_name_is_refused_with_a_pointer_to_it() {
        use Content::Duplicate;
        check(r#"{"a": 1, "a": 1}"#, "/a", Duplicate);
        check(r#"{"a": 1, "\u0061": 2}"#, "/a", Duplicate);
        check(r#"[0, {"x/y~z": [{"b": null, "c": 1, "b": null}]}]"#, "/1/x~1y~0z/0/b", Duplicate);
        check(r#"{"": {}, "": {}}"#, "/", Duplicate);
        // The first fault is reported; other objects may have the same name.
        check(r#"{"a": {"b": 1, "b": 2}, "a": 1}"#, "/a/b", Duplicate);
        assert!(parse(br#"{"a": {"a": 1}, "b": {"a": 1}}"#).is_ok());
    }

    #[test]
    fn a_nul_and_too_deep_nesting_are_refused_with_a_pointer() {
        use Content::{Nul, TooDeep};
        check(r#""a\u0000""#, "", Nul);
        check(r#"{"a": [1, "x", {"b/c": "\u0000"}]}"#, "/a/2/b~1c", Nul);
        check(r#"{"x\u0000": 1}"#, "/x\u{fffd}", Nul);
        assert!(parse(br#"{"a": "\\u0000"}"#).is_ok(), "that is a backslash");
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        check(&nested(MAX_DEPTH + 1), &"/0".repeat(MAX_DEPTH), TooDeep);
        check(&"[".repeat(1 << 20), &"/0".repeat(MAX_DEPTH), TooDeep);
        check(&r#"{"a":"#.repeat(1 << 18), &"/a".repeat(MAX_DEPTH), TooDeep);
    }

    #[test]
    fn text_after_a_value_is_refused() {
        for text in ["", " ", "{} {}", "1 2", "{\"a\": 1}x", "\u{feff}{}"] {
            assert!(matches!(parse(text.as_bytes()), Err(Fault::Syntax(_))), "{text:?}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[^\0]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[^\0]{0,3}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_valid_value_is_read_as_serde_json_reads_it(value in value()) {
            let text = serde_json::to_vec(&value).expect("a value is JSON");
            prop_assert_eq!(parse(&text).expect("nothing is wrong with it"), value);
        }

        /// Also checks that the reader never panics.
        #[test]
        fn bytes_that_serde_json_refuses_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let strict = parse(&bytes);
            match serde_json::from_slice::<Value>(&bytes) {
                Ok(value) => prop_assert!(strict.map_or(true, |strict| strict == value)),
                Err(_) => prop_assert!(strict.is_err()),
            }
        }

        #[test]
        fn json_like_texts_do_no_harm(text in r#"[\[\]{}:,"ab0-9.eE\\u \n-]{0,40}"#) {
            let strict = parse(text.as_bytes());
            if let Ok(value) = strict {
                prop_assert_eq!(Some(value), serde_json::from_str(&text).ok());
            }
        }

        #[test]
        fn a_repeated_field_is_refused_at_any_depth(value in value(), levels in 0..5_usize) {
            let mut text = format!(r#"{{"twice": {value}, "twice": {value}}}"#);
            for _ in 0..levels {
                text = format!(r#"[{{"in": {text}}}]"#);
            }
            let pointer_expected = format!("{}/twice", "/0/in".repeat(levels));
            match parse(text.as_bytes()) {
                Err(Fault::Content { pointer, what: Content::Duplicate }) => {
                    prop_assert_eq!(pointer, pointer_expected);
                }
                other => prop_assert!(false, "{text}: {other:?}"),
            }
        }
    }
}
