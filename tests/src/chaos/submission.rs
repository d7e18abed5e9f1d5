//! Submissions and the ends that their runs must have. Both depend only on the seed and a number.

use std::time::Duration;

use serde_json::{Value, json};

use super::random::Random;
use crate::orders::with;

/// The number of products. There are enough for runs to proceed in parallel, and few enough for runs to meet at the
/// same row.
pub(crate) const PRODUCTS: usize = 200;
/// The stock of each product at the beginning. A replenishment orders more of a product that has fallen below it.
pub(crate) const STOCK: i64 = 1_000_000;
/// More than there ever is.
const TOO_MANY: i64 = 1_000_000_000;
const CENTS: i64 = 999;

/// How a run ends, unless a client cancels it or a step loses its host too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fulfilled,
    Declined,
    Unreachable,
    OutOfStock,
    /// The end of every run of the second workflow.
    Unpaid,
    Restocked,
}

impl Fate {
    pub(crate) fn workflow(self) -> &'static Workflow {
        match self {
            Self::Fulfilled | Self::Declined | Self::Unreachable | Self::OutOfStock => &ORDER_FULFILLMENT,
            Self::Unpaid => &PAYMENT_COMPENSATION,
            Self::Restocked => &INVENTORY_REPLENISHMENT,
        }
    }

    /// Returns the step that fails and its message, or `None` if the run completes.
    pub(crate) fn failure(self) -> Option<&'static str> {
        match self {
            Self::Fulfilled | Self::Restocked => None,
            Self::Declined | Self::Unpaid => Some("insufficient funds"),
            Self::Unreachable => Some("address unreachable"),
            Self::OutOfStock => Some("out of stock: "),
        }
    }
}

/// A workflow as the oracle knows it.
#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) definition: &'static str,
    /// The path at which a run is started.
    pub(crate) path: &'static str,
    /// The steps in the order of their declaration, and whether each has a compensation.
    pub(crate) steps: &'static [(&'static str, bool)],
}

pub(crate) static ORDER_FULFILLMENT: Workflow = Workflow {
    definition: "io.aster.ecommerce.order_fulfillment.fulfillOrder",
    path: "/api/orders",
    steps: &[
        ("validate_order", false),
        ("reserve_inventory", true),
        ("charge_payment", true),
        ("create_shipment", true),
        ("notify_customer", false),
    ],
};
pub(crate) static PAYMENT_COMPENSATION: Workflow = Workflow {
    definition: "io.aster.ecommerce.payment_compensation.processFailedPayment",
    path: "/api/definitions/processFailedPayment/runs",
    steps: &[("prepare_order", true), ("attempt_payment", true), ("send_failure_notification", false)],
};
pub(crate) static INVENTORY_REPLENISHMENT: Workflow = Workflow {
    definition: "io.aster.ecommerce.inventory_replenishment.replenishInventory",
    path: "/api/definitions/replenishInventory/runs",
    steps: &[
        ("check_stock_levels", false),
        ("order_from_supplier_a", true),
        ("order_from_supplier_b", true),
        ("update_inventory", false),
    ],
};

#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) key: String,
    pub(crate) fate: Fate,
    pub(crate) input: Value,
    /// Whether it is sent to two hosts at the same time.
    pub(crate) is_double: bool,
    /// The pause between acceptance and cancellation, if the run is cancelled.
    pub(crate) cancel_after: Option<Duration>,
}

impl Submission {
    pub(crate) fn nth(seed: u64, n: u64) -> Self {
        let mut random = Random::nth(seed ^ 0x6c6f_6164, n);
        let fate = match random.below(100) {
            0..40 => Fate::Fulfilled,
            40..50 => Fate::Declined,
            50..60 => Fate::Unreachable,
            60..65 => Fate::OutOfStock,
            65..80 => Fate::Unpaid,
            _ => Fate::Restocked,
        };
        let key = format!("{}-{n}", prefix(fate));
        // Every other submission is for one product, the hot key.
        let hot = random.below(2) == 0;
        let product = product(if hot { 0 } else { random.below(PRODUCTS) });
        let quantity = 1 + i64::try_from(random.below(3)).expect("it is small");
        let input = match fate {
            Fate::Fulfilled | Fate::Unpaid => order(&key, &product, quantity),
            Fate::Declined => {
                with(order(&key, &product, quantity), "paymentMethod", json!("pm_insufficient_funds"))
            }
            Fate::Unreachable => with(order(&key, &product, quantity), "shipTo", json!("unreachable")),
            Fate::OutOfStock => order(&key, &product, TOO_MANY),
            Fate::Restocked => json!({
                "requestId": key,
                "items": [{"productId": product, "threshold": STOCK, "quantity": quantity}],
            }),
        };
        let is_double = random.chance(3);
        let cancel_after = random.chance(2).then(|| random.millis(0, 100));
        Self { key, fate, input, is_double, cancel_after }
    }

    /// Returns the submission of a key, if the key is one of ours.
    pub(crate) fn of_key(seed: u64, key: &str) -> Option<(u64, Self)> {
        let n = key.rsplit_once('-')?.1.parse().ok()?;
        let submission = Self::nth(seed, n);
        (submission.key == key).then_some((n, submission))
    }

    /// Returns whether the key must be in a header. The trigger takes its key from the order.
    pub(crate) fn needs_key_header(&self) -> bool {
        !std::ptr::eq(self.fate.workflow(), &ORDER_FULFILLMENT)
    }

    /// Returns the price of an order.
    pub(crate) fn cents(&self) -> i64 {
        self.input["items"][0]["quantity"].as_i64().unwrap_or(0) * CENTS
    }
}

pub(crate) fn product(n: usize) -> String {
    format!("PROD-{n:03}")
}

fn prefix(fate: Fate) -> &'static str {
    match fate.workflow().path {
        "/api/orders" => "order",
        "/api/definitions/processFailedPayment/runs" => "unpaid",
        _ => "restock",
    }
}

fn order(key: &str, product: &str, quantity: i64) -> Value {
    let items = json!([{"productId": product, "quantity": quantity, "price": 9.99}]);
    with(crate::orders::order(key), "items", items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_back_to_its_submission() {
        for n in 0..500 {
            let sent = Submission::nth(5, n);
            let (number, found) = Submission::of_key(5, &sent.key).expect("it is one of ours");
            assert_eq!((number, found.input), (n, sent.input));
        }
        assert!(Submission::of_key(5, "order-x").is_none());
        assert!(Submission::of_key(5, "stranger-1").is_none());
    }
}
