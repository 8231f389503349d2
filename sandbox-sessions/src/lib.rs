//! Sandboxes kept for tenants under keys, over any [`Provider`](sandbox_core::Provider).
//!
//! [`Sessions`] creates a sandbox for a tenant's key or gives back the one that is there, bounds
//! how many there are, closes what is not used, keeps unused ones ready, and finds again what a
//! process before it left.
//!
//! ```
//! use std::sync::Arc;
//! use sandbox_core::{SandboxExt, SandboxSpec};
//! use sandbox_sessions::{Sessions, SessionsConfig, Status};
//! use sandbox_testkit::model::ModelProvider;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sessions = Sessions::open(Arc::new(ModelProvider::new()), SessionsConfig::new()).await?;
//! let session = sessions.get_or_create("acme", "build", SandboxSpec::new()).await?;
//! session.sandbox().write("notes.txt", "one\n").await?;
//!
//! let again = sessions.get_or_create("acme", "build", SandboxSpec::new()).await?;
//! assert_eq!(again.id(), session.id());
//! assert_eq!(again.sandbox().read("notes.txt").await?, "one\n");
//! assert_eq!(again.status(), Status::Ready);
//! # Ok(()) }
//! ```
//!
//! # What outlives the process
//!
//! With a [journal](SessionsConfig::journal), every sandbox is written down before it is asked for
//! and once more when it is there. The next [`Sessions::open`] on the same directory takes up what
//! the backend still has ([`Capability::Attach`](sandbox_core::Capability::Attach)), destroys what
//! was half made, and reports what is gone. The sandboxes of `local:` die with their process, so
//! that there the journal can only name them.
//!
//! Architecture invariants: a tenant never gets another tenant's sandbox; a place in the limits is
//! held exactly as long as its sandbox exists; nothing is destroyed that the journal does not name
//! or the owner's label does not mark.

mod activity;
mod clock;
mod error;
mod fingerprint;
mod journal;
mod manager;
mod name;
mod options;
mod queue;
mod status;

pub use clock::{Clock, ClockHand};
pub use error::{Error, ErrorKind, Expired, Full, Result, Scope, Why};
pub use manager::{
    Filter, Opened, Session, SessionInfo, Sessions, ShutdownOptions, ShutdownReport, Stats, Watch,
};
pub use name::{Key, SessionId, Tenant};
pub use options::{Limits, OnIdle, Pool, SessionOptions, SessionsConfig, Wait};
pub use status::Status;
