//! The contents of this component's buckets.

use ledger::Entry;
use serde::{Deserialize, Serialize};

/// Product id to the pieces in stock, as decimal text.
pub(crate) const STOCK: &str = "stock";
/// Order id to [`Reserved`].
pub(crate) const RESERVATIONS: &str = "reservations";
/// Request id to [`Delivery`].
pub(crate) const DELIVERIES: &str = "deliveries";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reserved {
    pub(crate) state: State,
    pub(crate) items: Vec<Line>,
    pub(crate) workflow_id: String,
    pub(crate) times: u32,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    Reserved,
    Released,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    pub(crate) items: Vec<Line>,
    pub(crate) workflow_id: String,
    pub(crate) times: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) product_id: String,
    pub(crate) quantity: i32,
}

impl Entry for Reserved {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    fn is_live(&self) -> bool {
        self.state == State::Reserved
    }
}

impl Entry for Delivery {
    fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
    fn times(&self) -> u32 {
        self.times
    }
    /// A delivery can't be undone.
    fn is_live(&self) -> bool {
        true
    }
}
