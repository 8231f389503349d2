//! The state of one sandbox: the id of an immutable container, replaced by each operation that
//! changes something.
//!
//! Invariant: operations that change something run one after the other, and a failed one leaves the
//! id as it was; none waits for a process that its caller spawned; the chain of layers behind it
//! stays shorter than the engine can mount.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

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
    turn: Arc<AsyncMutex<()>>,
    head: Arc<Mutex<Head>>,
    /// Whether a spawned process has the turn.
    spawned: watch::Sender<bool>,
}

/// A spawned process has the turn until it ends.
#[derive(Debug)]
pub(crate) struct Spawned;

impl Chain {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            turn: Arc::default(),
            head: Arc::new(Mutex::new(head)),
            spawned: watch::Sender::new(false),
        }
    }

    /// The current container, for operations that change nothing.
    pub(crate) fn head(&self) -> Head {
        locked(&self.head).clone()
    }

    /// Waits until no other operation changes something, unless that is a spawned process: who
    /// waited for one that it spawned would wait for itself.
    pub(crate) async fn turn(&self) -> Result<Turn, Spawned> {
        let mut spawned = self.spawned.subscribe();
        let turn = tokio::select! {
            biased;
            turn = self.turn.clone().lock_owned() => turn,
            _ = spawned.wait_for(|spawned| *spawned) => return Err(Spawned),
        };
        Ok(Turn {
            head: self.head.clone(),
            spawned: None,
            _turn: turn,
        })
    }
}

fn locked(head: &Mutex<Head>) -> MutexGuard<'_, Head> {
    // A head is replaced whole: a panic elsewhere leaves it valid.
    head.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to change something, which one operation has at a time. Dropping it changes nothing.
#[derive(Debug)]
pub(crate) struct Turn {
    head: Arc<Mutex<Head>>,
    spawned: Option<watch::Sender<bool>>,
    _turn: OwnedMutexGuard<()>,
}

impl Turn {
    /// The container to start from.
    pub(crate) fn head(&self) -> Head {
        locked(&self.head).clone()
    }

    /// Leaves the turn to a spawned process: others are told so instead of waiting.
    pub(crate) fn spawned(mut self, chain: &Chain) -> Self {
        chain.spawned.send_replace(true);
        self.spawned = Some(chain.spawned.clone());
        self
    }

    /// Replaces the container by this one, which has `more` layers than the one before.
    pub(crate) fn advance(&self, id: &str, more: u32) {
        let mut head = locked(&self.head);
        id.clone_into(&mut head.id);
        head.layers += more;
    }

    /// Replaces the container by one whose layers were put together.
    pub(crate) fn squashed(&self, id: &str) {
        *locked(&self.head) = Head {
            id: id.to_owned(),
            layers: 2,
        };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(spawned) = &self.spawned {
            spawned.send_replace(false);
        }
    }
}
