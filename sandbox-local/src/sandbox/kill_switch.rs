//! Kill switch of a sandbox, outside of every lock that an operation may hold.
//!
//! It must never be taken over an await, and no run of a closed sandbox may go on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Killer;

#[derive(Debug, Default)]
struct State {
    pressed: bool,
    /// Of the run that is in use, or was last.
    killer: Option<Killer>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct KillSwitch(Mutex<State>);

impl KillSwitch {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects a run, in place of the one before. If the sandbox was closed it is killed.
    pub(super) fn connect(&self, killer: Killer) {
        let mut state = self.lock();
        if state.pressed {
            killer.kill();
        }
        state.killer = Some(killer);
    }

    /// Kills the run that is in use, now, and every later one.
    pub(super) fn press(&self) -> Option<Killer> {
        let mut state = self.lock();
        state.pressed = true;
        if let Some(killer) = &state.killer {
            killer.kill();
        }
        state.killer.clone()
    }
}
