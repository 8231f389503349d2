//! A double of the Dagger engine: its wire protocol over loopback HTTP, its laziness, its quirks.
//!
//! Commands are run for real: the state of a container is a local sandbox, and running a command
//! in it is a fork of that sandbox and an exec in the fork. What the double does not know is an
//! error with the field's name, never a made-up answer.
//!
//! It must never be used to isolate anything: whatever has its token can read and write files of
//! the host with the rights of its process, as with the engine.

mod cache;
mod config;
mod container;
mod directory;
mod dockerfile;
mod engine;
mod eval;
mod fields;
mod host;
mod images;
mod introspection;
mod logs;
mod oci;
mod query;
mod quirks;
mod registry;
mod server;
mod service;
mod stat;
mod state;
mod steps;
mod trees;

use std::io;
use std::sync::Arc;

use engine::Engine;
pub use quirks::{Fault, LiveLogs, Quirks};

/// A running double. Dropping it stops it.
#[derive(Debug)]
pub struct DaggerDouble {
    engine: Arc<Engine>,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl DaggerDouble {
    /// Starts a double on a free port of loopback.
    ///
    /// # Errors
    /// No port, or no local sandboxes on this host.
    pub async fn start(quirks: Quirks) -> io::Result<Self> {
        let engine = Arc::new(Engine::new(quirks)?);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(server::serve(listener, engine.clone()));
        Ok(Self { engine, port, task })
    }

    /// The port on 127.0.0.1: `DAGGER_SESSION_PORT`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The session's token: `DAGGER_SESSION_TOKEN`.
    pub fn token(&self) -> String {
        self.engine.token()
    }

    /// Restarts the engine: ids name nothing any more, and there is a new session with another
    /// [`token`](Self::token). Clients of the old session wait for a while and get an error, as
    /// with an engine that was killed and started again.
    pub fn restart(&self) {
        self.engine.restart();
    }

    /// Changes the quirks from now on.
    pub fn set_quirks(&self, change: impl FnOnce(&mut Quirks)) {
        self.engine.set_quirks(change);
    }

    /// Lets this happen to the next request; faults queue up.
    pub fn inject(&self, fault: Fault) {
        self.engine.inject(fault);
    }

    /// Requires this login of this registry (`ghcr.io`, `localhost:5000`) from now on. The double's
    /// registries are in memory: what is published to them can be pulled from them.
    pub fn require_login(&self, registry: &str, user: &str, password: &str) {
        self.engine.registry.require(registry, user, password);
    }

    /// Says from now on that it is this version.
    pub fn set_version(&self, version: &str) {
        self.engine.set_version(version);
    }

    /// Forgets what ids name, as an engine does that prunes its cache; sessions go on.
    pub fn forget(&self) {
        self.engine.forget();
    }

    /// Number of connections that were made to it.
    pub fn connections(&self) -> u64 {
        self.engine.connections()
    }

    /// Depth of the deepest query so far, in fields.
    pub fn deepest(&self) -> usize {
        self.engine.deepest()
    }

    /// Number of queries that were carried out.
    pub fn queries(&self) -> u64 {
        self.engine.queries()
    }

    /// Number of the last 100 queries that have this text in them.
    pub fn queries_with(&self, text: &str) -> usize {
        self.engine.seen(text)
    }

    /// Number of commands that were started.
    pub fn executions(&self) -> u64 {
        self.engine.executions()
    }
}

impl Drop for DaggerDouble {
    fn drop(&mut self) {
        self.task.abort();
    }
}
