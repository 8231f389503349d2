//! The sandboxes that a server holds for its owner.
//!
//! Invariant: one that nothing uses is closed in the end; a closed one is told apart from one that
//! never was.

use std::collections::{HashMap, VecDeque};
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
        };
        let mut table = self.lock();
        // A handle that is there already is as good.
        table.open.entry(id).or_insert_with(|| Arc::new(open));
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
    /// their places.
    pub(super) fn take_unused(&self, idle: Duration) -> Vec<Arc<Open>> {
        let mut table = self.lock();
        let unused = table.open.iter().filter(|(_, open)| open.place.is_some());
        let unused = unused.filter(|(_, open)| open.lease.is_over(idle));
        let unused: Vec<String> = unused.map(|(id, _)| id.clone()).collect();
        unused.iter().filter_map(|id| table.take(id)).collect()
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
