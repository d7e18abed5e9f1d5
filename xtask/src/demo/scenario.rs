//! The demo's submissions, and how each should end.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

pub(crate) struct Scenario {
    pub(crate) title: &'static str,
    /// Id of the order or the request, which is also the run's key.
    pub(crate) id: String,
    pub(crate) start: Start,
    pub(crate) input: Value,
    /// Expected status at the end.
    pub(crate) expected: &'static str,
}

pub(crate) enum Start {
    /// As a client of the shop would, by `POST` to the path that the definition names.
    Trigger {
        path: &'static str,
    },
    Definition {
        name: &'static str,
    },
}

const ORDERS: Start = Start::Trigger { path: "/api/orders" };
/// More than the stock of any product.
const TOO_MANY: i32 = 1_000_000;

pub(crate) fn all(stamp: &str) -> Vec<Scenario> {
    let order_id = |n: u32| format!("ORD-{stamp}-{n}");
    let request_id = format!("REQ-{stamp}");
    vec![
        Scenario {
            title: "a good order",
            start: ORDERS,
            input: order(&order_id(1), 2, json!({})),
            id: order_id(1),
            expected: "COMPLETED",
        },
        Scenario {
            title: "the card is declined: the stock goes back",
            start: ORDERS,
            input: order(&order_id(2), 1, json!({"paymentMethod": "pm_insufficient_funds"})),
            id: order_id(2),
            expected: "COMPENSATED",
        },
        Scenario {
            title: "the address is unreachable: the payment is refunded and the stock goes back",
            start: ORDERS,
            input: order(&order_id(3), 1, json!({"shipTo": "unreachable"})),
            id: order_id(3),
            expected: "COMPENSATED",
        },
        Scenario {
            title: "more than the stock: nothing is charged",
            start: ORDERS,
            input: order(&order_id(4), TOO_MANY, json!({})),
            id: order_id(4),
            expected: "COMPENSATED",
        },
        Scenario {
            title: "a payment that always fails, and what undoes it",
            start: Start::Definition { name: "processFailedPayment" },
            input: order(&order_id(5), 1, json!({})),
            id: order_id(5),
            expected: "COMPENSATED",
        },
        Scenario {
            title: "low stock is ordered from two suppliers at once",
            start: Start::Definition { name: "replenishInventory" },
            input: json!({
                "requestId": request_id,
                "items": [
                    {"productId": "PROD-B", "threshold": 10, "quantity": 40},
                    {"productId": "PROD-C", "threshold": 10, "quantity": 25},
                ],
            }),
            id: request_id,
            expected: "COMPLETED",
        },
    ]
}

fn order(id: &str, quantity: i32, different: Value) -> Value {
    let mut order = json!({
        "orderId": id,
        "customerId": "CUST-123",
        "items": [{"productId": "PROD-A", "quantity": quantity, "price": 99.99}],
        "metadata": {"channel": "web"},
        "paymentMethod": "card",
        "shipTo": "12 Main St",
    });
    for (name, value) in different.as_object().into_iter().flatten() {
        order[name] = value.clone();
    }
    order
}

/// Returns a new stamp for each demo, because the orders of earlier demos are still in the database.
pub(crate) fn unique_stamp() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:X}", since_epoch.as_millis())
}
