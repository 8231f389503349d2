//! The session with an engine: how one is had, the pooled connection to it, and what is sent.
//!
//! It must never know what a sandbox is: here are connections, queries and their failures.

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod failure;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod nonce;
pub(crate) mod prepared;
pub(crate) mod query;
pub(crate) mod secrets;
