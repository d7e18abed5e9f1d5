//! The component `notification`: tells customers what happened to their orders.

use exports::ecommerce::notification::notification::{Guest, Receipt};
use ledger::{Bucket, Entry, context, next_times};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "wit", world: "component" });

const BUCKET: &str = "outbox";

struct Notification;
export!(Notification);

impl Guest for Notification {
    fn notify(order_id: String, customer_id: String, message: String) -> Result<Receipt, String> {
        let outbox = Bucket::<Message>::open(BUCKET)?;
        let workflow_id = context::workflow_id();
        let previous = outbox.get(&order_id)?;
        let times = next_times(previous.as_ref(), &workflow_id)
            .map_err(|run| format!("customer of order {order_id} is already notified by run {run}"))?;

        let sent = Message { customer_id: customer_id.clone(), message: message.clone(), workflow_id, times };
        outbox.set(&order_id, &sent)?;
        Ok(Receipt { order_id, customer_id, message })
    }
}

/// An entry of the bucket `outbox`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    customer_id: String,
    message: String,
    workflow_id: String,
    times: u32,
}

impl Entry for Message {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    /// A message can't be taken back.
    fn is_live(&self) -> bool {
        true
    }
}
