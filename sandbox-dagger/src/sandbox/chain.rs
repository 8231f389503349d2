//! The state of one sandbox: the id of an immutable container, replaced by each operation that
//! changes something.
//!
//! Invariant: operations that change something run one after the other, and a failed one leaves the
//! id as it was; the chain of layers behind it stays shorter than the engine can mount.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

/// The number of layers at which they are put together: well below the 500 that overlayfs can
/// stack, because each makes every operation slower (an exec on 450 took twice the time of one on
/// 50).
pub(crate) const SQUASH_AT: u32 = 200;

/// An immutable container and how many layers it has at most.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) layers: u32,
}

/// The current container.
#[derive(Debug)]
pub(crate) struct Chain {
    turn: AsyncMutex<()>,
    head: Mutex<Head>,
}

impl Chain {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            turn: AsyncMutex::new(()),
            head: Mutex::new(head),
        }
    }

    /// The current container, for operations that change nothing.
    pub(crate) fn head(&self) -> Head {
        self.head
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until no other operation changes something.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn {
            chain: self,
            _turn: self.turn.lock().await,
        }
    }
}

/// The right to change something, which one operation has at a time. Dropping it changes nothing.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    chain: &'a Chain,
    _turn: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// The container to start from.
    pub(crate) fn head(&self) -> Head {
        self.chain.head()
    }

    /// Replaces the container by this one, which has `more` layers than the one before.
    pub(crate) fn advance(&self, id: &str, more: u32) {
        let mut head = self
            .chain
            .head
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        head.id = id.to_owned();
        head.layers += more;
    }

    /// Replaces the container by one whose layers were put together.
    pub(crate) fn squashed(&self, id: &str) {
        let mut head = self
            .chain
            .head
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *head = Head {
            id: id.to_owned(),
            layers: 2,
        };
    }
}
