//! The components' key-value data, and how a demo changes it.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use serde_json::Value;

use crate::api::Api;

/// The stock at the beginning of each demo: enough of one product, and too little of two.
const STOCK: [(&str, u32); 3] = [("PROD-A", 100), ("PROD-B", 5), ("PROD-C", 3)];

const BUCKETS: [(&str, &str); 6] = [
    ("inventory", "stock"),
    ("inventory", "reservations"),
    ("payment", "payments"),
    ("shipping", "shipments"),
    ("notification", "outbox"),
    ("suppliers", "purchase-orders"),
];

pub(crate) fn seed(api: &Api) -> Result<()> {
    for (product, quantity) in STOCK {
        api.put_value("inventory", "stock", product, &quantity.to_string())?;
    }
    Ok(())
}

/// All entries of the buckets, each under its key.
#[derive(Default)]
pub(crate) struct Ledger {
    buckets: BTreeMap<(&'static str, &'static str), BTreeMap<String, String>>,
}

impl Ledger {
    pub(crate) fn read(api: &Api) -> Result<Self> {
        let mut buckets = BTreeMap::new();
        for (component, bucket) in BUCKETS {
            buckets.insert((component, bucket), api.values(component, bucket)?.into_iter().collect());
        }
        Ok(Self { buckets })
    }

    /// Returns the entries of `after` that this ledger doesn't have, in the order of [`BUCKETS`], and the whole stock.
    pub(crate) fn changes(&self, after: &Self) -> String {
        let mut text = String::from("\nThe ledger\n");
        let none = BTreeMap::new();
        for place in BUCKETS {
            let (before, after) =
                (self.buckets.get(&place).unwrap_or(&none), after.buckets.get(&place).unwrap_or(&none));
            for (key, value) in after {
                let old = before.get(key);
                if place.1 != "stock" && old == Some(value) {
                    continue;
                }
                let change = match (place.1, old) {
                    ("stock", Some(old)) if old == value => value.clone(),
                    ("stock", Some(old)) => format!("{old} -> {value}"),
                    _ => summary(value),
                };
                let (component, bucket) = place;
                writeln!(text, "  {:<26} {key:<22} {change}", format!("{component}/{bucket}"))
                    .expect("writing to a `String` can't fail");
            }
        }
        text.trim_end().to_owned()
    }
}

/// Summarizes an entry: its state, amount and lines.
fn summary(value: &str) -> String {
    let Ok(Value::Object(entry)) = serde_json::from_str::<Value>(value) else { return value.to_owned() };
    let mut words = Vec::new();
    for (name, value) in &entry {
        match (name.as_str(), value) {
            ("workflowId" | "times", _) => {}
            ("state", Value::String(state)) => words.insert(0, state.clone()),
            ("amountCents", Value::Number(cents)) => {
                let cents = cents.as_i64().unwrap_or_default();
                words.push(format!("{}.{:02}", cents / 100, cents % 100));
            }
            ("items", Value::Array(items)) => {
                words.extend(items.iter().map(|item| {
                    format!("{} {}", item["quantity"], item["productId"].as_str().unwrap_or("?"))
                }))
            }
            (name, Value::String(text)) => words.push(format!("{name} {text}")),
            (name, other) => words.push(format!("{name} {other}")),
        }
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(entries: &[((&'static str, &'static str), &str, &str)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(place, key, value) in entries {
            ledger.buckets.entry(place).or_default().insert(key.into(), value.into());
        }
        ledger
    }

    #[test]
    fn the_stock_is_shown_whole_and_the_rest_where_it_changed() {
        let (stock, payments) = (("inventory", "stock"), ("payment", "payments"));
        let old = r#"{"amountCents": 5, "state": "charged", "times": 1}"#;
        let new = r#"{"amountCents": 19998, "state": "refunded", "times": 1, "workflowId": "w"}"#;
        let before = ledger(&[(stock, "PROD-A", "100"), (stock, "PROD-B", "5"), (payments, "ORD-1", old)]);
        let after = ledger(&[
            (stock, "PROD-A", "98"),
            (stock, "PROD-B", "5"),
            (payments, "ORD-1", old),
            (payments, "ORD-2", new),
        ]);
        insta::assert_snapshot!(before.changes(&after));
    }

    #[test]
    fn a_reservation_is_shown_with_its_lines() {
        let entry =
            r#"{"items": [{"productId": "PROD-A", "quantity": 2}], "state": "released", "workflowId": "w"}"#;
        assert_eq!(summary(entry), "released, 2 PROD-A");
    }
}
