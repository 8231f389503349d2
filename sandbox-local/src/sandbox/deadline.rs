//! When the time of a command is up. It begins with the call, before the first lock.

use std::time::{Duration, Instant};

use sandbox_core::backend::timed_out;
use sandbox_core::{Error, ErrorKind, Execution, Operation};

/// The end of a command's time, if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    /// Deadline of a call that has just been made. A timeout beyond what the clock can say is none.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self {
            at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            timeout: timeout.unwrap_or_default(),
        }
    }

    /// The moment, if there is one.
    pub(crate) fn at(self) -> Option<Instant> {
        self.at
    }

    /// Awaits a future, unless the time is up before.
    pub(crate) async fn limit<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self.at {
            Some(at) => tokio::time::timeout_at(at.into(), future).await.ok(),
            None => Some(future.await),
        }
    }

    /// The error of a command that was killed at its deadline.
    pub(crate) fn killed(self, operation: Operation) -> Error {
        timed_out(operation, self.timeout)
    }

    /// The error of a command that waited for its start until its deadline.
    pub(crate) fn not_started(self, operation: Operation) -> Error {
        let after = self.timeout;
        Error::new(ErrorKind::Timeout, operation)
            .with_message(format!(
                "the command was not started within its timeout of {after:?}: the sandbox was \
                 busy with another operation, such as a fork"
            ))
            .with_execution(Execution::NotStarted)
    }
}
