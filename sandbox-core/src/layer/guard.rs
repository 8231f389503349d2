//! Refusal of what is not declared, before the backend sees it.
//!
//! It must never let a call through whose capability is missing, and never refuse one that needs
//! none.

use super::{Around, Attempt, Call, Request, Target};
use crate::{Capability, Command, Execution, Result, Stdin};

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

fn of_command(capability: Capability, command: &Command) -> Vec<Capability> {
    let mut needs = vec![capability];
    if command.user.is_some() {
        needs.push(Capability::User);
    }
    if command.terminal.is_some() {
        needs.push(Capability::Terminal);
    }
    if matches!(command.stdin, Stdin::Piped) {
        needs.push(Capability::StdinPipe);
    }
    needs
}

fn needs(request: Request<'_>) -> Vec<Capability> {
    match request {
        Request::Exec(command) => of_command(Capability::Exec, command),
        Request::Spawn(command) => of_command(Capability::Spawn, command),
        Request::StartJob(_, command, _) => of_command(Capability::Jobs, command),
        Request::FindJob(_) | Request::ListJobs => vec![Capability::Jobs],
        Request::ConnectPort(_) => vec![Capability::Ports],
        Request::OpenRead(..) | Request::OpenWrite(..) => vec![Capability::FileStreams],
        Request::Changes(..) => vec![Capability::Changes],
        Request::Usage => vec![Capability::Usage],
        Request::Watch(..) => vec![Capability::Watch],
        Request::Pause | Request::Resume => vec![Capability::Pause],
        Request::Fork(_) => vec![Capability::Fork],
        Request::Snapshot(_) => vec![Capability::Snapshot],
        Request::Attach(_) | Request::Destroy(_) => vec![Capability::Attach],
        Request::List(_) => vec![Capability::List],
        Request::ListSnapshots(_) => vec![Capability::SnapshotList],
        Request::DeleteSnapshot(_) => vec![Capability::SnapshotDelete],
        Request::EgressDecisions(_) | Request::RestrictEgress(_) => vec![Capability::EgressByName],
        _ => Vec::new(),
    }
}

impl Around for CapabilityGuard {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let capabilities = match call.target {
            Target::Sandbox(sandbox) => sandbox.capabilities(),
            Target::Provider(provider) => provider.capabilities(),
        };
        for capability in needs(call.request) {
            if let Err(mut error) = capabilities.require(capability, call.operation()) {
                if let Some(id) = call.sandbox_id() {
                    error = error.with_sandbox(id);
                }
                return Err(match call.command() {
                    Some(_) => error.with_execution(Execution::NotStarted),
                    None => error,
                });
            }
        }
        attempt().await
    }
}
