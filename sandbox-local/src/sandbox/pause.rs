//! Holding everything in a local sandbox still, for as long as its owner wants.
//!
//! The agent stops every process and proves that all stand still; the engine's gate keeps new ones
//! out meanwhile. It must never say that it is paused while something runs.

use std::sync::{MutexGuard, PoisonError};

use sandbox_core::{Error, ErrorKind, Execution, Operation, Result};

use super::LocalSandbox;
use crate::engine::Frozen;

impl LocalSandbox {
    fn paused(&self) -> MutexGuard<'_, Option<Frozen>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything stands still by [`pause_now`](Self::pause_now).
    pub(super) fn is_paused(&self) -> bool {
        self.paused().is_some()
    }

    /// Refuses what needs the sandbox's programs while it is paused.
    pub(super) fn check_runs(&self, operation: Operation) -> Result<()> {
        if !self.is_paused() {
            return Ok(());
        }
        let error = self.named(
            Error::new(ErrorKind::Busy, operation)
                .with_message("the sandbox is paused")
                .with_hint("resume it first"),
        );
        Err(match operation {
            Operation::Exec | Operation::Spawn | Operation::StartJob => {
                error.with_execution(Execution::NotStarted)
            }
            _ => error,
        })
    }

    /// See [`Sandbox::pause`](sandbox_core::Sandbox::pause).
    pub(super) async fn pause_now(&self) -> Result<()> {
        const OP: Operation = Operation::Pause;
        let running = self.running(OP).await?;
        // One at a time: the second finds the first's result.
        let _turn = self.pausing.lock().await;
        if self.is_paused() {
            return Ok(());
        }
        let lost = |why| self.lost(why, &running.cgroup, OP);
        let frozen = running.engine.freeze().await.map_err(lost)?;
        if !frozen.is_still() {
            return Err(self.named(
                Error::new(ErrorKind::Busy, OP)
                    .with_message("the sandbox's processes could not be held still, and run on")
                    .with_hint("try again, or end the processes that send each other SIGCONT")
                    .with_retryable(true),
            ));
        }
        *self.paused() = Some(frozen);
        Ok(())
    }

    /// See [`Sandbox::resume`](sandbox_core::Sandbox::resume).
    pub(super) async fn resume_now(&self) -> Result<()> {
        const OP: Operation = Operation::Resume;
        let running = self.running(OP).await?;
        let _turn = self.pausing.lock().await;
        let Some(frozen) = self.paused().take() else {
            return Ok(());
        };
        let stood_still = frozen.thaw().await;
        let stood_still = stood_still.map_err(|why| self.lost(why, &running.cgroup, OP))?;
        if !stood_still {
            tracing::debug!(id = %self.id, "a process of a paused sandbox was continued by another");
        }
        Ok(())
    }
}
