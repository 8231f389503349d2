//! Turns on a lasting sandbox: one attaches to it or removes it at a time.
//!
//! It must never make work on one sandbox wait for work on another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sandbox_core::SandboxId;

/// The turns, by sandbox.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<SandboxId, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// The turn on a sandbox, to be locked.
    pub(super) fn on(&self, id: &SandboxId) -> Arc<tokio::sync::Mutex<()>> {
        // Every change is a single call: a panic elsewhere leaves it valid.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}
