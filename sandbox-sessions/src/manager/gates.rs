//! One step at a time for each name: creating, resuming and ending a session exclude each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::name::Name;

type Lock = tokio::sync::Mutex<()>;

/// The locks of the names that are in use.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<Name, Weak<Lock>>>);

/// The right to change the session of one name; given back when dropped.
#[derive(Debug)]
pub(super) struct Gate {
    gates: Arc<Gates>,
    name: Name,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Gates {
    fn lock_map(&self) -> MutexGuard<'_, HashMap<Name, Weak<Lock>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_of(&self, name: &Name) -> Arc<Lock> {
        let mut map = self.lock_map();
        match map.get(name).and_then(Weak::upgrade) {
            Some(lock) => lock,
            None => {
                let lock = Arc::new(Lock::new(()));
                map.insert(name.clone(), Arc::downgrade(&lock));
                lock
            }
        }
    }

    fn gate(self: &Arc<Self>, name: &Name, guard: OwnedMutexGuard<()>) -> Gate {
        Gate {
            gates: self.clone(),
            name: name.clone(),
            guard: Some(guard),
        }
    }

    /// Waits for the right to change this name's session. Dropping the future gives up.
    pub(super) async fn enter(self: &Arc<Self>, name: &Name) -> Gate {
        let guard = self.lock_of(name).lock_owned().await;
        self.gate(name, guard)
    }

    /// The right to change this name's session, if no other has it or waits for it.
    pub(super) fn try_enter(self: &Arc<Self>, name: &Name) -> Option<Gate> {
        let guard = self.lock_of(name).try_lock_owned().ok()?;
        Some(self.gate(name, guard))
    }

    /// Forgets locks that callers left behind which went away while they waited.
    pub(super) fn tidy(&self) {
        self.lock_map().retain(|_, lock| lock.strong_count() > 0);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.guard = None;
        let mut map = self.gates.lock_map();
        if map
            .get(&self.name)
            .is_some_and(|lock| lock.strong_count() == 0)
        {
            map.remove(&self.name);
        }
    }
}
