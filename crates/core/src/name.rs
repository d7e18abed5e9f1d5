//! Names are matched by their words: `placeOrder`, `place-order` and `place_order` are one name.

/// Returns the words of `name` in lower case, joined by `-`. Names are compared in this form, which is WIT's spelling.
///
/// A word begins after `-`, `_` or a blank, at a capital after a small letter or a digit, and at the last of several
/// capitals (`HTTPServer` is `http-server`).
pub fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (i, &c) in chars.iter().enumerate() {
        if matches!(c, '-' | '_' | ' ') {
            if !out.is_empty() && !out.ends_with('-') {
                out.push('-');
            }
            continue;
        }
        let after_small = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_ascii_digit());
        let ends_capitals =
            i > 0 && chars[i - 1].is_uppercase() && chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (after_small || ends_capitals) && !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    while out.ends_with('-') {
        out.pop();
    }
    out
}

/// Returns the words of `name` in lowerCamelCase, which is the spelling of WIT names in JSON.
pub fn lower_camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut capital = false;
    for c in kebab(name).chars() {
        match c {
            '-' => capital = true,
            c if capital => {
                out.extend(c.to_uppercase());
                capital = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether two names have the same words.
pub fn same(a: &str, b: &str) -> bool {
    a == b || kebab(a) == kebab(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_words_are_one_name() {
        for name in ["placeOrder", "place-order", "place_order", "PlaceOrder"] {
            assert_eq!(kebab(name), "place-order");
            assert_eq!(lower_camel(name), "placeOrder");
            assert!(same(name, "place-order"));
        }
        assert!(!same("placeOrder", "placeorder"));
    }

    #[test]
    fn runs_of_capitals_and_digits_keep_their_words() {
        assert_eq!(kebab("HTTPServer"), "http-server");
        assert_eq!(kebab("order2Id"), "order2-id");
        assert_eq!(kebab("_x_"), "x");
        assert_eq!(kebab(""), "");
    }
}
