//! The control of a process with one fault.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{Exit, Process, ProcessControl, Result, Signal};

use super::Mutant;

/// Plants the mutant in a process, if it is one of processes.
pub(super) fn plant(mutant: Mutant, process: Process) -> Process {
    match mutant {
        Mutant::KillReturnsEarly
        | Mutant::KillDoesNothing
        | Mutant::DroppedProcessLives
        | Mutant::SignalSwallowed => process.map_control(|inner| Faulty {
            inner: Arc::from(inner),
            mutant,
        }),
        _ => process,
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ProcessControl>,
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
        self.inner.wait().await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        match self.mutant {
            Mutant::SignalSwallowed => Ok(()),
            _ => self.inner.signal(signal).await,
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
