//! The orders that people give for a run: cancel it, or retry, skip or settle a compensation.

use serde::{Deserialize, Serialize};

use crate::event::{Author, Cause, Event, Failure, FailureCode};
use crate::plan::StepName;
use crate::saga::{self, Refused};
use crate::state::{Progress, RunState, Status, Undo};

/// An order from outside. It is stored until it is carried out, so fields are only added, with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub what: What,
    #[serde(flatten)]
    pub author: Author,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Fail the run now and undo its steps, as a timeout does.
    Cancel,
    /// Try the compensation of this step again at once, with a new budget of attempts.
    Retry {
        step: StepName,
        /// The release whose components are called. `None` means the one that the run pinned.
        #[serde(default)]
        release: Option<i64>,
    },
    /// Drop the compensation of this step. The effects of the step stay.
    Skip { step: StepName },
    /// Record that the compensation of this step was done by hand.
    Settle { step: StepName },
}

/// The version that this code writes into every stored order as `v`.
pub const ORDER_FORMAT: u32 = 1;

impl Order {
    /// Returns the JSON text to store, which begins with the version.
    pub fn content(&self) -> String {
        #[derive(Serialize)]
        struct Stored<'o> {
            v: u32,
            #[serde(flatten)]
            order: &'o Order,
        }
        serde_json::to_string(&Stored { v: ORDER_FORMAT, order: self })
            .expect("orders hold texts and numbers only")
    }

    /// Reads what [`Order::content`] wrote.
    ///
    /// # Errors
    /// The text is not an order: a newer host wrote it, or it is damaged.
    pub fn parse(content: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(content)
    }
}

/// Checks whether `order` could be carried out now, for a caller that asks before it orders.
///
/// # Errors
/// The order makes no sense for the run as it stands.
pub fn check(state: &RunState, order: &Order) -> Result<(), Refused> {
    obey(state, order.clone()).map(drop)
}

/// Returns the first events of an order. There are none if the order changes nothing.
///
/// # Errors
/// The order makes no sense for the run as it stands.
pub(crate) fn obey(state: &RunState, order: Order) -> Result<Vec<Event>, Refused> {
    let Order { what, author } = order;
    if author.order_id.is_some_and(|id| state.orders.contains(&id)) {
        return Ok(Vec::new());
    }
    let first = match what {
        What::Cancel if state.status.is_over() => return Err(Refused::Over(state.status)),
        // The run is already being undone.
        What::Cancel if state.failed.is_some() => return Ok(Vec::new()),
        What::Cancel => {
            let cancelled = Failure::new(FailureCode::Cancelled, "cancelled");
            return Ok(saga::fail(state, Cause::Cancel, None, cancelled, author));
        }
        What::Retry { step, release } => {
            let undo = undoing(state, &step)?;
            match undo.progress {
                Progress::Failed(_) | Progress::Waiting { .. } => {
                    Event::OperatorRetried { next_attempt: undo.attempts + 1, step, release, author }
                }
                _ => return Err(Refused::Already { state: undo.state_name(), step }),
            }
        }
        What::Skip { step } => {
            unsettled(state, &step)?;
            Event::OperatorSkipped { step, author }
        }
        What::Settle { step } => {
            unsettled(state, &step)?;
            Event::OperatorSettled { step, author }
        }
    };
    Ok(vec![first])
}

fn undoing<'s>(state: &'s RunState, step: &StepName) -> Result<&'s Undo, Refused> {
    if !matches!(state.status, Status::Compensating | Status::CompensationFailed) {
        return Err(Refused::NotUndoing(state.status));
    }
    state.undo(step).ok_or_else(|| Refused::NothingToUndo(step.clone()))
}

/// Checks that the compensation is not over. A skip or settle interrupts one that is in flight.
fn unsettled(state: &RunState, step: &StepName) -> Result<(), Refused> {
    let undo = undoing(state, step)?;
    match undo.progress {
        Progress::Completed | Progress::Skipped | Progress::Settled => {
            Err(Refused::Already { step: step.clone(), state: undo.state_name() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_orders_read_back_as_they_were() {
        let check = |what: What, content: &str| {
            let author = Author { by: Some("ops".into()), reason: None, order_id: None };
            let order = Order { what, author };
            assert_eq!(order.content(), content);
            assert_eq!(Order::parse(content).unwrap(), order);
        };
        check(What::Cancel, r#"{"v":1,"what":"cancel","by":"ops"}"#);
        check(
            What::Retry { step: "pay".into(), release: Some(3) },
            r#"{"v":1,"what":{"retry":{"step":"pay","release":3}},"by":"ops"}"#,
        );
        check(What::Skip { step: "pay".into() }, r#"{"v":1,"what":{"skip":{"step":"pay"}},"by":"ops"}"#);
        check(What::Settle { step: "pay".into() }, r#"{"v":1,"what":{"settle":{"step":"pay"}},"by":"ops"}"#);
    }
}
