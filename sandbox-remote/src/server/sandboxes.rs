//! The sandboxes that a server holds for its owner.
//!
//! Invariant: one that nothing uses is closed in the end; a closed one is told apart from one that
//! never was.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox_core::Sandbox;
use tokio::sync::OwnedSemaphorePermit;

use super::lease::{Held, Lease};

/// Number of identifiers of closed sandboxes that are remembered.
const CLOSED: usize = 10_000;

/// An open sandbox.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) sandbox: Arc<dyn Sandbox>,
    lease: Lease,
    /// Place among the sandboxes that the server may hold; the server's own has none, and is
    /// never closed for want of use.
    place: Option<OwnedSemaphorePermit>,
    /// Number of handles that clients have, as far as they say: of one that lasts, the last lets go of
    /// it.
    handles: AtomicUsize,
}

impl AsRef<Lease> for Arc<Open> {
    fn as_ref(&self) -> &Lease {
        &self.lease
    }
}

/// Meaning of an identifier.
pub(super) enum Known {
    Open(Held<Arc<Open>>, Arc<dyn Sandbox>),
    Closed,
    Unknown,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sandboxes(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    open: HashMap<String, Arc<Open>>,
    closed: VecDeque<String>,
}

impl Sandboxes {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, sandbox: Arc<dyn Sandbox>, place: Option<OwnedSemaphorePermit>) {
        let id = sandbox.info().id.as_str().to_owned();
        let open = Open {
            sandbox,
            lease: Lease::default(),
            place,
            handles: AtomicUsize::new(0),
        };
        let mut table = self.lock();
        // A handle that is there already is as good.
        let open = table.open.entry(id).or_insert_with(|| Arc::new(open));
        open.handles.fetch_add(1, Ordering::SeqCst);
    }

    /// Finds a sandbox that is open, for one more handle.
    pub(super) fn attach(&self, id: &str) -> Option<Arc<dyn Sandbox>> {
        let table = self.lock();
        let open = table.open.get(id)?;
        open.handles.fetch_add(1, Ordering::SeqCst);
        Some(Arc::clone(&open.sandbox))
    }

    /// Takes a handle away, and lets go of a lasting sandbox with the last: it is stopped, not closed.
    pub(super) fn release(&self, id: &str) {
        let mut table = self.lock();
        let is_last = table.open.get(id).is_some_and(|open| {
            open.sandbox.info().lasting
                && open.place.is_some()
                && open.handles.fetch_sub(1, Ordering::SeqCst) <= 1
        });
        let released = is_last.then(|| table.open.remove(id));
        drop(table);
        // Outside of the lock: it is put down.
        drop(released);
    }

    pub(super) fn get(&self, id: &str) -> Known {
        let table = self.lock();
        match table.open.get(id) {
            Some(open) => {
                let sandbox = Arc::clone(&open.sandbox);
                Known::Open(Lease::hold(Arc::clone(open)), sandbox)
            }
            None if table.closed.iter().any(|closed| closed == id) => Known::Closed,
            None => Known::Unknown,
        }
    }

    /// Whether it is open; asking does not count as use.
    pub(super) fn is_open(&self, id: &str) -> bool {
        self.lock().open.contains_key(id)
    }

    /// Lets go of a sandbox that is closed.
    pub(super) fn closed(&self, id: &str) {
        self.lock().take(id);
    }

    /// Takes out those that were not used for so long: from then on they count as closed, but for
    /// their places. Lasting ones do not: they are stopped when the result is dropped.
    pub(super) fn take_unused(&self, idle: Duration) -> Vec<Arc<Open>> {
        let mut table = self.lock();
        let unused = table.open.iter().filter(|(_, open)| open.place.is_some());
        let unused = unused.filter(|(_, open)| open.lease.is_over(idle));
        let unused: Vec<String> = unused.map(|(id, _)| id.clone()).collect();
        let mut take = |id: &String| match table.open.get(id)?.sandbox.info().lasting {
            true => table.open.remove(id),
            false => table.take(id),
        };
        unused.iter().filter_map(&mut take).collect()
    }

    /// Takes out all.
    pub(super) fn drain(&self) -> Vec<Arc<Open>> {
        self.lock().open.drain().map(|(_, open)| open).collect()
    }
}

impl Table {
    fn take(&mut self, id: &str) -> Option<Arc<Open>> {
        let open = self.open.remove(id)?;
        self.closed.push_back(id.to_owned());
        if self.closed.len() > CLOSED {
            self.closed.pop_front();
        }
        Some(open)
    }
}
