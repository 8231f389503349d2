//! An emulator of Azure Container Apps Sandboxes: test against the service without Azure.
//!
//! It speaks the data plane of sandbox groups over HTTP and HTTPS, keeps the service's state
//! machine, and runs commands for real, in sandboxes of `sandbox-local`. Official clients work
//! against it unchanged.
//!
//! What differs from the service: the guest's user is not root, a snapshot has files and no memory,
//! a stopped sandbox keeps its processes, and an egress policy decides about the network only when
//! a sandbox is created.
//!
//! It must never accept what the service refuses, and never run a command twice for one request.

mod auth;
mod data;
mod exec;
mod fault;
mod files;
mod group;
mod options;
mod policy;
mod reply;
mod route;
mod server;
mod state;
mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox_core::Result;

pub use fault::{Action, Fault};
pub use options::Options;

use state::State;

/// A running emulator. Dropping it stops the server; its sandboxes end with it.
#[derive(Debug)]
pub struct AcaEmulator {
    state: Arc<State>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    /// The certificate's directory, if nobody said where it should be.
    _certificates: Option<tempfile::TempDir>,
    ca: Option<PathBuf>,
}

impl AcaEmulator {
    /// Starts an emulator on the current runtime.
    ///
    /// # Errors
    /// If the address can't be bound, the certificate can't be made, or this host can't make local
    /// sandboxes.
    pub async fn start(options: Options) -> Result<Self> {
        server::start(options).await
    }

    /// Where its data plane is: `http://127.0.0.1:PORT` or the same with `https`.
    pub fn endpoint(&self) -> String {
        self.state.endpoint()
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that signed the server's, as PEM, if it speaks TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// A token for the data plane that is valid for a day.
    pub fn token(&self) -> String {
        let audience = self.state.options.audiences.first();
        self.token_for(audience.map_or("", String::as_str), 86_400)
    }

    /// A token for this audience that expires after so many seconds (negative: it has expired).
    pub fn token_for(&self, audience: &str, seconds: i64) -> String {
        self.state.mint(audience, seconds)
    }

    /// Injects a fault; those that fit a request are taken in the order in which they were given.
    pub fn inject(&self, fault: Fault) {
        self.state.faults.push(fault);
    }

    /// How many commands were run whose text has `needle` in it (of the last few thousand).
    pub fn executions(&self, needle: &str) -> usize {
        self.state.executions(needle)
    }

    /// How many requests came whose method and path have `needle` in them, such as `"PUT /"`.
    pub fn requests(&self, needle: &str) -> usize {
        self.state.requests(needle)
    }

    /// How many sandboxes and snapshots there are.
    pub fn counts(&self) -> (usize, usize) {
        self.state.counts()
    }

    /// Destroys a sandbox as if it had never been.
    pub async fn destroy(&self, id: &str) -> bool {
        self.state.forget(id).await
    }
}

impl Drop for AcaEmulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
