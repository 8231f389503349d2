//! The model as a mock: scripted outcomes and a record of what was asked.
//!
//! Invariant: the record has programs and paths, never arguments' or variables' values.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{ErrorKind, ExitStatus, Operation, SandboxId};

/// What a command is made to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MockOutcome {
    /// How it ends.
    pub status: ExitStatus,
    /// What it writes to stdout.
    pub stdout: Bytes,
    /// What it writes to stderr.
    pub stderr: Bytes,
    /// How long it takes.
    pub after: Duration,
    /// It is not started at all, with an error of this kind.
    pub error: Option<ErrorKind>,
}

impl MockOutcome {
    /// Ends with this code.
    pub fn exit(code: u8) -> Self {
        Self {
            status: ExitStatus::Code(code),
            stdout: Bytes::new(),
            stderr: Bytes::new(),
            after: Duration::ZERO,
            error: None,
        }
    }

    /// Is not started, with an error of this kind.
    pub fn error(kind: ErrorKind) -> Self {
        Self {
            error: Some(kind),
            ..Self::exit(0)
        }
    }

    /// Is killed by this signal.
    #[must_use]
    pub fn signal(mut self, signal: i32) -> Self {
        self.status = ExitStatus::Signal(signal);
        self
    }

    /// Writes this to stdout.
    #[must_use]
    pub fn stdout(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdout = bytes.into();
        self
    }

    /// Writes this to stderr.
    #[must_use]
    pub fn stderr(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stderr = bytes.into();
        self
    }

    /// Takes this long.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }
}

/// A call that the model got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The sandbox; `None` for calls to the provider.
    pub sandbox: Option<SandboxId>,
    /// The operation.
    pub operation: Operation,
    /// The program of a command, or the path.
    pub what: String,
}

impl Call {
    pub(super) fn new(sandbox: Option<&SandboxId>, operation: Operation, what: String) -> Self {
        Self {
            sandbox: sandbox.cloned(),
            operation,
            what,
        }
    }
}
