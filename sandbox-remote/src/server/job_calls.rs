//! Jobs of the sandboxes as routes: started once, and asked by any client of the owner.
//!
//! A job does not end with its client. While it runs its sandbox is in use. Must never start a job
//! without a place among the commands.

use std::sync::Arc;

use sandbox_core::{
    Capability, Command, Error, ErrorKind, Execution, Job, JobKey, Operation, Result, Signal,
};

use super::asked::Asked;
use super::body::Buffered;
use super::reply::{Reply, refused};
use super::sandboxes::Known;
use super::state::State;
use super::used::{Used, Work, sandbox_of};
use crate::wire::{self, Ask};

/// Most bytes of a log in one answer.
const LOG: u64 = 1 << 20;

/// Starts a job, or finds the one that there is.
pub(super) fn start(
    state: Arc<State>,
    asked: &Asked,
    body: &Buffered,
    (held, sandbox): Used,
) -> Result<Work> {
    const OP: Operation = Operation::StartJob;
    let wire::StartJob { key, run, options } = asked.parse(body)?;
    let command = Command::from(run);
    if command.terminal.is_some() {
        let required = state.capabilities.require(Capability::Terminal, OP);
        required.map_err(|error| error.with_execution(Execution::NotStarted))?;
    }
    let permit = state.command_place(OP)?;
    let id = asked.subject.clone();
    Ok(Box::pin(async move {
        let job = sandbox.start_job(&key, command, options).await?;
        let info = job.info().await?;
        if state.jobs.insert(&id, &job) {
            // Its place, and its sandbox in use, until it ends.
            tokio::spawn(async move {
                let _ = job.wait().await;
                drop((permit, held));
            });
        }
        Ok((Reply::json(&info, OP)?, None))
    }))
}

/// The job that a call is about, also of a sandbox that was closed a moment ago.
async fn job(
    state: &State,
    asked: &Asked,
    wire::AskJob { key, started, .. }: &wire::AskJob,
) -> Result<Job> {
    let job = under_key(state, asked, key).await?;
    if job.info().await?.started == *started {
        return Ok(job);
    }
    let why = format!("the job {key} was forgotten, and another has its key");
    Err(refused(ErrorKind::NotFound, asked.operation, why))
}

async fn under_key(state: &State, asked: &Asked, key: &JobKey) -> Result<Job> {
    let kept = |error: Error| state.jobs.get(&asked.subject, key).ok_or(error);
    match state.sandboxes.get(&asked.subject) {
        Known::Open(_held, sandbox) => match sandbox.find_job(key).await {
            Err(error) if error.kind() == ErrorKind::Closed => kept(error),
            found => found,
        },
        _ => match sandbox_of(state, asked) {
            Err(error) => kept(error),
            Ok((_held, sandbox)) => sandbox.find_job(key).await,
        },
    }
}

/// Answers what may be asked again at any time.
pub(super) async fn read(state: &Arc<State>, asked: &Asked, body: &Buffered) -> Result<Reply> {
    let about: wire::AskJob = asked.parse(body)?;
    if about.ask.changes() {
        return Err(asked.invalid("this changes the job: it has another route"));
    }
    let wait = asked.wait()?;
    let job = job(state, asked, &about).await?;
    let operation = asked.operation;
    match about.ask {
        Ask::ReadLog { from, mut options } => {
            options.limit = options.limit.min(LOG);
            options.wait = options.wait.map(|time| time.min(wait));
            let log = job.read_log(from, options).await?;
            Reply::json(&wire::WireLog::from(log), operation)
        }
        Ask::WriteStdin { offset, bytes } => {
            // A program that does not read now is asked for again.
            let written = tokio::time::timeout(wait, job.write_stdin(offset, bytes.0)).await;
            let offset = match written {
                Ok(written) => written?,
                Err(_) => job.info().await?.stdin_next,
            };
            let closed = false;
            Reply::json(&wire::Taken { offset, closed }, operation)
        }
        Ask::Wait => {
            let waited = match tokio::time::timeout(wait, job.wait()).await {
                Ok(exit) => wire::Waited::Ended(exit?),
                Err(_) => wire::Waited::Running,
            };
            Reply::json(&waited, operation)
        }
        Ask::CloseStdin => {
            job.close_stdin().await?;
            Reply::json(&wire::Nothing {}, operation)
        }
        Ask::Resize { size } => {
            job.resize(size).await?;
            Reply::json(&wire::Nothing {}, operation)
        }
        _ => Reply::json(&job.info().await?, operation),
    }
}

/// Does what must not be done twice.
pub(super) fn change(state: Arc<State>, asked: &Asked, body: &Buffered) -> Result<Work> {
    let about: wire::AskJob = asked.parse(body)?;
    let operation = asked.operation;
    let asked = asked.clone();
    Ok(Box::pin(async move {
        let job = job(&state, &asked, &about).await?;
        match about.ask {
            Ask::Signal { signal } => job.signal(Signal(signal)).await?,
            Ask::Stop => job.stop().await?,
            Ask::Forget => {
                job.forget().await?;
                state.jobs.remove(&asked.subject, &about.key);
            }
            _ => {
                let why = "this changes nothing: it has another route";
                return Err(refused(ErrorKind::InvalidInput, operation, why));
            }
        }
        Ok((Reply::json(&wire::Nothing {}, operation)?, None))
    }))
}
