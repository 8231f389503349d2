//! Refusal of what is not declared, before the backend sees it.

use super::{Around, Attempt, Call};
use crate::{Capability, Command, Operation, Ran, Result, Stdin};

/// Refuses calls and options that the sandbox's [`capabilities`](crate::Sandbox::capabilities) do
/// not declare, with [`Unsupported`](crate::ErrorKind::Unsupported), before the backend sees them.
///
/// A backend behind it cannot ignore an option by oversight.
#[derive(Clone, Debug, Default)]
pub struct CapabilityGuard(());

impl CapabilityGuard {
    /// The layer.
    pub fn new() -> Self {
        Self::default()
    }
}

fn needs(operation: Operation, command: Option<&Command>) -> impl Iterator<Item = Capability> {
    let of_operation = match operation {
        Operation::Exec => Some(Capability::Exec),
        Operation::Spawn => Some(Capability::Spawn),
        Operation::Fork => Some(Capability::Fork),
        Operation::Snapshot => Some(Capability::Snapshot),
        _ => None,
    };
    let of_user = command
        .and_then(|c| c.user.as_ref())
        .map(|_| Capability::User);
    let of_stdin = command
        .filter(|c| matches!(c.stdin, Stdin::Piped))
        .map(|_| Capability::StdinPipe);
    of_operation.into_iter().chain(of_user).chain(of_stdin)
}

impl Around for CapabilityGuard {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let capabilities = call.sandbox.capabilities();
        for capability in needs(call.operation, call.command) {
            if let Err(error) = capabilities.require(capability, call.operation) {
                let error = error.with_sandbox(call.sandbox.info().id);
                return Err(match call.command {
                    Some(_) => error.with_ran(Ran::NotStarted),
                    None => error,
                });
            }
        }
        attempt().await
    }
}
