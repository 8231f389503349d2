//! The filesystems of evaluated containers: local sandboxes that are only forked from.
//!
//! Invariant: a state never changes after it was kept, and there are at most so many; the engine's
//! disk is bigger than this machine's number of processes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex};

use sandbox_core::Sandbox;

use super::engine::{Failure, lock};

/// Number of states that are kept; the oldest unused one goes first. Each is a process, and tests
/// that run side by side, one on a processor, share a double.
static KEPT: LazyLock<usize> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (200 * processors).clamp(400, 1600)
});

/// Names a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StateId(u64);

#[derive(Debug, Default)]
pub(super) struct States(Mutex<HeldStates>);

#[derive(Debug, Default)]
struct HeldStates {
    next: u64,
    kept: HashMap<StateId, Arc<dyn Sandbox>>,
    images: HashMap<StateId, Arc<dyn Sandbox>>,
    /// Order from the longest unused to the last used.
    order: VecDeque<StateId>,
    /// The base of everything, which never goes.
    base: Option<Arc<dyn Sandbox>>,
}

impl States {
    /// Keeps a state, and lets the oldest go if there are too many.
    pub(super) fn keep(&self, sandbox: Arc<dyn Sandbox>) -> StateId {
        let (id, gone) = {
            let mut inner = lock(&self.0);
            inner.next += 1;
            let id = StateId(inner.next);
            inner.kept.insert(id, sandbox);
            inner.order.push_back(id);
            let over = inner.kept.len() > *KEPT;
            let oldest = if over { inner.order.pop_front() } else { None };
            let gone = oldest.and_then(|oldest| inner.kept.remove(&oldest));
            (id, gone)
        };
        if let Some(gone) = gone {
            tokio::spawn(async move {
                // Its processes and files are collected at the latest when this process ends.
                let _ = gone.close().await;
            });
        }
        id
    }

    /// Keeps a state for ever: an image is pulled once.
    pub(super) fn keep_for_ever(&self, sandbox: Arc<dyn Sandbox>) -> StateId {
        let mut inner = lock(&self.0);
        inner.next += 1;
        let id = StateId(inner.next);
        inner.images.insert(id, sandbox);
        id
    }

    /// A state by its name.
    pub(super) fn get(&self, id: StateId) -> Result<Arc<dyn Sandbox>, Failure> {
        let mut inner = lock(&self.0);
        if let Some(image) = inner.images.get(&id) {
            return Ok(image.clone());
        }
        let found = inner.kept.get(&id).cloned();
        let found = found.ok_or_else(|| Failure::text("the double no longer has this state"))?;
        inner.order.retain(|known| *known != id);
        inner.order.push_back(id);
        Ok(found)
    }

    /// Number of states and the bytes that they have on disk.
    pub(super) async fn disk_use(&self) -> (usize, u64) {
        let states: Vec<_> = {
            let inner = lock(&self.0);
            let all = inner.kept.values().chain(inner.images.values());
            all.cloned().collect()
        };
        let mut bytes = 0;
        for state in &states {
            let used = state.usage().await.ok().and_then(|usage| usage.disk);
            bytes += used.unwrap_or(0);
        }
        (states.len(), bytes)
    }

    /// The base, if it was made.
    pub(super) fn base(&self) -> Option<Arc<dyn Sandbox>> {
        lock(&self.0).base.clone()
    }

    /// Sets the base.
    pub(super) fn set_base(&self, sandbox: Arc<dyn Sandbox>) {
        lock(&self.0).base = Some(sandbox);
    }
}
