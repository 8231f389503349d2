//! The open sandboxes of one provider.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use sandbox_core::SandboxId;

/// Open sandboxes by their identifiers. They live as long as their handles.
#[derive(Debug)]
pub(crate) struct Registry<T>(Mutex<HashMap<SandboxId, Weak<T>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Registry<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Weak<T>>> {
        // Entries are added and removed whole: a panic elsewhere leaves them valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a sandbox.
    pub(crate) fn enter(&self, id: SandboxId, sandbox: &Arc<T>) {
        let mut open = self.lock();
        open.retain(|_, sandbox| sandbox.strong_count() > 0);
        open.insert(id, Arc::downgrade(sandbox));
    }

    /// Removes a sandbox.
    pub(crate) fn leave(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    /// The open sandbox with this identifier.
    pub(crate) fn find(&self, id: &SandboxId) -> Option<Arc<T>> {
        self.lock().get(id).and_then(Weak::upgrade)
    }

    /// All open sandboxes.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }
}
