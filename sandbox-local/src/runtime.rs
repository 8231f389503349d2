//! The tokio runtime that the library's futures are polled in.
//!
//! Sandboxes need one with I/O and time. tokio panics where something is missing, so that every
//! operation asks here first: without one it must fail with an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::runtime::{Handle, Id};

/// The runtime that was found complete last: asking is for once.
static COMPLETE: Mutex<Option<Id>> = Mutex::new(None);

/// Fails outside of a tokio runtime, and in one whose drivers are not enabled.
pub(crate) fn require(operation: Operation) -> Result<()> {
    let missing = |message: &str| {
        Error::new(ErrorKind::InvalidInput, operation)
            .with_message(message)
            .with_hint("poll it in a tokio runtime built with `enable_all`")
    };
    let handle = Handle::try_current()
        .map_err(|error| missing("there is no tokio runtime").with_source(error))?;
    let id = Some(handle.id());
    if *COMPLETE.lock().unwrap_or_else(PoisonError::into_inner) == id {
        return Ok(());
    }
    // tokio has no other way to ask: it panics, which its message explains on stderr.
    if !works(|| drop(tokio::time::sleep(Duration::ZERO))) {
        return Err(missing("the tokio runtime's time driver is not enabled"));
    }
    if !works(io) {
        return Err(missing("the tokio runtime's I/O driver is not enabled"));
    }
    *COMPLETE.lock().unwrap_or_else(PoisonError::into_inner) = id;
    Ok(())
}

fn works(something: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(something)).is_ok()
}

#[cfg(unix)]
fn io() {
    // Whether it can be made is another matter.
    drop(tokio::net::UnixStream::pair());
}

#[cfg(not(unix))]
fn io() {}
