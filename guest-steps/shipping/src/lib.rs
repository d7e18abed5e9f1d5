//! The component `shipping`: creates and cancels shipments.

use exports::ecommerce::shipping::shipping::{Guest, Shipment};
use ledger::{Bucket, Entry, context, next_times, own_live};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "wit", world: "component" });

const BUCKET: &str = "shipments";
/// An address that stands for one to which nobody delivers.
const UNREACHABLE: &str = "unreachable";

struct Shipping;
export!(Shipping);

impl Guest for Shipping {
    fn create(order_id: String, ship_to: Option<String>) -> Result<Shipment, String> {
        if ship_to.as_deref() == Some(UNREACHABLE) {
            return Err("address unreachable".to_owned());
        }
        let shipments = Bucket::<Shipped>::open(BUCKET)?;
        let workflow_id = context::workflow_id();
        let previous = shipments.get(&order_id)?;
        let times = next_times(previous.as_ref(), &workflow_id)
            .map_err(|run| format!("order {order_id} is already shipped by run {run}"))?;

        let shipment_id = context::idempotency_key();
        let shipped =
            Shipped { state: State::Created, shipment_id: shipment_id.clone(), ship_to, workflow_id, times };
        shipments.set(&order_id, &shipped)?;
        Ok(Shipment { shipment_id })
    }

    fn cancel(order_id: String) -> Result<bool, String> {
        let shipments = Bucket::<Shipped>::open(BUCKET)?;
        let Some(mut shipped) = own_live(shipments.get(&order_id)?, &context::workflow_id()) else {
            return Ok(false);
        };
        shipped.state = State::Cancelled;
        shipments.set(&order_id, &shipped)?;
        Ok(true)
    }
}

/// An entry of the bucket `shipments`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shipped {
    state: State,
    shipment_id: String,
    ship_to: Option<String>,
    workflow_id: String,
    times: u32,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum State {
    Created,
    Cancelled,
}

impl Entry for Shipped {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    fn is_live(&self) -> bool {
        self.state == State::Created
    }
}
