//! The parts of a host that its edges (REST, command line) work with.

use std::sync::Arc;

use aster_runner::Measures;

use crate::operate::Operator;
use crate::registry::Registry;
use crate::store::Store;
use crate::submit::Submitter;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    pub store: Store,
    pub registry: Registry,
    pub submitter: Submitter,
    pub operator: Operator,
    /// The runner's measures.
    pub measures: Arc<Measures>,
}
