//! The common code of the step components: JSON entries in buckets, and the rules for which run may write them.
//!
//! A component stores its effects as the host's key-value data. The host commits the writes of a call together with the
//! event that its step completed, and drops them if the step fails. So a component need not ask whether it has acted
//! already. It acts and writes the entry, and each entry records its run and how often that run wrote it. Any number
//! other than one is a bug of the host, which the tests look for.
//!
//! The crate also owns the bindings to the host (`aster:step/imports`), so that a component which uses it declares only
//! its exports.

mod bucket;
mod entry;
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "aster:step/imports", generate_all });
}

pub use bindings::aster::step::context;
pub use bucket::{Bucket, Counts};
pub use entry::{Entry, next_times, own_live};
