//! Checks the components' data: each effect occurs once, and only those of completed runs are in force.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Runs, Violations};
use crate::chaos::submission::{Fate, PRODUCTS, STOCK, Submission, product};

/// The number of entries that are read at once.
const PAGE: i64 = 5_000;

/// An effect that a run has at most once. Its number is its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Reservation,
    Payment,
    Shipment,
    Message,
    Preparation,
    PurchaseFromA,
    PurchaseFromB,
    Delivery,
}

struct Bucket {
    component: &'static str,
    name: &'static str,
    /// The state in which the effect is in force. `None` means that it can't be undone.
    live: Option<&'static str>,
}

const BUCKETS: [Bucket; 7] = [
    Bucket { component: "inventory", name: "reservations", live: Some("reserved") },
    Bucket { component: "payment", name: "payments", live: Some("charged") },
    Bucket { component: "shipping", name: "shipments", live: Some("created") },
    Bucket { component: "notification", name: "outbox", live: None },
    Bucket { component: "orders", name: "preparations", live: Some("prepared") },
    Bucket { component: "suppliers", name: "purchase-orders", live: Some("ordered") },
    Bucket { component: "inventory", name: "deliveries", live: None },
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    state: Option<String>,
    workflow_id: Uuid,
    times: u32,
    amount_cents: Option<i64>,
    #[serde(default)]
    items: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    product_id: String,
    quantity: i64,
}

/// For each product, the pieces that the stock lacks or has in addition.
type Balance = BTreeMap<String, i64>;

pub(super) async fn examine(
    connection: &mut PgConnection,
    seed: u64,
    runs: &mut Runs,
    violations: &mut Violations,
) -> Result<()> {
    let mut balance = Balance::new();
    for bucket in &BUCKETS {
        for_each(connection, bucket.component, bucket.name, |key, value| {
            match serde_json::from_slice(value) {
                Ok(entry) => examine_entry(bucket, key, &entry, seed, runs, &mut balance, violations),
                Err(error) => violations.add(format!("{}/{key}: {error}", bucket.name)),
            }
        })
        .await?;
    }
    let mut stock = Balance::new();
    for_each(connection, "inventory", "stock", |product, quantity| {
        let quantity = std::str::from_utf8(quantity).ok().and_then(|text| text.parse().ok());
        stock.insert(product.to_owned(), quantity.unwrap_or(i64::MIN));
    })
    .await?;
    for product in (0..PRODUCTS).map(product) {
        let (has, moved) = (stock.get(&product), balance.get(&product).copied().unwrap_or(0));
        if has.is_none_or(|has| has + moved != STOCK) {
            violations.add(format!(
                "{product}: {has:?} in stock and {moved} reserved less delivered, and there were {STOCK}"
            ));
        }
    }
    for (workflow_id, run) in runs.iter() {
        let submission = Submission::nth(seed, run.n);
        let expected = effects_when_completed(&submission);
        let missing: Vec<_> = expected.iter().filter(|kind| run.effects & bit(**kind) == 0).collect();
        if run.is_completed && !missing.is_empty() && submission.fate != Fate::Restocked {
            violations
                .add(format!("{workflow_id} ({}) is completed without its {missing:?}", submission.key));
        }
        // A restocking that found enough of everything orders nothing, but what is ordered is delivered.
        let deliveries = [Kind::PurchaseFromA, Kind::Delivery].map(|kind| run.effects & bit(kind) != 0);
        if run.is_completed && deliveries[0] != deliveries[1] {
            violations
                .add(format!("{workflow_id} ({}) has ordered and delivered {deliveries:?}", submission.key));
        }
    }
    Ok(())
}

fn examine_entry(
    bucket: &Bucket,
    key: &str,
    entry: &Entry,
    seed: u64,
    runs: &mut Runs,
    balance: &mut Balance,
    violations: &mut Violations,
) {
    let mut wrong = |what: String| violations.add(format!("{}/{key}: {what}: {entry:?}", bucket.name));
    if entry.times != 1 {
        wrong(format!("was written {} times", entry.times));
    }
    let Some(run) = runs.get_mut(&entry.workflow_id) else {
        wrong("belongs to no run".to_owned());
        return;
    };
    let submission = Submission::nth(seed, run.n);
    let kind = kind(bucket, key);
    if key.split('/').next() != Some(submission.key.as_str()) {
        wrong(format!("was written by the run of {}", submission.key));
    }
    let is_live = bucket.live.is_none() || entry.state.as_deref() == bucket.live;
    if is_live != run.is_completed {
        let end = if run.is_completed { "completed" } else { "not completed" };
        wrong(format!("is in force: {is_live}; and its run was {end}"));
    }
    if kind == Kind::Payment && entry.amount_cents != Some(submission.cents()) {
        wrong(format!("is not about {} cents", submission.cents()));
    }
    run.effects |= bit(kind);
    for line in entry.items.iter().filter(|_| is_live) {
        let sign = match kind {
            Kind::Reservation => 1,
            Kind::Delivery => -1,
            _ => 0,
        };
        *balance.entry(line.product_id.clone()).or_default() += sign * line.quantity;
    }
}

