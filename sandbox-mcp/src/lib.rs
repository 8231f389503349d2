//! A server of the Model Context Protocol that gives an agent sandboxes.
//!
//! [`Server`] serves [`Sessions`](sandbox_sessions::Sessions) over stdio or streamable HTTP. A sandbox
//! is named by a handle in the arguments of each call, never by the connection, so that a client may
//! reconnect and both eras of the protocol work the same.
//!
//! ```
//! use std::sync::Arc;
//! use sandbox_mcp::{Server, ServerOptions};
//! use sandbox_sessions::{Sessions, SessionsConfig};
//! use sandbox_testkit::model::ModelProvider;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sessions = Sessions::open(Arc::new(ModelProvider::new()), SessionsConfig::new()).await?;
//! let server = Server::new(sessions, ServerOptions::new().export_root("/srv/out"))?;
//! # let _ = server;
//! // server.serve_stdio().await?;
//! # Ok(()) }
//! ```
//!
//! Each call of a tool is a `tracing` span `tools/call` with the tool's name, and what the layers of
//! the provider say of it lies below. With the feature `opentelemetry` the `traceparent` in a request's
//! `_meta` is the span's parent, where the application's subscriber has the layer of
//! `tracing-opentelemetry`.
//!
//! Architecture invariants: a result says in fields, not in prose, whether a command ran and what was
//! cut; the host's files are reached only below roots that the operator named; a cancelled call kills
//! what it ran.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod arguments;
mod export;
mod find;
mod http;
mod opening;
mod options;
mod outputs;
mod results;
mod server;
mod shared;
mod tools;
mod trace;
mod turns;

pub use http::HttpOptions;
pub use options::ServerOptions;
pub use server::Server;

/// The guide's program, compiled as a documentation test.
#[cfg(all(doctest, target_os = "linux"))]
#[doc = include_str!("../../docs/guides/mcp.md")]
mod guide {}
