//! The open sandboxes of one provider.
//!
//! It must never keep a sandbox alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::{Error, ErrorKind, Labels, Operation, Result, Sandbox, SandboxId, SandboxInfo};

/// The open sandboxes of a provider by their identifiers. They live as long as their handles.
///
/// ```
/// use sandbox_core::{Labels, Operation, Result, SandboxId, SandboxInfo, backend::Registry};
/// # use sandbox_core::Sandbox;
/// # fn provider<ToySandbox: Sandbox>() -> Result<()> {
/// let registry: Registry<ToySandbox> = Registry::new();
/// let found = registry.find(&SandboxId::new("s1"), Operation::Attach);
/// assert!(found.is_err());
/// let open: Vec<SandboxInfo> = registry.list(&Labels::new());
/// assert!(open.is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Registry<T>(Mutex<HashMap<SandboxId, Weak<T>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Registry<T> {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Weak<T>>> {
        // Entries are added and removed whole: a panic elsewhere leaves them valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a sandbox, and removes those whose last handle was dropped.
    pub fn insert(&self, id: SandboxId, sandbox: &Arc<T>) {
        let mut open = self.lock();
        open.retain(|_, sandbox| sandbox.strong_count() > 0);
        open.insert(id, Arc::downgrade(sandbox));
    }

    /// Removes a sandbox: it was closed.
    pub fn remove(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    /// The open sandbox with this identifier.
    pub fn get(&self, id: &SandboxId) -> Option<Arc<T>> {
        self.lock().get(id).and_then(Weak::upgrade)
    }

    /// The open sandbox with this identifier, for `attach` and `destroy`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the sandbox.
    pub fn find(&self, id: &SandboxId, operation: Operation) -> Result<Arc<T>> {
        self.get(id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation)
                .with_message("this provider has no such open sandbox")
                .with_sandbox(id.clone())
        })
    }

    /// All open sandboxes, in no order.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }
}

impl<T: Sandbox> Registry<T> {
    /// The open sandboxes that have all of these labels, oldest first: what
    /// [`Provider::list`](crate::Provider::list) returns.
    pub fn list(&self, labels: &Labels) -> Vec<SandboxInfo> {
        let mut found: Vec<SandboxInfo> = self
            .all()
            .iter()
            .map(|sandbox| sandbox.info())
            .filter(|info| labels.iter().all(|(k, v)| info.labels.get(k) == Some(v)))
            .collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        found
    }
}
