//! The tokio runtime that a backend's futures are polled in.
//!
//! tokio and what is built on it panic where something is missing, so that a backend asks here
//! before each operation. Must never panic itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Id};

use crate::{Error, ErrorKind, Operation, Result};

/// The runtime that was found complete last: asking is for once.
static COMPLETE: Mutex<Option<Id>> = Mutex::new(None);

/// Fails outside of a tokio runtime, and in one whose drivers for time and I/O are not enabled.
///
/// `io` does something that needs the driver for I/O, which panics without it: this crate has no
/// sockets. A runtime that was found complete is not asked again. That a driver is missing can only
/// be found out by a panic, which is caught, and which tokio explains on standard error.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], with the remedy.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use sandbox_core::{Operation, backend::require_runtime};
/// require_runtime(Operation::Create, || {
///     # #[cfg(unix)]
///     drop(tokio::net::UnixStream::pair());
/// })
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn require_runtime(operation: Operation, io: impl FnOnce()) -> Result<()> {
    let id = Some(current(operation)?.id());
    if complete() == id {
        return Ok(());
    }
    require_time(operation)?;
    if !works(io) {
        let message = "the tokio runtime's I/O driver is not enabled";
        return Err(missing(operation, message));
    }
    *COMPLETE.lock().unwrap_or_else(PoisonError::into_inner) = id;
    Ok(())
}

/// Fails outside of a tokio runtime, and in one whose driver for time is not enabled: for what does
/// no I/O of its own. See [`require_runtime`].
///
/// # Errors
/// [`ErrorKind::InvalidInput`], with the remedy.
pub fn require_time(operation: Operation) -> Result<()> {
    let id = Some(current(operation)?.id());
    if complete() == id || works(|| drop(tokio::time::sleep(Duration::ZERO))) {
        return Ok(());
    }
    let message = "the tokio runtime's time driver is not enabled";
    Err(missing(operation, message))
}

fn complete() -> Option<Id> {
    *COMPLETE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime that this is polled in, whatever is enabled in it.
pub(super) fn current(operation: Operation) -> Result<Handle> {
    let handle = Handle::try_current();
    handle.map_err(|error| missing(operation, "there is no tokio runtime").with_source(error))
}

fn missing(operation: Operation, message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, operation)
        .with_message(message)
        .with_hint("poll it in a tokio runtime built with `enable_all`")
}

fn works(something: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(something)).is_ok()
}
