//! The sandbox that a call works on, held open until the call is done.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sandbox_core::{Error, ErrorKind, Execution, Operation, Result, Sandbox, SandboxId};

use super::asked::Asked;
use super::calls::Undo;
use super::lease::Held;
use super::reply::{Reply, refused};
use super::sandboxes::{Known, Open};
use super::state::State;

/// The work of a named call, and how it is undone if its answer is not taken.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<(Reply, Option<Undo>)>> + Send>>;

/// A sandbox that is held open while it is used.
pub(super) type Used = (Held<Arc<Open>>, Arc<dyn Sandbox>);

/// The open sandbox that the path names.
pub(super) fn sandbox_of(state: &State, asked: &Asked) -> Result<Used> {
    let id = SandboxId::new(&asked.subject);
    match state.sandboxes.get(&asked.subject) {
        Known::Open(held, sandbox) => Ok((held, sandbox)),
        Known::Closed => {
            let error = Error::closed(asked.operation, &id);
            Err(match asked.operation {
                Operation::Exec | Operation::Spawn | Operation::StartJob => {
                    error.with_execution(Execution::NotStarted)
                }
                _ => error,
            })
        }
        Known::Unknown => {
            let why = "the server holds no such sandbox";
            let error = refused(ErrorKind::Lost, asked.operation, why).with_sandbox(id);
            Err(error.with_hint("attach to it first, or create another"))
        }
    }
}
