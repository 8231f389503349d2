//! Jobs with one fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Command, ErrorKind, Exit, Job, JobControl, JobInfo, JobKey, JobLog, JobOptions, JobState,
    LogOptions, Result, Sandbox, Signal, TerminalSize,
};

use super::Mutant;

/// Starts a job, with the faults of the start.
pub(super) async fn start(
    mutant: Mutant,
    inner: &dyn Sandbox,
    key: &JobKey,
    command: Command,
    options: JobOptions,
) -> Result<Job> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut key = key.clone();
    if mutant == Mutant::JobStartsAgain && inner.find_job(&key).await.is_ok() {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        key = JobKey::new(format!("{key}-{number}"));
    }
    match inner.start_job(&key, command, options).await {
        Err(error)
            if mutant == Mutant::JobConflictHidden && error.kind() == ErrorKind::Conflict =>
        {
            inner.find_job(&key).await
        }
        started => started,
    }
}

/// Plants the mutant in a job, if it is one of jobs.
pub(super) fn plant(mutant: Mutant, job: Job) -> Job {
    match mutant {
        Mutant::LogGapHidden
        | Mutant::StdinRepeated
        | Mutant::JobEndsWithHandle
        | Mutant::RunningJobForgotten => job.map_control(|inner| Faulty { inner, mutant }),
        _ => job,
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn JobControl>,
    mutant: Mutant,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if self.mutant == Mutant::JobEndsWithHandle {
            let inner = self.inner.clone();
            tokio::spawn(async move { inner.stop().await });
        }
    }
}

#[async_trait]
impl JobControl for Faulty {
    async fn info(&self) -> Result<JobInfo> {
        self.inner.info().await
    }

    async fn read_log(&self, from: u64, options: LogOptions) -> Result<JobLog> {
        let mut log = self.inner.read_log(from, options).await?;
        if self.mutant == Mutant::LogGapHidden {
            log.lost = 0;
        }
        Ok(log)
    }

    async fn write_stdin(&self, offset: u64, bytes: Bytes) -> Result<u64> {
        match self.mutant {
            Mutant::StdinRepeated => {
                let next = self.inner.info().await?.stdin_next;
                self.inner.write_stdin(next.max(offset), bytes).await
            }
            _ => self.inner.write_stdin(offset, bytes).await,
        }
    }

    async fn close_stdin(&self) -> Result<()> {
        self.inner.close_stdin().await
    }

    async fn wait(&self) -> Result<Exit> {
        self.inner.wait().await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.inner.resize(size).await
    }

    async fn stop(&self) -> Result<()> {
        self.inner.stop().await
    }

    async fn forget(&self) -> Result<()> {
        if self.mutant == Mutant::RunningJobForgotten
            && self.inner.info().await?.state == JobState::Running
        {
            return Ok(());
        }
        self.inner.forget().await
    }
}
