//! The operations of a sandbox, carried out in a guest by shell scripts.
//!
//! They are the same for every service that has a shell and files ([`transport`]). They must never
//! know which service that is, and never trust what the guest says beyond its form.

pub(crate) mod batch;
pub(crate) mod close;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod file_stream;
pub(crate) mod files;
pub(crate) mod handle;
pub(crate) mod import;
pub(crate) mod keep_alive;
pub(crate) mod launch;
pub(crate) mod sandbox;
pub(crate) mod script;
pub(crate) mod transport;
pub(crate) mod upload;
