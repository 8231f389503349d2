//! Parts that every backend needs, for the authors of backends.
//!
//! - [`FileLock`]: a lock on a file, given up at once when it is dropped.
//! - [`Jobs`]: jobs of a sandbox over what starts its processes.
//! - [`Registry`]: the open sandboxes of a provider, to find and list.
//! - [`Settings`]: workdir and environment, which `set_workdir`, `set_env` and `fork` change.
//! - [`blocking`]: work that must not run on the runtime's threads.
//! - [`check_port`] and [`not_listening`]: the errors of `connect_port`.
//! - [`watch_channel`]: the two ends of a watch of files.
//! - [`command_not_found`]: the error of a command whose program is not there.
//! - [`require_runtime`], [`require_time`]: an error instead of a panic where tokio's runtime is missing.
//! - [`timed_out`]: the error of a command that its timeout killed.
//!
//! An application needs none of this.
//!
//! Invariant: nothing here reads, writes or knows a backend.

mod jobs;
mod lock;
mod registry;
mod runtime;
mod settings;

pub use jobs::Jobs;
pub use lock::FileLock;
pub use registry::Registry;
pub use runtime::{require_runtime, require_time};
pub use settings::{DEFAULT_PATH, Settings};

pub use crate::watch::{WatchHold, WatchSender, watch_channel};

use std::time::Duration;

use crate::{Error, ErrorKind, Execution, GuestPath, Operation, Result};

/// Runs work that blocks on a thread for blocking work.
///
/// A panic in the work is an error of the operation. Dropping the future does not stop work that
/// has begun: it runs to its end, and its result is dropped.
///
/// # Errors
/// Those of the work; [`ErrorKind::Other`] if it panicked or the runtime is shutting down;
/// [`ErrorKind::InvalidInput`] outside of a runtime.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use sandbox_core::{Operation, backend::blocking};
/// let sum = blocking(Operation::ReadFile, || Ok(1 + 1)).await?;
/// assert_eq!(sum, 2);
/// # Ok::<(), sandbox_core::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn blocking<T: Send + 'static>(
    operation: Operation,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = runtime::current(operation)?;
    runtime.spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Other, operation)
            .with_message("the operation's thread ended early")
            .with_source(error))
    })
}

/// Refuses port 0, at which nothing can listen.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
///
/// ```
/// use sandbox_core::backend::check_port;
/// assert!(check_port(8080).is_ok());
/// assert!(check_port(0).is_err());
/// ```
pub fn check_port(port: u16) -> Result<()> {
    match port {
        0 => Err(Error::new(ErrorKind::InvalidInput, Operation::ConnectPort)
            .with_message("no program can listen on port 0")),
        _ => Ok(()),
    }
}

/// The error of a connection to a port on which nothing listens.
///
/// ```
/// use sandbox_core::{ErrorKind, backend::not_listening};
/// assert_eq!(not_listening(8080).kind(), ErrorKind::NotListening);
/// ```
pub fn not_listening(port: u16) -> Error {
    Error::new(ErrorKind::NotListening, Operation::ConnectPort)
        .with_message(format!("nothing listens on port {port} of the sandbox"))
        .with_hint("start the server, or wait for it with wait_for_port")
}

/// The error of a command whose program was not found, with a hint where the name looks like a whole
/// command line.
///
/// ```
/// use sandbox_core::{Execution, Operation, backend::command_not_found};
/// let error = command_not_found(Operation::Exec, b"ls -la", "no such program");
/// assert_eq!(error.execution(), Some(Execution::NotStarted));
/// assert!(error.hint().unwrap_or_default().contains("arguments"));
/// ```
pub fn command_not_found(operation: Operation, program: &[u8], message: &str) -> Error {
    const HINT: &str = "a program's arguments are given apart from its name \
        (`Command::new(\"ls\").arg(\"-la\")`); a line for the shell is `Command::shell`";
    let error = Error::new(ErrorKind::CommandNotFound, operation)
        .with_message(message)
        .with_path(GuestPath::new(program))
        .with_execution(Execution::NotStarted);
    match program.contains(&b' ') {
        true => error.with_hint(HINT),
        false => error,
    }
}

/// The error of a command that was killed at its timeout: interrupted, no output known.
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::{Execution, Operation, backend::timed_out};
/// let error = timed_out(Operation::Exec, Duration::from_secs(2));
/// assert_eq!(error.execution(), Some(Execution::Interrupted));
/// assert_eq!(error.to_string(), "exec: the command was killed after its timeout of 2s");
/// ```
pub fn timed_out(operation: Operation, after: Duration) -> Error {
    Error::new(ErrorKind::Timeout, operation)
        .with_message(format!(
            "the command was killed after its timeout of {after:?}"
        ))
        .with_execution(Execution::Interrupted)
}
