//! The steps that change a session: create, take up, suspend, resume, end.
//!
//! A step goes on if its caller goes away.

mod end;
mod open;
mod suspend;

use std::future::Future;

use tracing::Instrument as _;

use crate::{Error, ErrorKind, Result};

/// Begins a step that goes on if its caller goes away, below the caller's span.
pub(in crate::manager) fn step<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    step: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    runtime.spawn(step.in_current_span())
}

/// Returns what a task gives; one that panicked or was ended with its runtime is an error.
pub(in crate::manager) async fn joined<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(_) => {
            Err(Error::new(ErrorKind::ShutDown)
                .with_message("the runtime ended before the step did"))
        }
    }
}
