//! The open sandboxes of a provider. It must never keep one open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sandbox_core::{Labels, Sandbox as _, SandboxId, SandboxInfo};

use super::LocalSandbox;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<SandboxId, Weak<LocalSandbox>>>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Weak<LocalSandbox>>> {
        // Every change of the map is a single call: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, id: SandboxId, sandbox: &Arc<LocalSandbox>) {
        self.lock().insert(id, Arc::downgrade(sandbox));
    }

    pub(super) fn leave(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    /// An open sandbox.
    pub(crate) fn find(&self, id: &SandboxId) -> Option<Arc<LocalSandbox>> {
        self.lock().get(id).and_then(Weak::upgrade)
    }

    /// The open sandboxes that have these labels, oldest first.
    pub(crate) fn list(&self, labels: &Labels) -> Vec<SandboxInfo> {
        // Collected first: the last handle of one may be dropped here, which needs the lock.
        let sandboxes: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let mut found: Vec<SandboxInfo> = sandboxes
            .iter()
            .map(|sandbox| sandbox.info())
            .filter(|info| labels.iter().all(|(k, v)| info.labels.get(k) == Some(v)))
            .collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        found
    }
}
