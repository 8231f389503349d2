//! The outermost layer of the model: logs each call and injects the faults that a test asked for.
//!
//! It must never change a call that has no fault.

use std::fmt;
use std::sync::Arc;

use sandbox_core::layer::{Around, Attempt, Call, Request};
use sandbox_core::{Error, ErrorKind, Execution, Operation, Result};

use super::mock::Fault;
use super::provider::Shared;

/// The layer around every sandbox of a model provider.
#[derive(Clone)]
pub(crate) struct Front(pub(crate) Arc<Shared>);

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}

fn failure(call: &Call<'_>, kind: ErrorKind, ran: Execution) -> Error {
    let mut error = Error::new(kind, call.operation()).with_message("an injected fault");
    if let (Some(id), false) = (call.sandbox_id(), call.operation() == Operation::Attach) {
        error = error.with_sandbox(id);
    }
    if let Some(path) = call.paths().first() {
        error = error.with_path(*path);
    }
    match call.request {
        Request::Exec(_) | Request::Spawn(_) | Request::StartJob(..) => error.with_execution(ran),
        _ => error,
    }
}

impl Around for Front {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        self.0.record(&call);
        match self.0.fault(&call) {
            None => attempt().await,
            Some(Fault::Refuse(kind)) => Err(failure(&call, kind, Execution::NotStarted)),
            Some(Fault::LoseAnswer(kind)) => {
                attempt().await?;
                Err(failure(&call, kind, Execution::Unknown))
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                attempt().await
            }
        }
    }
}
