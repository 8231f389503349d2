//! Directories between host and guest, as tar archives.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone.

mod export;
mod import;

pub(crate) use export::export;
pub(crate) use import::import;
