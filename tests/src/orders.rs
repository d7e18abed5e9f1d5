//! Orders for the example workflows.

use serde_json::{Value, json};

/// An order for two of `PROD-A`.
pub fn order(id: &str) -> Value {
    json!({
        "orderId": id,
        "customerId": "CUST-123",
        "items": [{"productId": "PROD-A", "quantity": 2, "price": 99.99}],
        "metadata": {"channel": "web"},
        "paymentMethod": "card",
        "shipTo": "12 Main St"
    })
}

pub fn declined(id: &str) -> Value {
    with(order(id), "paymentMethod", json!("pm_insufficient_funds"))
}

pub fn unreachable(id: &str) -> Value {
    with(order(id), "shipTo", json!("unreachable"))
}

/// An order for more of `PROD-A` than any test has in stock.
pub fn too_many(id: &str) -> Value {
    with(order(id), "items", json!([{"productId": "PROD-A", "quantity": 1_000_000, "price": 1.0}]))
}

pub fn with(mut order: Value, field: &str, value: Value) -> Value {
    order[field] = value;
    order
}
