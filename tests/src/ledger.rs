//! The ledger that the components keep in their key-value data, and what must be true of it when all runs are over.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Client;

/// Everything that the components have stored.
#[derive(Debug)]
pub struct Ledger {
    pub stock: BTreeMap<String, i64>,
    pub reservations: BTreeMap<String, Value>,
    pub payments: BTreeMap<String, Value>,
    pub shipments: BTreeMap<String, Value>,
    pub outbox: BTreeMap<String, Value>,
}

/// Sets the stock of a product.
#[track_caller]
pub fn seed(client: &Client, product: &str, quantity: i64) {
    let path = format!("/api/components/inventory/keyvalue/stock/{product}");
    let answer = client.put(&path, quantity.to_string().as_bytes());
    assert!(matches!(answer.status, 200 | 201 | 204), "{}", String::from_utf8_lossy(&answer.body));
}

impl Ledger {
    #[track_caller]
    pub fn read(client: &Client) -> Self {
        let objects = |component: &str, bucket: &str| -> BTreeMap<String, Value> {
            let entries = entries(client, component, bucket).into_iter();
            entries
                .map(|(key, value)| (key, serde_json::from_slice(&value).expect("entries are JSON")))
                .collect()
        };
        let stock = entries(client, "inventory", "stock").into_iter().map(|(product, quantity)| {
            let quantity = String::from_utf8(quantity).ok().and_then(|text| text.parse().ok());
            (product, quantity.expect("stock is a decimal text"))
        });
        Self {
            stock: stock.collect(),
            reservations: objects("inventory", "reservations"),
            payments: objects("payment", "payments"),
            shipments: objects("shipping", "shipments"),
            outbox: objects("notification", "outbox"),
        }
    }

    /// Asserts what must be true, given the stock at the beginning and the final state of every run.
    #[track_caller]
    pub fn check(&self, stock_before: &BTreeMap<String, i64>, runs: &[Value]) {
        let mut reserved: BTreeMap<&str, i64> = BTreeMap::new();
        for reservation in self.reservations.values().filter(|entry| entry["state"] == "reserved") {
            for item in reservation["items"].as_array().expect("a reservation has items") {
                let product = item["productId"].as_str().expect("an item names its product");
                *reserved.entry(product).or_default() += item["quantity"].as_i64().expect("a quantity");
            }
        }
        for (product, before) in stock_before {
            let now = self.stock.get(product).copied().unwrap_or(0);
            let held = reserved.get(product.as_str()).copied().unwrap_or(0);
            assert_eq!(now + held, *before, "{product}: {now} in stock, {held} reserved, {before} before");
        }

        let status: BTreeMap<&str, &str> = runs
            .iter()
            .map(|run| {
                let id = run["workflowId"].as_str().expect("a run has an id");
                (id, run["status"].as_str().expect("a run has a status"))
            })
            .collect();
        let live = [
            (&self.reservations, "reserved", "reservation"),
            (&self.payments, "charged", "payment"),
            (&self.shipments, "created", "shipment"),
        ];
        for (entries, state, kind) in live {
            for (order, entry) in entries {
                assert_eq!(entry["times"], 1, "the {kind} of {order} was written more than once: {entry}");
                let run = entry["workflowId"].as_str().expect("an entry names its run");
                if entry["state"] == state {
                    assert_eq!(status.get(run), Some(&"COMPLETED"), "the {kind} of {order} is live: {entry}");
                }
            }
        }
        for (order, entry) in &self.outbox {
            assert_eq!(entry["times"], 1, "{order} was notified more than once: {entry}");
        }
        for run in runs.iter().filter(|run| run["status"] == "COMPLETED") {
            let Some(order) = run["input"]["orderId"].as_str() else { continue };
            for (entries, state, kind) in live {
                let entry = entries.get(order).unwrap_or(&Value::Null);
                assert_eq!(entry["state"], state, "the {kind} of completed order {order}");
                assert_eq!(entry["workflowId"], run["workflowId"], "the {kind} of completed order {order}");
            }
            assert!(self.outbox.contains_key(order), "completed order {order} was not notified");
        }
    }
}

fn entries(client: &Client, component: &str, bucket: &str) -> Vec<(String, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let more = cursor.as_ref().map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        let path = format!("/api/components/{component}/keyvalue/{bucket}{more}");
        let page = client.get(&path).expect(200).json();
        for entry in page["items"].as_array().expect("a page has items") {
            let key = entry["key"].as_str().expect("an entry has a key").to_owned();
            let value = entry["valueBase64"].as_str().expect("an entry has a value");
            entries.push((key, STANDARD.decode(value).expect("values are in base64")));
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return entries,
        }
    }
}
