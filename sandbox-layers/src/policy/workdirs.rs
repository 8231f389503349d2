//! Workdirs while calls depend on them.
//!
//! A path that a rule was asked about must be the path that the backend takes: between the two, the
//! directory that it is relative to must not change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbox_core::SandboxId;

/// Calls under way that have to do with a workdir, by sandbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Workdirs(Arc<Mutex<HashMap<SandboxId, UnderWay>>>);

#[derive(Debug)]
enum UnderWay {
    /// Number of calls that depend on the workdir.
    Dependent(usize),
    /// A call that changes it.
    Changing,
}

/// One call under way; over when dropped.
#[derive(Debug)]
pub(super) struct Held {
    workdirs: Workdirs,
    sandbox: SandboxId,
}

impl Workdirs {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, UnderWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, sandbox: SandboxId) -> Held {
        Held {
            workdirs: self.clone(),
            sandbox,
        }
    }

    /// Begins a call that depends on the workdir; `None` while it is being changed.
    pub(super) fn depend(&self, sandbox: SandboxId) -> Option<Held> {
        let mut calls = self.lock();
        match calls
            .entry(sandbox.clone())
            .or_insert(UnderWay::Dependent(0))
        {
            UnderWay::Dependent(calls) => *calls += 1,
            UnderWay::Changing => return None,
        }
        Some(self.held(sandbox))
    }

    /// Begins a change of the workdir; `None` while another call has to do with it.
    pub(super) fn change(&self, sandbox: SandboxId) -> Option<Held> {
        let mut calls = self.lock();
        if calls.contains_key(&sandbox) {
            return None;
        }
        calls.insert(sandbox.clone(), UnderWay::Changing);
        Some(self.held(sandbox))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut calls = self.workdirs.lock();
        match calls.get_mut(&self.sandbox) {
            Some(UnderWay::Dependent(calls)) if *calls > 1 => *calls -= 1,
            _ => drop(calls.remove(&self.sandbox)),
        }
    }
}