fn kind(bucket: &Bucket, key: &str) -> Kind {
    match bucket.name {
        "reservations" => Kind::Reservation,
        "payments" => Kind::Payment,
        "shipments" => Kind::Shipment,
        "outbox" => Kind::Message,
        "preparations" => Kind::Preparation,
        "purchase-orders" if key.ends_with("/supplier-a") => Kind::PurchaseFromA,
        "purchase-orders" => Kind::PurchaseFromB,
        _ => Kind::Delivery,
    }
}

fn bit(kind: Kind) -> u8 {
    1 << kind as u8
}

fn effects_when_completed(submission: &Submission) -> &'static [Kind] {
    match submission.fate {
        Fate::Fulfilled => &[Kind::Reservation, Kind::Payment, Kind::Shipment, Kind::Message],
        _ => &[],
    }
}

/// Reads every entry of a bucket that has a value, in the order of the keys.
async fn for_each(
    connection: &mut PgConnection,
    component: &str,
    bucket: &str,
    mut each: impl FnMut(&str, &[u8]),
) -> Result<()> {
    let mut after = String::new();
    loop {
        let entries: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "select key, value
            from keyvalue_entry
            where tenant = 'default' and component = $1 and bucket = $2 and key > $3 and value is not null
            order by key
            limit $4",
        )
        .bind(component)
        .bind(bucket)
        .bind(&after)
        .bind(PAGE)
        .fetch_all(&mut *connection)
        .await
        .with_context(|| format!("can't read {component}/{bucket}"))?;
        let Some((last, _)) = entries.last() else { return Ok(()) };
        after.clone_from(last);
        entries.iter().for_each(|(key, value)| each(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Run;
    use super::*;

    const SEED: u64 = 3;

    /// Returns a valid order and its number.
    fn order() -> (u64, Submission) {
        let all = (0..).map(|n| (n, Submission::nth(SEED, n)));
        all.into_iter().find(|(_, sent)| sent.fate == Fate::Fulfilled).expect("there are many")
    }

    /// Checks an entry of the bucket `payments` whose run has ended like this.
    fn check(is_completed: bool, change: impl FnOnce(&mut Entry), expected: &[&str]) {
        let (n, submission) = order();
        let id = Uuid::from_u128(1);
        let mut runs = Runs::from([(id, Run { n, is_completed, effects: 0 })]);
        let mut entry = Entry {
            state: Some("charged".to_owned()),
            workflow_id: id,
            times: 1,
            amount_cents: Some(submission.cents()),
            items: Vec::new(),
        };
        change(&mut entry);
        let mut violations = Violations::default();
        let payments = &BUCKETS[1];
        examine_entry(
            payments,
            &submission.key,
            &entry,
            SEED,
            &mut runs,
            &mut Balance::new(),
            &mut violations,
        );
        assert_eq!(violations.count, expected.len(), "{violations:?}");
        for (violation, expected) in violations.told.iter().zip(expected) {
            assert!(violation.contains(expected), "{violation}: {expected}");
        }
    }

    #[test]
    fn a_charge_of_a_completed_order_and_a_refund_of_another_are_right() {
        check(true, |_| (), &[]);
        check(false, |entry| entry.state = Some("refunded".to_owned()), &[]);
    }

    #[test]
    fn a_charge_in_force_without_its_order_and_an_order_without_its_charge_are_noticed() {
        check(false, |_| (), &["is in force: true"]);
        check(true, |entry| entry.state = Some("refunded".to_owned()), &["is in force: false"]);
    }

    #[test]
    fn an_entry_that_is_written_twice_or_wrong_or_by_nobody_is_noticed() {
        check(true, |entry| entry.times = 2, &["was written 2 times"]);
        check(true, |entry| entry.amount_cents = Some(1), &["is not about"]);
        check(true, |entry| entry.workflow_id = Uuid::from_u128(2), &["belongs to no run"]);
    }
}
