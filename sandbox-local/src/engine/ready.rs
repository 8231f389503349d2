//! Agents that wait for a plan, so that a start need not wait for namespaces.
//!
//! One thread keeps a few of them ready and never more than it was told. It must never make
//! anybody wait: who finds none starts one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::start::{Blank, Identity};

/// The agents of one provider. When it is dropped they end, without waiting for them.
pub(crate) struct Ready {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    blanks: Vec<Blank>,
    /// The last attempt failed; the next is made when somebody asks again.
    failed: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    /// Keeps `count` agents of this identity, with a network of their own, ready.
    pub(crate) fn keep(count: usize, identity: Identity) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        if count > 0 {
            let shared = shared.clone();
            thread::Builder::new()
                .name("sandbox-prepare".into())
                .spawn(move || refill(&shared, count, identity))?;
        }
        Ok(Self { shared })
    }

    /// One that waits, if there is any. Another one is made in its place when that is
    /// [asked for](Ready::refill).
    pub(crate) fn take(&self) -> Option<Blank> {
        // Dropped, and with that waited for, when the lock is free again.
        let mut ended = Vec::new();
        let mut state = self.shared.lock();
        state.failed = false;
        loop {
            match state.blanks.pop() {
                Some(blank) if !blank.waits() => ended.push(blank),
                found => break found,
            }
        }
    }

    /// Has what was taken replaced: after the start for which it was taken, since the kernel makes
    /// one namespace at a time and the start would have to wait.
    pub(crate) fn refill(&self) {
        self.shared.changed.notify_one();
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ready = self.shared.lock().blanks.len();
        f.debug_struct("Ready").field("ready", &ready).finish()
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

fn refill(shared: &Shared, count: usize, identity: Identity) {
    loop {
        let waiting =
            |state: &mut State| !state.closed && (state.failed || state.blanks.len() >= count);
        let mut state = shared
            .changed
            .wait_while(shared.lock(), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            let blanks = std::mem::take(&mut state.blanks);
            drop(state);
            // Here, where nobody waits: each is killed and reaped.
            drop(blanks);
            return;
        }
        drop(state);
        let made = Blank::new(identity, true);
        let mut state = shared.lock();
        match made {
            Ok(blank) => state.blanks.push(blank),
            Err(error) => {
                tracing::warn!(%error, "no sandbox could be prepared");
                state.failed = true;
            }
        }
    }
}
