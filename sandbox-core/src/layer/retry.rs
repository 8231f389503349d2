//! Trying again, where that is safe.

use std::time::Duration;

use super::{Around, Attempt, Call};
use crate::{Error, Operation, Ran, Result};

/// Makes a call again when its error is [retryable](Error::is_retryable), with a wait that doubles.
///
/// A command is run again only if its error says [`Ran::NotStarted`]. `fork`, `snapshot` and
/// `close` are never repeated: a second fork could leave a first one behind.
#[derive(Clone, Debug)]
pub struct Retry {
    attempts: u32,
    wait: Duration,
}

impl Retry {
    /// At most this many attempts in all, the first wait being 100 ms.
    pub fn new(attempts: u32) -> Self {
        Self {
            attempts,
            wait: Duration::from_millis(100),
        }
    }

    /// With this wait before the second attempt; each later one waits twice as long, 10 s at most.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

fn is_safe(call: &Call<'_>, error: &Error) -> bool {
    error.is_retryable()
        && match call.operation {
            Operation::Exec | Operation::Spawn => error.ran() == Some(Ran::NotStarted),
            Operation::Fork | Operation::Snapshot | Operation::Close => false,
            _ => true,
        }
}

impl Around for Retry {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        const LONGEST: Duration = Duration::from_secs(10);
        let mut wait = self.wait;
        let mut made = 1;
        loop {
            match attempt().await {
                Err(error) if made < self.attempts && is_safe(&call, &error) => {
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LONGEST);
                    made += 1;
                }
                result => return result,
            }
        }
    }
}
