//! The component `suppliers`: orders goods from two suppliers.

mod share;

use exports::ecommerce::suppliers::suppliers::{Guest, Line, Purchase};
use ledger::{Bucket, Entry, context, next_times, own_live};
use serde::{Deserialize, Serialize};
use share::Supplier;

wit_bindgen::generate!({ path: "wit", world: "component" });

const BUCKET: &str = "purchase-orders";

struct Suppliers;
export!(Suppliers);

impl Guest for Suppliers {
    fn order(request_id: String, supplier: String, low: Vec<Line>) -> Result<Purchase, String> {
        let share_of = Supplier::named(&supplier)?;
        let mut lines = Vec::new();
        for Line { product_id, quantity } in low {
            if quantity < 1 {
                return Err(format!("quantity of {product_id} is {quantity}: it must be at least 1"));
            }
            let quantity = share_of.share(quantity);
            if quantity > 0 {
                lines.push(Line { product_id, quantity });
            }
        }
        if !lines.is_empty() {
            write(&request_id, &supplier, &lines)?;
        }
        Ok(Purchase { supplier, lines })
    }

    fn cancel(request_id: String, supplier: String) -> Result<bool, String> {
        Supplier::named(&supplier)?;
        let orders = Bucket::<PurchaseOrder>::open(BUCKET)?;
        let key = key(&request_id, &supplier);
        let Some(mut order) = own_live(orders.get(&key)?, &context::workflow_id()) else {
            return Ok(false);
        };
        order.state = State::Cancelled;
        orders.set(&key, &order)?;
        Ok(true)
    }
}

fn write(request_id: &str, supplier: &str, lines: &[Line]) -> Result<(), String> {
    let orders = Bucket::<PurchaseOrder>::open(BUCKET)?;
    let key = key(request_id, supplier);
    let workflow_id = context::workflow_id();
    let previous = orders.get(&key)?;
    let times = next_times(previous.as_ref(), &workflow_id)
        .map_err(|run| format!("request {request_id} is already ordered from {supplier} by run {run}"))?;
    let items = lines
        .iter()
        .map(|line| Ordered { product_id: line.product_id.clone(), quantity: line.quantity })
        .collect();
    orders.set(&key, &PurchaseOrder { state: State::Ordered, items, workflow_id, times })
}

fn key(request_id: &str, supplier: &str) -> String {
    format!("{request_id}/{supplier}")
}

/// An entry of the bucket `purchase-orders`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PurchaseOrder {
    state: State,
    items: Vec<Ordered>,
    workflow_id: String,
    times: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ordered {
    product_id: String,
    quantity: i32,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum State {
    Ordered,
    Cancelled,
}

impl Entry for PurchaseOrder {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    fn is_live(&self) -> bool {
        self.state == State::Ordered
    }
}
