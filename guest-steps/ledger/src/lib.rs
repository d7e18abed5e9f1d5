//! What the step components share: JSON entries in buckets, and the rule of who may write them.
//!
//! A component keeps its effects in the host's key-value interface. The host commits what a call has written together with the
//! event that its step completed, and drops it if the step fails. So a component needs no "did I do this already?":
//! it acts, writes the entry, and each entry says whose it is and how often that run wrote it. Anything but once is a fault of
//! the host, which the tests look for.
//!
//! The crate also owns the bindings to the host (`aster:step/imports`), so that a component which uses it only declares its
//! exports.

mod bucket;
mod entry;
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "aster:step/imports", generate_all });
}

pub use bindings::aster::step::context;
pub use bucket::{Bucket, Counts};
pub use entry::{Entry, next_times, own_live};
