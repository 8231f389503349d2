//! A bound on every call.
//!
//! It must never bound what frees something: `close` and `destroy` are bounded by contract.

use std::time::Duration;

use super::{Around, Attempt, Call, Request};
use crate::backend::require_time;
use crate::{Command, Error, Execution, Result, Sandbox};

/// Time that an `exec` may take beyond its command, to kill the tree and bring the output.
const GRACE: Duration = Duration::from_secs(5);

/// Bounds the time of every call except [`close`](crate::Sandbox::close) and
/// [`destroy`](crate::Provider::destroy), which are bounded by contract.
///
/// A command whose timeout (its own, or the spec's default) is longer, or that has none, gets this
/// one, so that the backend kills its tree and keeps the partial output; the call itself may take
/// five seconds more. Another call that takes too long is dropped and fails with
/// [`Unavailable`](crate::ErrorKind::Unavailable), since it was not the command's own timeout.
#[derive(Clone, Debug)]
pub struct Timeout {
    limit: Duration,
}

impl Timeout {
    /// Bounds every call to this time.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl Around for Timeout {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let limit = match call.request {
            Request::Close | Request::Destroy(_) => return attempt().await,
            Request::Exec(_) => self.limit.saturating_add(GRACE),
            _ => self.limit,
        };
        require_time(call.operation()).map_err(|error| match call.command() {
            Some(_) => error.with_execution(Execution::NotStarted),
            None => error,
        })?;
        if let Ok(result) = tokio::time::timeout(limit, attempt()).await {
            return result;
        }
        let message = format!("no answer within {limit:?}");
        let mut error = Error::unanswered(call.operation(), message);
        if let Some(id) = call.sandbox_id() {
            error = error.with_sandbox(id);
        }
        Err(match call.command() {
            Some(_) => error.with_execution(Execution::Unknown),
            None => error,
        })
    }

    fn command(&self, sandbox: &dyn Sandbox, mut command: Command) -> Command {
        let own = command.timeout.or_else(|| sandbox.info().command_timeout);
        command.timeout = Some(own.map_or(self.limit, |timeout| timeout.min(self.limit)));
        command
    }
}
