//! Code for a Python kernel that keeps its state: what this backend can beyond the trait.
//!
//! Code is sent once: it can't be told afterwards whether it ran.

use std::time::Duration;

use sandbox_core::{Capability, Error, ErrorKind, Execution, Operation, Result};

use super::client::LONGEST;
use super::config::SessionKind;
use super::sandbox::AcaSession;

const OP: Operation = Operation::Exec;

/// Options of running code.
///
/// ```
/// use std::time::Duration;
/// use sandbox_aca::CodeOptions;
/// let options = CodeOptions::new().timeout(Duration::from_secs(30));
/// assert_eq!(options.timeout.as_secs(), 30);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CodeOptions {
    /// After this time the code is interrupted; whole seconds, at most 220. Default: 220 seconds.
    pub timeout: Duration,
}

impl Default for CodeOptions {
    fn default() -> Self {
        Self { timeout: LONGEST }
    }
}

impl CodeOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Interrupts the code after this time.
        timeout: Duration,
    }
}

/// End of running code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeStatus {
    /// To its end.
    Succeeded,
    /// By an exception, or because it took too long; stderr tells.
    Failed,
}

/// Result of running code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeOutput {
    /// The value of its last expression as JSON, if it has one.
    pub result: Option<String>,
    /// Output as text: the service passes on no bytes, and at most 1 MiB.
    pub stdout: String,
    /// Output on stderr, with the exception that ended it.
    pub stderr: String,
    /// Status with which it ended.
    pub status: CodeStatus,
    /// Time that it ran, where the service says so.
    pub duration: Option<Duration>,
}

impl AcaSession {
    /// Runs Python code in the session's kernel, which keeps names between calls.
    ///
    /// The kernel runs in `/mnt/data` with the image's environment: workdir and environment of the
    /// sandbox are those of its commands. An exception is an outcome, not an error: see [`CodeOutput::status`].
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] in a Shell session; [`ErrorKind::InvalidInput`] for a timeout
    /// beyond the service's; the common ones. [`Error::execution`] says whether it may have run.
    ///
    /// # Cancellation
    /// Dropping the future does not stop the code: it goes on until its timeout.
    pub async fn run_code(&self, code: &str, options: CodeOptions) -> Result<CodeOutput> {
        let refused = |error: Error| {
            self.guest
                .named(error)
                .with_execution(Execution::NotStarted)
        };
        self.guest.open(OP).map_err(refused)?;
        let session = &self.guest.transport;
        if session.pool.kind != SessionKind::Python {
            let why = "the pool's sessions run a shell";
            return Err(refused(Error::unsupported(OP, Capability::Exec, why)));
        }
        if options.timeout.is_zero() || options.timeout > LONGEST {
            return Err(refused(
                Error::new(ErrorKind::InvalidInput, OP)
                    .with_message("the timeout must be more than zero and at most 220 seconds")
                    .with_hint("run what takes longer as a command: exec"),
            ));
        }
        let done = session.execute(OP, code, false, options.timeout).await;
        let done = done.map_err(|failure| {
            let ran = match failure.unknown {
                true => Execution::Unknown,
                false => Execution::NotStarted,
            };
            self.guest.failed(failure).with_execution(ran)
        })?;
        let empty = done.result.is_null() || done.result == "";
        Ok(CodeOutput {
            result: (!empty).then(|| done.result.to_string()),
            stdout: done.stdout,
            stderr: done.stderr,
            status: match done.succeeded {
                true => CodeStatus::Succeeded,
                false => CodeStatus::Failed,
            },
            duration: done.took,
        })
    }
}
