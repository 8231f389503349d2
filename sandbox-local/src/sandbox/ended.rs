//! Whether a sandbox has ended, and how.
//!
//! The first end counts: it must never change again.

use std::sync::atomic::{AtomicU8, Ordering};

use sandbox_core::{Error, Operation, SandboxId};

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const EXPIRED: u8 = 2;

/// The end of one sandbox, shared with its processes.
#[derive(Debug, Default)]
pub(crate) struct Ended(AtomicU8);

impl Ended {
    /// Notes that the sandbox is closed by its caller.
    pub(crate) fn close(&self) {
        self.end(CLOSED);
    }

    /// Notes that the sandbox's time to live has passed.
    pub(crate) fn expire(&self) {
        self.end(EXPIRED);
    }

    fn end(&self, how: u8) {
        // If it has ended already, the first end stays.
        let _ = self
            .0
            .compare_exchange(OPEN, how, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether the sandbox has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) != OPEN
    }

    /// The error of a call on a sandbox that has ended.
    pub(crate) fn error(&self, operation: Operation, sandbox: &SandboxId) -> Error {
        match self.0.load(Ordering::Acquire) {
            EXPIRED => Error::expired(operation, sandbox),
            _ => Error::closed(operation, sandbox),
        }
    }
}
