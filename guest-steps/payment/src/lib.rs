//! The component `payment`: charges and refunds orders.

use exports::ecommerce::payment::payment::{Charged, Guest};
use ledger::{Bucket, Entry, context, next_times, own_live};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "wit", world: "component" });

const BUCKET: &str = "payments";
/// The payment method that stands for an account without money.
const DECLINED_METHOD: &str = "pm_insufficient_funds";

struct Payments;
export!(Payments);

impl Guest for Payments {
    fn charge(
        order_id: String,
        payment_method: Option<String>,
        amount_cents: i64,
    ) -> Result<Charged, String> {
        if amount_cents < 0 {
            return Err(format!("amount is negative: {amount_cents} cents"));
        }
        if payment_method.as_deref() == Some(DECLINED_METHOD) {
            return Err(declined());
        }
        let payments = Bucket::<Payment>::open(BUCKET)?;
        let workflow_id = context::workflow_id();
        let previous = payments.get(&order_id)?;
        let times = next_times(previous.as_ref(), &workflow_id)
            .map_err(|run| format!("order {order_id} is already charged by run {run}"))?;

        // A real payment provider would get this key with the request, and so charge only once.
        let payment_id = context::idempotency_key();
        let payment = Payment {
            state: State::Charged,
            amount_cents,
            payment_id: payment_id.clone(),
            payment_method,
            workflow_id,
            times,
        };
        payments.set(&order_id, &payment)?;
        Ok(Charged { payment_id, amount_cents })
    }

    fn attempt(
        _order_id: String,
        _payment_method: Option<String>,
        _amount_cents: i64,
    ) -> Result<Charged, String> {
        Err(declined())
    }

    fn refund(order_id: String, payment_id: Option<String>) -> Result<bool, String> {
        let payments = Bucket::<Payment>::open(BUCKET)?;
        let Some(mut payment) = own_live(payments.get(&order_id)?, &context::workflow_id()) else {
            return Ok(false);
        };
        if let Some(asked) = payment_id
            && asked != payment.payment_id
        {
            return Err(format!(
                "order {order_id} was charged as payment {}, not {asked}",
                payment.payment_id
            ));
        }
        payment.state = State::Refunded;
        payments.set(&order_id, &payment)?;
        Ok(true)
    }
}

fn declined() -> String {
    "insufficient funds".to_owned()
}

/// An entry of the bucket `payments`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    state: State,
    amount_cents: i64,
    payment_id: String,
    payment_method: Option<String>,
    workflow_id: String,
    times: u32,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum State {
    Charged,
    Refunded,
}

impl Entry for Payment {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    fn is_live(&self) -> bool {
        self.state == State::Charged
    }
}
