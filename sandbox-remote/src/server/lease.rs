//! Whether a client still cares for something: it asks now, or asked a moment ago.
//!
//! Invariant: nothing that a client started outlives its interest for longer than the grace.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts who holds it, and remembers when it was last held.
#[derive(Debug)]
pub(super) struct Lease {
    holders: AtomicUsize,
    last: Mutex<Instant>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            holders: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
        }
    }
}

impl Lease {
    /// Holds it until the guard is dropped.
    pub(super) fn hold<T: AsRef<Lease>>(owner: T) -> Held<T> {
        owner.as_ref().holders.fetch_add(1, Ordering::SeqCst);
        Held(owner)
    }

    /// Whether nothing holds it and nothing has for this long.
    pub(super) fn is_over(&self, grace: Duration) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.holders.load(Ordering::SeqCst) == 0 && last.elapsed() > grace
    }
}

/// A lease that is held.
#[derive(Debug)]
pub(super) struct Held<T: AsRef<Lease>>(T);

impl<T: AsRef<Lease>> Drop for Held<T> {
    fn drop(&mut self) {
        let lease = self.0.as_ref();
        *lease.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        lease.holders.fetch_sub(1, Ordering::SeqCst);
    }
}
