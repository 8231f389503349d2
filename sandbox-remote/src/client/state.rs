//! An open sandbox behind a server: what all its handles and processes share.
//!
//! Invariant: `Drop` never blocks; what it can't tell the server, the server's own times end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::Method;
use sandbox_core::backend::require_time;
use sandbox_core::{
    Capabilities, Capability, Error, Execution, GuestPath, Operation, Result, SandboxId,
    SandboxInfo,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::http::Http;
use crate::wire;

/// State that all handles and processes of a sandbox share.
#[derive(Debug)]
pub(super) struct SandboxState {
    pub(super) http: Arc<Http>,
    pub(super) id: SandboxId,
    info: Mutex<SandboxInfo>,
    pub(super) capabilities: Capabilities,
    pub(super) closed: AtomicBool,
    ending: Ending,
}

/// End of a sandbox with its last handle.
#[derive(Debug)]
enum Ending {
    /// Nothing: it lives on.
    Kept,
    Closed,
    /// Stopped by its server: it lasts.
    Released,
}

impl SandboxState {
    pub(super) fn new(http: &Arc<Http>, handle: wire::Handle, keep: bool) -> Self {
        let ending = match (handle.info.lasting, keep) {
            (true, _) if !http.keeps() => Ending::Released,
            (false, false) => Ending::Closed,
            _ => Ending::Kept,
        };
        Self {
            http: Arc::clone(http),
            id: handle.info.id.clone(),
            info: Mutex::new(handle.info),
            capabilities: handle.capabilities.into(),
            closed: AtomicBool::new(false),
            ending,
        }
    }

    pub(super) fn info(&self) -> MutexGuard<'_, SandboxInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the sandbox to an error that names none.
    pub(super) fn named(&self, error: Error) -> Error {
        match error.sandbox() {
            Some(_) => error,
            None => error.with_sandbox(self.id.clone()),
        }
    }

    /// Adds the sandbox and the path to an error that names none.
    pub(super) fn named_at(&self, path: &GuestPath, error: Error) -> Error {
        let error = self.named(error);
        match (error.path(), error.host_path()) {
            (None, None) => error.with_path(path),
            _ => error,
        }
    }

    /// The path of a call on this sandbox.
    pub(super) fn path<'a>(&'a self, what: &'a str) -> [&'a str; 4] {
        ["v1", "sandboxes", self.id.as_str(), what]
    }

    pub(super) fn open(&self, operation: Operation) -> Result<()> {
        let refusal = match require_time(operation) {
            Ok(()) if !self.closed.load(Ordering::SeqCst) => return Ok(()),
            Ok(()) => Error::closed(operation, &self.id),
            Err(error) => error,
        };
        Err(match operation {
            Operation::Exec | Operation::Spawn | Operation::StartJob => {
                refusal.with_execution(Execution::NotStarted)
            }
            _ => refusal,
        })
    }

    pub(super) fn require(&self, capability: Capability, operation: Operation) -> Result<()> {
        let required = self.capabilities.require(capability, operation);
        required.map_err(|error| self.named(error))
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        body: &impl Serialize,
    ) -> Result<T> {
        let called = async { self.http.call(call.json(body)?).await };
        let called = called.await;
        called.map_err(|error| self.named(error))
    }

    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        operation: Operation,
        what: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.open(operation)?;
        let call = Call::named(operation, &self.path(what));
        self.call(call, body).await
    }

    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        operation: Operation,
        what: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.open(operation)?;
        let call = Call::read(operation, Method::POST, &self.path(what));
        self.call(call, body).await
    }
}

impl Drop for SandboxState {
    fn drop(&mut self) {
        let what = match self.ending {
            _ if *self.closed.get_mut() => return,
            Ending::Kept => return,
            Ending::Closed => "close",
            Ending::Released => "release",
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (http, id) = (Arc::clone(&self.http), self.id.clone());
        let told = http.leaving.note(&id);
        runtime.spawn(async move {
            // What can't be told ends after the server's idle time.
            let _ = end(&http, &id, what).await;
            drop(told);
        });
    }
}

/// Closes a sandbox at its server.
pub(super) async fn close(http: &Arc<Http>, id: &SandboxId) -> Result<()> {
    end(http, id, "close").await
}

async fn end(http: &Arc<Http>, id: &SandboxId, what: &str) -> Result<()> {
    let path = ["v1", "sandboxes", id.as_str(), what];
    let call = Call::named(Operation::Close, &path).unstoppable();
    let wire::Nothing {} = http.call(call).await?;
    Ok(())
}
