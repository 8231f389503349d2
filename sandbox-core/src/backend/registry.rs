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
pub struct Registry<T>(Mutex<Open<T>>);

#[derive(Debug)]
struct Open<T> {
    by_id: HashMap<SandboxId, Weak<T>>,
    /// Number of entries at which those without a handle are looked for next.
    full: usize,
}

/// Number of entries below which none is looked for.
const FEW: usize = 64;

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::new(Open {
            by_id: HashMap::new(),
            full: FEW,
        }))
    }
}

impl<T> Registry<T> {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Open<T>> {
        // Entries are added and removed whole: a panic elsewhere leaves them valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a sandbox. Entries of those whose last handle was dropped are removed each time that the
    /// number of entries has doubled: a look at all of them for each new one would make many live
    /// sandboxes slow to create.
    pub fn insert(&self, id: SandboxId, sandbox: &Arc<T>) {
        let mut open = self.lock();
        if open.by_id.len() >= open.full {
            open.by_id.retain(|_, sandbox| sandbox.strong_count() > 0);
            open.full = FEW.max(2 * open.by_id.len());
        }
        open.by_id.insert(id, Arc::downgrade(sandbox));
    }

    /// Removes a sandbox: it was closed.
    pub fn remove(&self, id: &SandboxId) {
        self.lock().by_id.remove(id);
    }

    /// The open sandbox with this identifier.
    pub fn get(&self, id: &SandboxId) -> Option<Arc<T>> {
        self.lock().by_id.get(id).and_then(Weak::upgrade)
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
        let open = self.lock();
        open.by_id.values().filter_map(Weak::upgrade).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_without_a_handle_do_not_pile_up() {
        let registry = Registry::new();
        let held: Vec<Arc<u32>> = (0..100).map(Arc::new).collect();
        for number in &held {
            registry.insert(SandboxId::new(format!("held{number}")), number);
        }
        for number in 0..10_000_u32 {
            registry.insert(SandboxId::new(format!("s{number}")), &Arc::new(number));
        }
        assert!(registry.lock().by_id.len() <= 2 * held.len());
        assert_eq!(registry.all().len(), held.len());
        assert!(registry.get(&SandboxId::new("held7")).is_some());
        assert!(registry.get(&SandboxId::new("s7")).is_none());
    }
}
