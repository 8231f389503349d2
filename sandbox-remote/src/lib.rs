//! Any sandbox over HTTP: a server for every backend, and a client that is one.
//!
//! [`Server`] serves a provider, or one sandbox, to its owner, on loopback or a Unix socket, or
//! behind a proxy that has TLS. [`RemoteProvider`] is a [`Provider`](sandbox_core::Provider) whose
//! sandboxes are there: the conformance kit passes through the pair.
//!
//! A call has a name that the client chooses. An answer that is lost is asked for again, and the
//! call is found, not run twice; output is resumed by its offset, so that none is lost or repeated.
//! A client that is gone for longer than the server's grace finds its commands ended.
//!
//! It must never trust the peer: the server does not read a request before its caller is admitted,
//! the client believes no archive, frame or length.
//!
//! | | Feature |
//! |---|---|
//! | `RemoteProvider`, `RemoteConfig`, `TokenSource` | `client` (default) |
//! | `Server`, `ServerConfig`, `Access`, `Listener` | `server` (default) |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod runtime;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "client", feature = "server"))]
#[cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(dead_code, reason = "each side uses its half of the protocol")
)]
mod wire;

#[cfg(feature = "client")]
pub use client::{RemoteConfig, RemoteProvider, TokenFile, TokenSource};
#[cfg(feature = "server")]
pub use server::{Access, Caller, Listener, SameUser, Server, ServerConfig, Serving, TokenAccess};
