//! Containers that sandboxes of a session began with: the next that begins the same needs no command.
//!
//! Invariant: they are few, and each was made from the container, the user and the workdir of its key.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbox_core::{Env, GuestPath};

/// The container, the user and the workdir.
type Key = (String, String, GuestPath);
/// The container with its workdir, and its environment.
type Made = (String, Env);

/// Number of them that are kept.
const MOST: usize = 64;

/// Containers by what they were made from.
#[derive(Debug, Default)]
pub(crate) struct Prepared(Mutex<HashMap<Key, Made>>);

impl Prepared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Made>> {
        // Entries are added whole: a panic elsewhere leaves them valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was made from this.
    pub(crate) fn get(&self, key: &Key) -> Option<Made> {
        self.lock().get(key).cloned()
    }

    /// Keeps one; all others go if they are too many.
    pub(crate) fn keep(&self, key: Key, made: Made) {
        let mut all = self.lock();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, made);
    }
}
