//! Closes a sandbox: its commands end, then the service deletes what they ran in.
//!
//! It must never report success before the service has confirmed the deletion.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::guest::handle::Guest;
use crate::guest::transport::Transport;
use crate::http::runtime;

const OP: Operation = Operation::Close;
/// Time that commands may take to report their last output.
const LAST_OUTPUT: Duration = Duration::from_secs(8);

impl<T: Transport> Guest<T> {
    /// Closes the sandbox. Calls at the same time share one attempt; a call after a failed attempt
    /// tries again.
    ///
    /// Dropping the future does not stop it: closing runs on a task of its own, which calls
    /// `deleted` when the service has confirmed.
    pub(crate) async fn close(
        self: &Arc<Self>,
        deleted: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        runtime(Operation::Close)?;
        self.closing.store(true, Ordering::Release);
        let seen = match self.closed.try_lock() {
            Ok(closed) => closed.attempts,
            // An attempt is under way: its outcome is this call's too.
            Err(_) => 0,
        };
        let guest = Arc::clone(self);
        let closing = tokio::spawn(async move {
            let mut closed = guest.closed.lock().await;
            match &closed.outcome {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) if closed.attempts > seen => return Err(why.clone()),
                _ => {}
            }
            let outcome = guest.end().await;
            closed.attempts += 1;
            closed.outcome = Some(outcome.clone());
            if outcome.is_ok() {
                deleted();
            }
            outcome
        });
        let cause = match closing.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => cause,
            Err(gone) => Error::new(ErrorKind::Other, OP)
                .with_message("the task that closes ended early")
                .with_source(gone),
        };
        let error = Error::new(ErrorKind::Other, OP)
            .with_message(format!("the service may still have the sandbox: {cause}"))
            .with_source(cause)
            .with_hint(T::CLOSE_HINT);
        Err(self.named(error))
    }

    /// Ends the commands, waits for their last output, and deletes.
    async fn end(&self) -> Result<()> {
        let running = self.state().running.clone();
        if !running.is_empty() {
            let silent = async {
                self.cancel(&running).await;
                while !self.state().running.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            // A command that has not reported by then never will: it ends with its sandbox.
            let _ = tokio::time::timeout(LAST_OUTPUT, silent).await;
        }
        self.touched_last().await;
        let deleted = self.transport.delete(OP, self.id.as_str()).await;
        deleted.map_err(|failure| self.named(failure.error))
    }
}
