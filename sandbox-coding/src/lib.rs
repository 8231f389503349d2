//! Coding agents in sandboxes, over [`Sessions`](sandbox_sessions::Sessions).
//!
//! [`Environments`] makes an environment for each task: a session whose sandbox has the repository at
//! `/workspace` on a branch of its own. An agent is spawned in it ([`Environments::spawn_agent`]);
//! what it did comes back as a branch or a patch. How an agent is installed, started and understood
//! is a [`Preset`], which is data.
//!
//! ```
//! use std::sync::Arc;
//! use sandbox_coding::{EnvironmentRequest, Environments, Presets};
//! use sandbox_sessions::{Sessions, SessionsConfig, Tenant};
//! use sandbox_testkit::model::{MockOutcome, ModelProvider};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In an application: `sandbox::connect("local:")` instead of the mock, and "claude".
//! let mock = ModelProvider::builder().on_program("greet", [MockOutcome::exit(0).stdout("hello\n")]);
//! let sessions = Sessions::open(Arc::new(mock.build()), SessionsConfig::new()).await?;
//! let presets = Presets::builtin()?.with("greet", "title = 'Greeter'\ncommand = ['greet']")?;
//! let environments = Environments::new(sessions, presets);
//!
//! let tenant = Tenant::new("acme")?;
//! let environment = environments.create_environment(&tenant, EnvironmentRequest::new("greet")).await?;
//! let mut run = environments.spawn_agent(&tenant, environment.id(), "say hello").await?;
//! while let Some(line) = run.next_line().await? {
//!     assert_eq!(line.text, "hello");
//! }
//! assert!(run.wait().await?.status.success());
//! environments.destroy_environment(&tenant, environment.id()).await?;
//! # Ok(()) }
//! ```
//!
//! Architecture invariants: the key of a model never enters a sandbox; no name that a caller or a
//! guest gives becomes a part of a command line or of a path of the host without a check; the host's
//! repository is read to make an environment, and written only by
//! [`Environment::save_branch`], which adds objects and one branch.

mod environment;
mod error;
mod preset;
mod repository;
mod run;
mod setup;
mod stream;

pub use environment::{Environment, EnvironmentRequest, Environments, ModelAccess};
pub use error::{Error, ErrorKind, Result};
pub use preset::{ModelHost, Preset, Presets};
pub use repository::{Repository, SavedBranch};
pub use run::{AgentExit, AgentLine, AgentRun};
pub use stream::StreamRule;
