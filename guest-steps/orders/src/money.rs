//! Converts prices, which arrive as floats, to exact cents.

/// Converts the amount `price` to cents.
///
/// A JSON number such as 99.99 has no exact float. But the shortest decimal text that stands for its float is the text
/// that was sent (up to 15 digits). So the cents are read from that text, and nothing is ever rounded.
///
/// # Errors
/// Returns what is wrong with the price, as the rest of a sentence.
pub(crate) fn cents(price: f64) -> Result<i64, String> {
    if !price.is_finite() {
        return Err("is not a number".to_owned());
    }
    if price < 0.0 {
        return Err(format!("is negative: {price}"));
    }
    // `abs` is for -0.0, which is a zero, too. `Display` never uses an exponent.
    let text = price.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if fraction.len() > 2 {
        return Err(format!("has more than two decimals: {text}"));
    }
    format!("{whole}{fraction:0<2}").parse().map_err(|_| format!("is too large: {text}"))
}

#[cfg(test)]
mod tests {
    use super::cents;

    #[test]
    fn decimal_amounts_are_exact() {
        for (price, expected) in [
            (0.0, 0),
            (-0.0, 0),
            (0.01, 1),
            (0.1, 10),
            (0.29, 29),
            (1.0, 100),
            (1.15, 115),
            (99.99, 9_999),
            (1_000_000.05, 100_000_005),
            (4_503_599_627_370.49, 450_359_962_737_049),
        ] {
            assert_eq!(cents(price), Ok(expected), "{price}");
        }
    }

    #[test]
    fn every_amount_of_cents_is_unchanged_by_a_float() {
        for expected in (0..200_000).chain(99_999_900_000..100_000_000_000_i64) {
            let sent: f64 =
                format!("{}.{:02}", expected / 100, expected % 100).parse().expect("an amount is a number");
            assert_eq!(cents(sent), Ok(expected));
        }
    }

    #[test]
    fn a_number_that_is_not_an_amount_is_refused() {
        assert_eq!(cents(1.999), Err("has more than two decimals: 1.999".to_owned()));
        assert_eq!(cents(-1.0), Err("is negative: -1".to_owned()));
        assert_eq!(cents(1e18), Err("is too large: 1000000000000000000".to_owned()));
        assert_eq!(cents(f64::NAN), Err("is not a number".to_owned()));
        assert!(cents(1e300).is_err());
        assert!(cents(5e-324).is_err());
    }
}
