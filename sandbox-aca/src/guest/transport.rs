//! Transport of the operations of a sandbox to its guest: a shell, and files by name.
//!
//! Everything else (commands, batches, listings, transfers) is scripts on top of it, the same for
//! every service. A transport must never run a line twice that may not be repeated.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{Capabilities, Operation};

use crate::http::Failure;

/// Limit of the time for a touch: closing waits for one that is under way.
pub(crate) const TOUCH: Duration = Duration::from_secs(10);

/// The largest part that goes in one request, and so what is kept in memory of a file.
pub(crate) const PART: usize = 16 << 20;

/// A way to a guest.
pub(crate) trait Transport: Debug + Send + Sync + 'static {
    /// Name of our directories in the guest, without the random end.
    const STAGING: &'static str;
    /// Time that the guest waits for a command before it says "still running".
    const SLICE: Duration;
    /// Capabilities of its sandboxes.
    const CAPABILITIES: Capabilities;

    /// Advice if a sandbox could not be deleted.
    const CLOSE_HINT: &'static str;

    /// Pause before the guest is asked again after a command that has run so long.
    fn pause(ran: Duration) -> Duration {
        let _ = ran;
        Duration::ZERO
    }

    /// Runs a line of shell and gives its standard output; `repeat` for lines that may run twice.
    fn shell(
        &self,
        op: Operation,
        id: &str,
        line: &str,
        repeat: bool,
        timeout: Duration,
    ) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Uses the guest in a way that the service counts as use: nothing runs, nothing is made. An
    /// error with the status 404 says that it is gone.
    fn touch(&self, id: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Deletes what the guest runs in, and waits until the service no longer has it.
    fn delete(&self, op: Operation, id: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Puts bytes where the next line that names the file's directory finds them.
    fn put_file(
        &self,
        op: Operation,
        id: &str,
        path: &str,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reads a file that a line has made in one of our directories.
    fn get_file(
        &self,
        op: Operation,
        id: &str,
        path: &str,
        limit: u64,
    ) -> impl Future<Output = Result<Bytes, Failure>> + Send;
}
