//! The tokio runtime that both sides work in.
//!
//! A call and a server ask here first, and must fail with an error where tokio would panic.

use sandbox_core::{Operation, Result, backend};

/// Fails outside of a tokio runtime, and in one whose drivers are not enabled.
pub(crate) fn require(operation: Operation) -> Result<()> {
    backend::require_runtime(operation, io)
}

/// Use of the runtime's driver for I/O, which panics without it.
#[cfg(unix)]
fn io() {
    // Whether it can be made is another matter.
    drop(tokio::net::UnixStream::pair());
}

#[cfg(not(unix))]
fn io() {}
