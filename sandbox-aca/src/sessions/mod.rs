//! Dynamic sessions as sandboxes: Python and Shell pools.
//!
//! The whole trait is carried over executions and files of a session; see
//! [`AcaSessionProvider`]. An identifier is the only thing that keeps a session from others: it
//! must never be shown.

mod capability;
mod client;
mod code;
mod config;
mod driver;
mod fork;
mod identifier;
mod provider;
mod sandbox;
mod shared;
mod transport;

#[cfg(test)]
pub(crate) use client::form;
pub use code::{CodeOptions, CodeOutput, CodeStatus};
pub use config::{AcaSessionConfig, SessionKind};
pub use provider::AcaSessionProvider;
pub use sandbox::AcaSession;
