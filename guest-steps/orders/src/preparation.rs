//! The bucket `preparations`: the orders that are being prepared, by order id.

use ledger::{Bucket, Entry, context, next_times, own_live};
use serde::{Deserialize, Serialize};

const BUCKET: &str = "preparations";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preparation {
    state: State,
    total_cents: i64,
    workflow_id: String,
    times: u32,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum State {
    Prepared,
    Withdrawn,
}

impl Entry for Preparation {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    fn is_live(&self) -> bool {
        self.state == State::Prepared
    }
}

pub(crate) fn prepare(order_id: &str, total_cents: i64) -> Result<(), String> {
    let preparations = Bucket::<Preparation>::open(BUCKET)?;
    let workflow_id = context::workflow_id();
    let previous = preparations.get(order_id)?;
    let times = next_times(previous.as_ref(), &workflow_id)
        .map_err(|run| format!("order {order_id} is already being prepared by run {run}"))?;
    preparations.set(order_id, &Preparation { state: State::Prepared, total_cents, workflow_id, times })
}

pub(crate) fn withdraw(order_id: &str) -> Result<bool, String> {
    let preparations = Bucket::<Preparation>::open(BUCKET)?;
    let Some(mut preparation) = own_live(preparations.get(order_id)?, &context::workflow_id()) else {
        return Ok(false);
    };
    preparation.state = State::Withdrawn;
    preparations.set(order_id, &preparation)?;
    Ok(true)
}
