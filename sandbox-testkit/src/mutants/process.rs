//! The control of a process with one fault.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{
    Error, ErrorKind, Exit, ExitCause, ExitStatus, Operation, Process, ProcessControl, Result,
    Signal, TerminalSize,
};

use super::Mutant;

/// Plants the mutant in a process, if it is one of processes. `handle` lives as long as the handle
/// of its sandbox.
pub(super) fn plant(mutant: Mutant, process: Process, handle: &Arc<()>) -> Process {
    match mutant {
        Mutant::KillReturnsEarly
        | Mutant::KillDoesNothing
        | Mutant::DroppedProcessLives
        | Mutant::KillSaysOutOfMemory
        | Mutant::ProcessEndsWithHandle
        | Mutant::ResizeOfNoTerminal
        | Mutant::SignalSwallowed => process.map_control(|inner| Faulty {
            inner: Arc::from(inner),
            handle: Arc::downgrade(handle),
            mutant,
        }),
        _ => process,
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ProcessControl>,
    handle: Weak<()>,
    mutant: Mutant,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if self.mutant == Mutant::DroppedProcessLives {
            // Somewhere a handle is kept for ever.
            std::mem::forget(self.inner.clone());
        }
    }
}

#[async_trait]
impl ProcessControl for Faulty {
    async fn wait(&self) -> Result<Exit> {
        if self.mutant == Mutant::ProcessEndsWithHandle && self.handle.strong_count() == 0 {
            return Err(Error::new(ErrorKind::Lost, Operation::Spawn)
                .with_message("the sandbox's last handle was dropped"));
        }
        let exit = self.inner.wait().await?;
        Ok(match (self.mutant, exit.status) {
            (Mutant::KillSaysOutOfMemory, ExitStatus::Signal(9)) => {
                exit.cause(ExitCause::OutOfMemory)
            }
            _ => exit,
        })
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        match self.mutant {
            Mutant::SignalSwallowed => Ok(()),
            _ => self.inner.signal(signal).await,
        }
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        match self.mutant {
            Mutant::ResizeOfNoTerminal => Ok(()),
            _ => self.inner.resize(size).await,
        }
    }

    async fn kill(&self) -> Result<()> {
        match self.mutant {
            Mutant::KillDoesNothing => Ok(()),
            Mutant::KillReturnsEarly => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(600)).await;
                    inner.kill().await
                });
                Ok(())
            }
            _ => self.inner.kill().await,
        }
    }
}
