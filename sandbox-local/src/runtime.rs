//! The tokio runtime that the library's futures are polled in.
//!
//! Sandboxes need one with I/O and time: every operation asks here first, and must fail with an error
//! without one.

use sandbox_core::{Operation, Result, backend};

/// Fails outside of a tokio runtime, and in one whose drivers are not enabled.
pub(crate) fn require(operation: Operation) -> Result<()> {
    backend::require_runtime(operation, io)
}

#[cfg(unix)]
fn io() {
    // Whether it can be made is another matter.
    drop(tokio::net::UnixStream::pair());
}

#[cfg(not(unix))]
fn io() {}
