//! The spelling of WIT names and scalars in JSON.
//!
//! The check of inputs and the conversion of the sandbox both use it, so they agree.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Type;

/// The host sends larger integers as texts, since JSON readers that know only doubles would round them.
pub const MAX_SAFE_INTEGER: i128 = (1 << 53) - 1;

/// Converts a JSON value that leaves the host: every integer beyond [`MAX_SAFE_INTEGER`] becomes a text.
pub fn with_safe_integers(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let integer = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
            match integer {
                Some(integer) if integer.abs() > MAX_SAFE_INTEGER => Value::String(integer.to_string()),
                _ => Value::Number(number),
            }
        }
        Value::Array(items) => items.into_iter().map(with_safe_integers).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, with_safe_integers(value))).collect()
        }
        other => other,
    }
}

/// Returns a WIT name in lowerCamelCase.
pub fn camel(wit: &str) -> String {
    camel_chars(wit).collect()
}

/// Whether `json` is the WIT name `wit`, in lowerCamelCase or in WIT's own spelling.
pub fn spells(wit: &str, json: &str) -> bool {
    wit == json || camel_chars(wit).eq(json.chars())
}

/// The smallest and the largest value of an integer type, or `None` for any other type.
pub fn integer_range(ty: &Type) -> Option<(i128, i128)> {
    Some(match ty {
        Type::S8 => (i8::MIN.into(), i8::MAX.into()),
        Type::U8 => (0, u8::MAX.into()),
        Type::S16 => (i16::MIN.into(), i16::MAX.into()),
        Type::U16 => (0, u16::MAX.into()),
        Type::S32 => (i32::MIN.into(), i32::MAX.into()),
        Type::U32 => (0, u32::MAX.into()),
        Type::S64 => (i64::MIN.into(), i64::MAX.into()),
        Type::U64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// Reads an integer: a number without a fraction, or a decimal text.
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
pub fn integer(value: &Value, (min, max): (i128, i128)) -> Result<i128, String> {
    let n = match value {
        Value::Number(number) => {
            if let Some(n) = number.as_i64() {
                i128::from(n)
            } else if let Some(n) = number.as_u64() {
                i128::from(n)
            } else {
                number
                    .as_f64()
                    .and_then(whole)
                    .ok_or_else(|| format!("expected an integer, found {number}"))?
            }
        }
        Value::String(text) => {
            decimal(text).ok_or_else(|| format!("expected an integer, found {}", brief(value)))?
        }
        other => return Err(format!("expected an integer, found {}", brief(other))),
    };
    if (min..=max).contains(&n) {
        Ok(n)
    } else {
        Err(format!("{n} is out of range: expected {min} to {max}"))
    }
}

/// Converts an integer of any WIT type to a number, which is exact inside the host. When a large one leaves the host,
/// [`with_safe_integers`] converts it to a text.
pub fn integer_to_json(n: i128) -> Value {
    match (i64::try_from(n), u64::try_from(n)) {
        (Ok(n), _) => n.into(),
        (_, Ok(n)) => n.into(),
        // No WIT integer is larger.
        _ => Value::String(n.to_string()),
    }
}

/// Reads a number. If `single` is true, it must be in the range of `f32`.
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
pub fn float(value: &Value, single: bool) -> Result<f64, String> {
    let Value::Number(number) = value else {
        return Err(format!("expected a number, found {}", brief(value)));
    };
    let n = number.as_f64().filter(|n| n.is_finite());
    match n {
        #[expect(clippy::cast_possible_truncation, reason = "the test is whether the cast overflows")]
        Some(n) if !single || (n as f32).is_finite() => Ok(n),
        _ => {
            Err(format!("{number} is out of range: expected a finite {}", if single { "f32" } else { "f64" }))
        }
    }
}

/// Reads a text of exactly one Unicode scalar value.
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
pub fn character(value: &Value) -> Result<char, String> {
    let text = text(value)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(format!("expected a text of exactly one character, found {}", brief(value))),
    }
}

/// Reads a text without NUL, which neither Postgres nor a C library could hold.
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
pub fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(text) if text.contains('\0') => Err("a text must not contain NUL".into()),
        Value::String(text) => Ok(text),
        other => Err(format!("expected a text, found {}", brief(other))),
    }
}

/// Reads the bytes of a `list<u8>` from a text in base64 with padding (RFC 4648 section 4).
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
pub fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    let Value::String(text) = value else {
        return Err(format!("expected bytes as base64 text, found {}", brief(value)));
    };
    STANDARD.decode(text).map_err(|error| format!("expected bytes as base64 text: {error}"))
}

/// Converts bytes to a text in base64.
pub fn bytes_to_json(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

/// Describes a value in a few words, for a message.
pub fn brief(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(text) if text.chars().count() > 24 => {
            let start: String = text.chars().take(24).collect();
            format!("the text {start:?}…")
        }
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// The characters of a WIT name in lowerCamelCase. Its words are all small or all capitals, joined by `-`.
fn camel_chars(wit: &str) -> impl Iterator<Item = char> {
    let mut capital = false;
    wit.chars().filter_map(move |c| {
        if c == '-' {
            capital = true;
            return None;
        }
        let first = std::mem::take(&mut capital);
        Some(if first { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
    })
}

/// The integer of a double without a fraction, if only one integer has this double.
fn whole(n: f64) -> Option<i128> {
    #[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
    let safe = n.fract() == 0.0 && n.abs() <= MAX_SAFE_INTEGER as f64;
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is in range")]
    safe.then_some(n as i128)
}

/// Reads `-?[0-9]+` with at most as many digits as 64 bits need.
fn decimal(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn names_are_spelled_as_the_language_spells_them() {
        for wit in ["order-id", "x", "a-b-c", "HTTP-server", "x-HTTP", "order2-id"] {
            assert_eq!(camel(wit), name::lower_camel(wit), "{wit}");
            assert!(spells(wit, &camel(wit)));
            assert!(spells(wit, wit));
        }
        assert!(!spells("order-id", "orderid"));
        assert!(!spells("order-id", "order_id"));
    }

    #[test]
    fn integers_beyond_a_double_leave_the_host_as_texts() {
        let outside = |n: i128| with_safe_integers(Value::Array(vec![integer_to_json(n)]))[0].take();
        assert_eq!(outside(MAX_SAFE_INTEGER), Value::from(9_007_199_254_740_991_i64));
        assert_eq!(outside(MAX_SAFE_INTEGER + 1), Value::from("9007199254740992"));
        assert_eq!(outside(u64::MAX.into()), Value::from("18446744073709551615"));
        assert_eq!(outside(i64::MIN.into()), Value::from("-9223372036854775808"));
    }
}
