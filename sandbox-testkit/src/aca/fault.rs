//! Faults that a test injects: what goes wrong with which request, once each.
//!
//! A fault that was given and fits no request stays; it must never fit twice.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Kind of the fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Answered with this status and this `Retry-After` (as written), and not carried out.
    Status(u16, Option<String>),
    /// Carried out, and answered with this status.
    StatusAfter(u16),
    /// Not carried out; the answer breaks off.
    DropBefore,
    /// Carried out; the answer breaks off.
    DropAfter,
    /// Not carried out; answered with something that is no JSON.
    Garbage,
    /// A WebSocket is carried out, and breaks off after so many frames of the server. Means nothing
    /// to other requests.
    CutStream(usize),
    /// Keeps the connection of the stream open, on which nothing comes any more, not even an answer
    /// to a ping.
    SilenceStream(usize),
}

/// Fault of the next request that fits.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Fits a request whose method and path have this in them, such as
    /// `"POST"` or `"/executeShellCommand"`.
    pub on: String,
    /// Kind of the fault.
    pub action: Action,
}

impl Fault {
    /// Fault of the next request that has `on` in its method and path.
    pub fn new(on: impl Into<String>, action: Action) -> Self {
        Self {
            on: on.into(),
            action,
        }
    }
}

/// Faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    pub(super) fn push(&self, fault: Fault) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push_back(fault);
    }

    pub(super) fn clear(&self) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.clear();
    }

    /// Takes the first that fits.
    pub(super) fn take(&self, request: &str) -> Option<Action> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults
            .iter()
            .position(|fault| request.contains(fault.on.as_str()))?;
        faults.remove(at).map(|fault| fault.action)
    }
}
