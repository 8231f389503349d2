//! An emulator of Azure Container Apps Sandboxes: test against the service without Azure.
//!
//! It speaks the data plane of sandbox groups over HTTP and HTTPS, keeps the service's state
//! machine, and runs commands for real, in sandboxes of `sandbox-local`. Official clients work
//! against it unchanged.
//!
//! Beside the service's own paths it has `/.emulator/…`, by which tests in any language turn its
//! clock, its [`SWITCHES`] and its faults; and the part of the management plane that makes and
//! deletes what the data planes work on.
//!
//! What differs from the service: the guest's user is not root, all images are this host's, a
//! snapshot has files and no memory (but for [`Options::inherited`]), a stopped sandbox keeps its
//! processes, a volume is mounted only when a sandbox is created, a port's URL is on the emulator's
//! own address, and an egress policy decides about the network only when a sandbox is created.
//!
//! It must never accept what the service refuses, and never run a command twice for one request.
//!
//! ```no_run
//! # async fn run() -> sandbox_core::Result<()> {
//! use std::time::Duration;
//! use sandbox_testkit::aca::{AcaEmulator, Action, Fault, Options};
//!
//! let emulator = AcaEmulator::start(Options::default()).await?;
//! emulator.change(|options| options.gateway = Duration::from_secs(2));
//! emulator.inject(Fault::new("/executeShellCommand", Action::DropAfter));
//! // … a client works with emulator.endpoint() and emulator.token() …
//! emulator.advance(Duration::from_secs(3600));
//! assert!(emulator.executions("pytest") <= 1);
//! # Ok(()) }
//! ```

mod admin;
mod arm;
mod auth;
mod call;
mod clock;
mod container;
mod data;
mod egress;
mod entra;
mod exec;
mod fault;
mod files;
mod forward;
mod ingress;
mod life;
mod log;
mod memory;
mod options;
mod policy;
mod ports;
mod registry;
mod reply;
mod resource;
mod route;
mod server;
mod sessions;
mod snapshots;
mod state;
mod stream;
mod switches;
mod volumes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Result;

pub use auth::PRINCIPAL;
pub use fault::{Action, Fault};
pub use options::{AutoDeleteFrom, Lists, Log, Options, Restore, RestoredEgress, RetryAfter};
pub use sessions::{FullAs, PoolKind, SessionPool};
pub use switches::{SWITCHES, Switch};

use state::State;

/// A running emulator. Dropping it stops the server; its sandboxes end with it.
#[derive(Debug)]
pub struct AcaEmulator {
    state: Arc<State>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    /// Server before the registry.
    front: Option<tokio::task::JoinHandle<()>>,
    /// The certificate's directory, if none was given.
    _certificates: Option<tempfile::TempDir>,
    ca: Option<PathBuf>,
}

impl AcaEmulator {
    /// Starts an emulator on the current runtime.
    ///
    /// # Errors
    /// If the address can't be bound or the certificate can't be made. On a host that can't make
    /// local sandboxes the first command fails.
    pub async fn start(options: Options) -> Result<Self> {
        server::start(options).await
    }

    /// Address of the data plane: `http://127.0.0.1:PORT` or the same with `https`.
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
        let options = self.state.options();
        let audience = options.audiences.first();
        self.token_for(audience.map_or("", String::as_str), 86_400)
    }

    /// A token for the management plane that is valid for a day.
    pub fn arm_token(&self) -> String {
        self.token_for("https://management.azure.com", 86_400)
    }

    /// Address at which a managed identity asks for tokens, as `IDENTITY_ENDPOINT` (any
    /// `IDENTITY_HEADER` will do).
    pub fn identity_endpoint(&self) -> String {
        format!("{}/msi/token", self.endpoint())
    }

    /// A token for this audience that expires after so many seconds (negative: it has expired).
    pub fn token_for(&self, audience: &str, seconds: i64) -> String {
        self.state.mint(audience, seconds)
    }

    /// A token of another principal than [`PRINCIPAL`], whom every other token is of.
    pub fn token_of(&self, principal: &str, audience: &str) -> String {
        self.state.mint_for(principal, audience, 86_400)
    }

    /// Address and port of the registry ([`Options::registry`]), as images are named by it.
    pub fn registry(&self) -> Option<String> {
        let registry = self.state.registry()?;
        Some(registry.address().to_string())
    }

    /// The directory of the registry's images and log.
    pub fn registry_dir(&self) -> Option<&Path> {
        self.state.registry().map(registry::Registry::dir)
    }

    /// Injects a fault; those that fit a request are taken in the order in which they were given.
    pub fn inject(&self, fault: Fault) {
        self.state.faults.push(fault);
    }

    /// Changes options while it runs: those in [`SWITCHES`] take effect with the next request.
    pub fn change(&self, how: impl FnOnce(&mut Options)) {
        self.state.change(how);
    }

    /// Lets so much time pass at once: tokens expire, idle sandboxes are suspended and deleted,
    /// idle sessions end, what takes its time is done.
    pub fn advance(&self, time: Duration) {
        self.state.clock.advance(time);
    }

    /// Number of commands run whose text has `needle` in it (of the last few thousand).
    pub fn executions(&self, needle: &str) -> usize {
        self.state.executions(needle)
    }

    /// Number of requests whose method and path have `needle` in them, such as `"PUT /"`.
    pub fn requests(&self, needle: &str) -> usize {
        self.state.requests(needle)
    }

    /// The requests whose method and path have `needle` in them, in the order in which they came.
    pub fn requested(&self, needle: &str) -> Vec<String> {
        self.state.requested(needle)
    }

    /// Numbers of requests of a sandbox for `/.emulator/outside/ID`: all, and those that its egress
    /// policy let pass. A process that goes on in a restore has the identifier in
    /// `EMULATED_SANDBOX`.
    pub fn outside(&self, id: &str) -> (usize, usize) {
        self.state.outside(id)
    }

    /// Numbers of sandboxes and of snapshots.
    pub fn counts(&self) -> (usize, usize) {
        self.state.counts()
    }

    /// Ends the server and everything that runs in it; the log of what was answered is written
    /// then.
    pub async fn close(self) {
        self.abort();
        self.state.close().await;
        log::written(&self.state.log).await;
    }

    fn abort(&self) {
        self.task.abort();
        if let Some(front) = &self.front {
            front.abort();
        }
    }

    /// Destroys a sandbox as if it had never been.
    pub async fn destroy(&self, id: &str) -> bool {
        self.state.forget(id).await
    }

    /// The identifiers of all dynamic sessions.
    pub async fn sessions(&self) -> Vec<String> {
        self.state.sessions.identifiers().await
    }

    /// Ends a dynamic session as if it had never been.
    pub async fn end_session(&self, identifier: &str) -> bool {
        self.state.sessions.delete(None, identifier).await
    }

    /// Adds a session pool, or changes one.
    pub fn put_pool(&self, pool: SessionPool) {
        self.state.sessions.put_pool(pool);
    }
}

impl Drop for AcaEmulator {
    fn drop(&mut self) {
        self.abort();
    }
}
