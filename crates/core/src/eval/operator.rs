//! The operators of the language, on values.
//!
//! Integers have 64 bits and are exact. A result out of their range is an error, and so is a division by zero.

use serde_json::Value;

use super::{kind, type_error};
use crate::event::Failure;
use crate::plan::BinaryOp;

/// Applies `op` to two values. The caller handles `and` and `or`, which may not need their second value.
pub(super) fn operate(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, Failure> {
    let symbol = symbol(op);
    match op {
        BinaryOp::Eq => return Ok(equal(a, b).into()),
        BinaryOp::Ne => return Ok((!equal(a, b)).into()),
        _ => {}
    }
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return match (a, b) {
            (Number::Integer(a), Number::Integer(b)) => integers(op, a, b),
            (a, b) => floats(op, a.as_f64(), b.as_f64()),
        };
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => match op {
            BinaryOp::Add => Ok(Value::String(format!("{a}{b}"))),
            BinaryOp::Lt => Ok((a < b).into()),
            BinaryOp::Le => Ok((a <= b).into()),
            BinaryOp::Gt => Ok((a > b).into()),
            BinaryOp::Ge => Ok((a >= b).into()),
            _ => Err(type_error(format!("`{symbol}` of two texts"))),
        },
        (Value::Array(a), Value::Array(b)) if op == BinaryOp::Add => {
            Ok(Value::Array(a.iter().chain(b).cloned().collect()))
        }
        _ => Err(type_error(format!("`{symbol}` of {} and {}", kind(a), kind(b)))),
    }
}

fn integers(op: BinaryOp, a: i128, b: i128) -> Result<Value, Failure> {
    let number = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        // Both are at most 2^64, so the product may just leave an i128. It is out of range then in any case.
        BinaryOp::Mul => a.saturating_mul(b),
        BinaryOp::Div if b == 0 => return Err(type_error(format!("`{a} / 0`: division by zero"))),
        BinaryOp::Div => a / b,
        BinaryOp::Lt => return Ok((a < b).into()),
        BinaryOp::Le => return Ok((a <= b).into()),
        BinaryOp::Gt => return Ok((a > b).into()),
        BinaryOp::Ge => return Ok((a >= b).into()),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::And | BinaryOp::Or => return unreachable_op(op),
    };
    let overflow = |_| type_error(format!("`{a} {} {b}` overflows a 64-bit integer", symbol(op)));
    Ok(i64::try_from(number).map_err(overflow)?.into())
}

fn floats(op: BinaryOp, a: f64, b: f64) -> Result<Value, Failure> {
    let number = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div if b == 0.0 => return Err(type_error(format!("`{a} / {b}`: division by zero"))),
        BinaryOp::Div => a / b,
        BinaryOp::Lt => return Ok((a < b).into()),
        BinaryOp::Le => return Ok((a <= b).into()),
        BinaryOp::Gt => return Ok((a > b).into()),
        BinaryOp::Ge => return Ok((a >= b).into()),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::And | BinaryOp::Or => return unreachable_op(op),
    };
    float(number).ok_or_else(|| type_error(format!("`{a} {} {b}` is too large for a number", symbol(op))))
}

fn float(number: f64) -> Option<Value> {
    serde_json::Number::from_f64(number).map(Value::Number)
}

/// The failure of an operator that isn't one of numbers. [`operate`] handles these before it looks at numbers.
fn unreachable_op(op: BinaryOp) -> Result<Value, Failure> {
    Err(type_error(format!("`{}` is not an operator of numbers", symbol(op))))
}

/// Compares numbers by their value at any depth: `1 == 1.0`.
fn equal(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return match (a, b) {
            (Number::Integer(a), Number::Integer(b)) => a == b,
            (a, b) => a.as_f64() == b.as_f64(),
        };
    }
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

pub(super) fn negate(value: Value) -> Result<Value, Failure> {
    match Number::of(&value) {
        Some(Number::Integer(integer)) => {
            let overflow = |_| type_error(format!("`-{integer}` overflows a 64-bit integer"));
            Ok(i64::try_from(-integer).map_err(overflow)?.into())
        }
        Some(Number::Float(number)) => float(-number).ok_or_else(|| type_error("`-` of no number")),
        None => Err(type_error(format!("`-` of {}", kind(&value)))),
    }
}

/// A number as the operators see it. The `u64` of a component may exceed the language's integers, but a result may not.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Some(Self::Integer(integer.into())),
                (None, Some(integer)) => Some(Self::Integer(integer.into())),
                (None, None) => number.as_f64().map(Self::Float),
            },
            _ => None,
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "that is what a float is for")]
            Self::Integer(integer) => integer as f64,
            Self::Float(number) => number,
        }
    }
}

fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Or => "or",
        BinaryOp::And => "and",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_exact_and_a_result_beyond_64_bits_fails() {
        let compute = |op, a: Value, b: Value| operate(op, &a, &b);
        let large = 9_007_199_254_740_993_i64;
        assert_eq!(compute(BinaryOp::Add, json!(large - 2), json!(2)), Ok(json!(large)));
        assert_eq!(compute(BinaryOp::Eq, json!(large), json!(large - 1)), Ok(json!(false)));
        assert_eq!(compute(BinaryOp::Lt, json!(i64::MAX), json!(u64::MAX)), Ok(json!(true)));
        for (a, b) in [(json!(u64::MAX), json!(0)), (json!(i64::MAX), json!(1)), (json!(i64::MIN), json!(-1))]
        {
            let failure = compute(BinaryOp::Add, a, b).expect_err("it overflows");
            assert!(failure.message.contains("overflows"), "{}", failure.message);
        }
        assert!(compute(BinaryOp::Div, json!(i64::MIN), json!(-1)).is_err());
        assert!(compute(BinaryOp::Mul, json!(u64::MAX), json!(u64::MAX)).is_err());
        assert_eq!(compute(BinaryOp::Eq, json!("5"), json!(5)), Ok(json!(false)));
        assert!(compute(BinaryOp::Add, json!("5"), json!(6)).is_err());
    }
}
