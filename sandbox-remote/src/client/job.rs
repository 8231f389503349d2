//! Jobs behind a server: each question is a request, and none depends on the one before.
//!
//! A handle keeps its sandbox, also for a log that is read after the sandbox was closed.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{
    Command, Exit, Job, JobControl, JobInfo, JobKey, JobLog, JobOptions, LogOptions, Operation,
    Result, Signal, TerminalSize,
};
use serde::de::DeserializeOwned;

use super::call::Call;
use super::state::SandboxState;
use crate::wire::{self, Ask, Base64};

/// Most bytes of input in one request.
const INPUT: usize = 1 << 20;

/// Starts a job, or finds the one that there is. It goes on if the future is dropped.
pub(super) async fn start(
    sandbox: &Arc<SandboxState>,
    key: &JobKey,
    command: Command,
    options: JobOptions,
) -> Result<Job> {
    let body = wire::StartJob {
        key: key.clone(),
        run: wire::Run::from(command),
        options,
    };
    let path = sandbox.path("start-job");
    let call = Call::named(Operation::StartJob, &path).unstoppable();
    let info: JobInfo = sandbox.call(call, &body).await?;
    Ok(handle(sandbox, &info))
}

/// Finds a job by its key.
pub(super) async fn find(sandbox: &Arc<SandboxState>, key: &JobKey) -> Result<Job> {
    let body = wire::Key { key: key.clone() };
    let info: JobInfo = sandbox.read(Operation::FindJob, "find-job", &body).await?;
    Ok(handle(sandbox, &info))
}

fn handle(sandbox: &Arc<SandboxState>, info: &JobInfo) -> Job {
    let control = Remote {
        sandbox: Arc::clone(sandbox),
        key: info.key.clone(),
        started: info.started,
    };
    Job::new(info.key.clone(), Arc::new(control))
}

#[derive(Debug)]
struct Remote {
    sandbox: Arc<SandboxState>,
    key: JobKey,
    /// Tells it from a later job under its key.
    started: SystemTime,
}

impl Remote {
    /// Asks, also in a sandbox that is closed.
    async fn ask<T: DeserializeOwned>(&self, operation: Operation, ask: Ask) -> Result<T> {
        let path = self.sandbox.path("ask-job");
        let call = Call::read(operation, Method::POST, &path);
        // The server finds the job first, and may fail there.
        let asked = self.send(call, ask).await;
        asked.map_err(|error| error.with_operation(operation))
    }

    async fn change(&self, operation: Operation, ask: Ask) -> Result<()> {
        let path = self.sandbox.path("change-job");
        let call = Call::named(operation, &path);
        let changed: Result<wire::Nothing> = self.send(call, ask).await;
        changed
            .map(drop)
            .map_err(|error| error.with_operation(operation))
    }

    async fn send<T: DeserializeOwned>(&self, call: Call<'_>, ask: Ask) -> Result<T> {
        let about = wire::AskJob {
            key: self.key.clone(),
            started: self.started,
            ask,
        };
        self.sandbox.call(call, &about).await
    }
}

#[async_trait]
impl JobControl for Remote {
    async fn info(&self) -> Result<JobInfo> {
        self.ask(Operation::FindJob, Ask::Info).await
    }

    async fn read_log(&self, from: u64, options: LogOptions) -> Result<JobLog> {
        let begun = Instant::now();
        loop {
            let mut options = options.clone();
            options.wait = options
                .wait
                .map(|time| time.saturating_sub(begun.elapsed()));
            let waits = options.wait.is_some_and(|time| !time.is_zero());
            let ask = Ask::ReadLog { from, options };
            let log: wire::WireLog = self.ask(Operation::ReadLog, ask).await?;
            let log = JobLog::from(log);
            // The server waits for a part of the time.
            if !waits || log.ended || log.lost > 0 || !log.chunks.is_empty() {
                return Ok(log);
            }
        }
    }

    async fn write_stdin(&self, offset: u64, bytes: Bytes) -> Result<u64> {
        let end = offset.saturating_add(bytes.len() as u64);
        let mut at = offset;
        loop {
            let skip = usize::try_from(at - offset).unwrap_or(usize::MAX);
            let rest = bytes.slice(skip.min(bytes.len())..);
            let part = rest.slice(..rest.len().min(INPUT));
            let ask = Ask::WriteStdin {
                offset: at,
                bytes: Base64(part),
            };
            let taken: wire::Taken = self.ask(Operation::WriteStdin, ask).await?;
            if taken.offset >= end {
                return Ok(taken.offset);
            }
            at = taken.offset.max(at);
        }
    }

    async fn close_stdin(&self) -> Result<()> {
        let wire::Nothing {} = self.ask(Operation::WriteStdin, Ask::CloseStdin).await?;
        Ok(())
    }

    async fn wait(&self) -> Result<Exit> {
        loop {
            match self.ask(Operation::WaitJob, Ask::Wait).await? {
                wire::Waited::Running => {}
                wire::Waited::Ended(exit) => return Ok(exit),
            }
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let ask = Ask::Signal { signal: signal.0 };
        self.change(Operation::Signal, ask).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        let ask = Ask::Resize { size };
        let wire::Nothing {} = self.ask(Operation::Resize, ask).await?;
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        self.change(Operation::StopJob, Ask::Stop).await
    }

    async fn forget(&self) -> Result<()> {
        self.change(Operation::ForgetJob, Ask::Forget).await
    }
}
