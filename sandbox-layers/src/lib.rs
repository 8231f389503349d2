//! Layers that need more than the core brings: audit, policy, metrics.
//!
//! All of them implement [`Around`](sandbox_core::layer::Around), so that they wrap a sandbox or a
//! provider, and what it forks and spawns comes out wrapped. From the outside in, the usual order
//! is tracing, [`Audit`], [`Metered`], [`Policy`], and then the layers of the core: an audit
//! outside of the policy records what the policy refuses.
//!
//! ```
//! use std::sync::Arc;
//! use sandbox_core::{Provider, SandboxExt, SandboxSpec};
//! use sandbox_core::layer::{Layer, Stack};
//! use sandbox_layers::{Audit, Metered, Policy};
//! use sandbox_testkit::model::ModelProvider;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! let audit = Audit::open(place.path().join("audit.jsonl"))?.tenant("acme");
//! let policy = Policy::new().deny_read("/workspace/secrets/**")?;
//! let stack = Stack::new().with(audit).with(Metered::new()).with(policy);
//! let provider = stack.layer_provider(Arc::new(ModelProvider::new()));
//! let sandbox = provider.create(SandboxSpec::new()).await?;
//! assert!(sandbox.read("secrets/key").await.is_err());
//! # Ok(()) }
//! ```
//!
//! Architecture invariants: no layer records content, the value of a variable or, unless it is
//! asked for, an argument; `close` and `destroy` always reach the backend.

mod audit;
mod metered;
mod policy;

pub use audit::{Audit, AuditHead, OnFailure, verify};
pub use metered::Metered;
pub use policy::{Approver, Policy, Question, Refused, Verdict};
