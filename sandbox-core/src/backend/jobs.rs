//! Jobs of one sandbox over what starts its processes.
//!
//! A key must never have two commands: it is taken before the start, and freed only by a failure
//! that proves that nothing ran.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::AbortHandle;

use super::require_time;
use crate::{
    Command, Error, ErrorKind, Execution, Exit, Job, JobControl, JobInfo, JobKey, JobLog,
    JobOptions, JobState, LogChunk, LogOptions, LogStream, Operation, Process, ProcessStdin,
    Result, SandboxId, Signal, Stdin, TerminalSize,
};

/// Jobs of one sandbox, ended ones included. Beyond that one has to be forgotten.
const MOST: usize = 1024;

/// Number of bytes of a stream that are read at once.
const CHUNK: usize = 64 << 10;

/// A part of a log is joined to the one before it while it has fewer bytes.
const JOINED: usize = 4 << 10;

/// A log keeps one part for so many bytes of its limit, so that a program whose streams take turns
/// byte by byte costs no more memory than another.
const PART: u64 = 128;

/// The jobs of one sandbox, for a backend that can spawn.
///
/// A backend keeps one for each sandbox and forwards [`start_job`](crate::Sandbox::start_job),
/// [`find_job`](crate::Sandbox::find_job) and [`list_jobs`](crate::Sandbox::list_jobs) to it.
/// Dropping it kills what runs. The processes that the backend hands it must not keep the sandbox
/// alive, or the sandbox would keep itself.
pub struct Jobs {
    shared: Arc<Shared>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("sandbox", &self.shared.sandbox)
            .field("count", &lock(&self.shared.entries).len())
            .finish()
    }
}

struct Shared {
    sandbox: SandboxId,
    entries: Mutex<HashMap<JobKey, Arc<Entry>>>,
}

impl Drop for Jobs {
    fn drop(&mut self) {
        for entry in lock(&self.shared.entries).values() {
            entry.abandon();
        }
    }
}

impl Jobs {
    /// The jobs of this sandbox, none so far.
    pub fn new(sandbox: SandboxId) -> Self {
        Self {
            shared: Arc::new(Shared {
                sandbox,
                entries: Mutex::default(),
            }),
        }
    }

    /// Starts a job, or finds it if the key was started with the same command and options. `spawn`
    /// starts the process and is called at most once; it goes on if this future is dropped.
    ///
    /// # Errors
    /// Those of [`start_job`](crate::Sandbox::start_job).
    pub async fn start<F>(
        &self,
        key: &JobKey,
        command: Command,
        options: JobOptions,
        spawn: impl FnOnce(Command) -> F + Send,
    ) -> Result<Job>
    where
        F: Future<Output = Result<Process>> + Send + 'static,
    {
        const OP: Operation = Operation::StartJob;
        let not_started = |error: Error| {
            error
                .with_sandbox(self.shared.sandbox.clone())
                .with_execution(Execution::NotStarted)
        };
        key.validate(OP).map_err(not_started)?;
        command.validate(OP).map_err(not_started)?;
        let entry = {
            let mut entries = lock(&self.shared.entries);
            match entries.get(key) {
                Some(entry) => {
                    entry.check_same(&command, &options).map_err(not_started)?;
                    entry.clone()
                }
                None if entries.len() >= MOST => {
                    return Err(not_started(
                        Error::new(ErrorKind::LimitExceeded, OP)
                            .with_message(format!("the sandbox has {MOST} jobs"))
                            .with_hint("forget those that have ended"),
                    ));
                }
                None => {
                    let entry = Arc::new(Entry::new(
                        self.shared.sandbox.clone(),
                        key.clone(),
                        command.clone(),
                        options,
                    ));
                    entries.insert(key.clone(), entry.clone());
                    let shared = Arc::downgrade(&self.shared);
                    entry.run(spawn(command), shared);
                    entry
                }
            }
        };
        entry.started().await?;
        Ok(entry.job(&self.shared))
    }

    /// The job that was started under a key.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn find(&self, key: &JobKey) -> Result<Job> {
        let entry = lock(&self.shared.entries).get(key).cloned();
        match entry {
            Some(entry) => Ok(entry.job(&self.shared)),
            None => Err(missing(Operation::FindJob, key, &self.shared.sandbox)),
        }
    }

    /// All jobs, those that were started first coming first.
    pub fn list(&self) -> Vec<JobInfo> {
        let entries: Vec<_> = lock(&self.shared.entries).values().cloned().collect();
        let mut jobs: Vec<JobInfo> = entries.iter().map(|entry| entry.info()).collect();
        jobs.sort_by(|a, b| (a.started, &a.key).cmp(&(b.started, &b.key)));
        jobs
    }
}

fn missing(operation: Operation, key: &JobKey, sandbox: &SandboxId) -> Error {
    Error::new(ErrorKind::NotFound, operation)
        .with_message(format!(
            "no job was started under the key {key:?}, or it was forgotten",
            key = key.as_str()
        ))
        .with_sandbox(sandbox.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One job.
struct Entry {
    sandbox: SandboxId,
    key: JobKey,
    command: Command,
    options: JobOptions,
    asked: SystemTime,
    phase: watch::Sender<Phase>,
    log: Mutex<Log>,
    /// Counts what is put into the log.
    grown: watch::Sender<u64>,
    stdin: AsyncMutex<Option<ProcessStdin>>,
    /// Number of bytes that standard input has taken.
    taken: watch::Sender<u64>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Clone)]
enum Phase {
    Starting,
    Running(Arc<Process>),
    Ended(Exit),
    Failed(Error),
    /// The sandbox was dropped meanwhile.
    Abandoned,
}

impl Entry {
    fn new(sandbox: SandboxId, key: JobKey, command: Command, options: JobOptions) -> Self {
        Self {
            sandbox,
            key,
            log: Mutex::new(Log::new(options.log_limit)),
            command,
            options,
            asked: SystemTime::now(),
            phase: watch::Sender::new(Phase::Starting),
            grown: watch::Sender::new(0),
            stdin: AsyncMutex::default(),
            taken: watch::Sender::new(0),
            task: Mutex::default(),
        }
    }

    fn error(&self, kind: ErrorKind, operation: Operation) -> Error {
        Error::new(kind, operation).with_sandbox(self.sandbox.clone())
    }

    fn check_same(&self, command: &Command, options: &JobOptions) -> Result<()> {
        if self.command.is_same(command) && self.options == *options {
            return Ok(());
        }
        Err(self
            .error(ErrorKind::Conflict, Operation::StartJob)
            .with_message(format!(
                "the key {:?} was started with another command",
                self.key.as_str()
            ))
            .with_hint("use another key, or stop and forget the job first"))
    }

    /// Starts the process and reads its output, in a task of its own.
    fn run(
        self: &Arc<Self>,
        spawn: impl Future<Output = Result<Process>> + Send + 'static,
        shared: Weak<Shared>,
    ) {
        let entry = Followed(self.clone());
        let task = tokio::spawn(async move {
            let process = match spawn.await {
                Ok(process) => process,
                Err(error) => return entry.0.not_started(error, &shared),
            };
            entry.0.follow(process).await;
        });
        *lock(&self.task) = Some(task.abort_handle());
    }

    fn not_started(&self, error: Error, shared: &Weak<Shared>) {
        // Only what certainly did not run may be started again.
        if error.execution() == Some(Execution::NotStarted)
            && let Some(shared) = shared.upgrade()
        {
            lock(&shared.entries).remove(&self.key);
        }
        self.finish(Phase::Failed(error));
    }

    async fn follow(&self, mut process: Process) {
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        *self.stdin.lock().await = process.stdin.take();
        let process = Arc::new(process);
        self.phase.send_replace(Phase::Running(process.clone()));
        let (exit, (), ()) = tokio::join!(
            process.wait(),
            self.keep(stdout, LogStream::Stdout),
            self.keep(stderr, LogStream::Stderr),
        );
        // Not while a write waits for a program that reads nothing any more.
        if let Ok(mut stdin) = self.stdin.try_lock() {
            *stdin = None;
        }
        self.finish(match exit {
            Ok(exit) => Phase::Ended(exit),
            Err(error) => Phase::Failed(error),
        });
    }

    fn finish(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.grown.send_modify(|count| *count += 1);
    }

    /// The sandbox has ended.
    fn abandon(&self) {
        self.end(Phase::Abandoned);
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }

    /// Ends it in this way, unless it has ended.
    fn end(&self, how: Phase) {
        let ended = self.phase.send_if_modified(|phase| {
            let running = matches!(phase, Phase::Starting | Phase::Running(_));
            if running {
                *phase = how;
            }
            running
        });
        if ended {
            self.grown.send_modify(|count| *count += 1);
        }
    }

    /// Reads a stream to its end into the log.
    async fn keep(&self, stream: Option<impl AsyncRead + Unpin>, which: LogStream) {
        let Some(mut stream) = stream else { return };
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            lock(&self.log).push(which, &bytes);
            self.grown.send_modify(|count| *count += 1);
        }
    }

    /// Waits until it is known whether the process started.
    async fn started(&self) -> Result<()> {
        let mut phase = self.phase.subscribe();
        let known = phase
            .wait_for(|phase| !matches!(phase, Phase::Starting))
            .await;
        match known.as_deref() {
            // What ran and was cut was started; `wait` has the error.
            Ok(Phase::Failed(error)) if error.execution() != Some(Execution::Interrupted) => {
                Err(error.clone())
            }
            Ok(Phase::Abandoned) => Err(self.abandoned(Operation::StartJob)),
            _ => Ok(()),
        }
    }

    fn abandoned(&self, operation: Operation) -> Error {
        self.error(ErrorKind::Lost, operation)
            .with_message("the sandbox's last handle was dropped")
            .with_execution(Execution::Unknown)
    }

    fn job(self: &Arc<Self>, shared: &Arc<Shared>) -> Job {
        let control = Control {
            entry: self.clone(),
            shared: Arc::downgrade(shared),
        };
        Job::new(self.key.clone(), Arc::new(control))
    }

    fn info(&self) -> JobInfo {
        let state = match &*self.phase.borrow() {
            Phase::Starting => JobState::Starting,
            Phase::Running(_) => JobState::Running,
            Phase::Ended(exit) => JobState::Ended(exit.status),
            Phase::Failed(error) => JobState::Failed(error.kind()),
            Phase::Abandoned => JobState::Failed(ErrorKind::Lost),
        };
        let log = lock(&self.log);
        JobInfo::new(self.key.clone(), state, self.asked)
            .log(log.first, log.next)
            .stdin(*self.taken.borrow())
    }

    /// Returns what is there of the log from an offset on.
    fn look(&self, from: u64, limit: u64) -> Result<JobLog> {
        const OP: Operation = Operation::ReadLog;
        if limit == 0 {
            return Err(self
                .error(ErrorKind::InvalidInput, OP)
                .with_message("a limit of zero bytes reads nothing"));
        }
        // Asked first: what ends after the look at the log is told by the next one.
        let over = matches!(
            &*self.phase.borrow(),
            Phase::Ended(_) | Phase::Failed(_) | Phase::Abandoned
        );
        let log = lock(&self.log);
        if from > log.next {
            return Err(self
                .error(ErrorKind::InvalidInput, OP)
                .with_message(format!(
                    "the log of {:?} has {} bytes, and none at {from}",
                    self.key.as_str(),
                    log.next
                ))
                .with_hint("read on at the `next` that the last reading gave"));
        }
        let mut found = log.read(from, limit);
        found.ended = over && found.next == log.next;
        Ok(found)
    }
}

/// A job whose task is there: without one nothing would tell its end.
struct Followed(Arc<Entry>);

impl Drop for Followed {
    fn drop(&mut self) {
        let error = self.0.error(ErrorKind::Lost, Operation::WaitJob);
        let error = error
            .with_message("the tokio runtime that followed the job has ended")
            .with_execution(Execution::Unknown);
        self.0.end(Phase::Failed(error));
    }
}

/// A handle's control.
struct Control {
    entry: Arc<Entry>,
    shared: Weak<Shared>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("sandbox", &self.entry.sandbox)
            .field("key", &self.entry.key)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// The process, while it runs.
    async fn process(&self) -> Option<Arc<Process>> {
        let mut phase = self.entry.phase.subscribe();
        let known = phase
            .wait_for(|phase| !matches!(phase, Phase::Starting))
            .await;
        match known.as_deref() {
            Ok(Phase::Running(process)) => Some(process.clone()),
            _ => None,
        }
    }

    /// Refuses what was forgotten.
    fn known(&self, operation: Operation) -> Result<()> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok(());
        };
        let known = lock(&shared.entries)
            .get(&self.entry.key)
            .is_some_and(|entry| Arc::ptr_eq(entry, &self.entry));
        match known {
            true => Ok(()),
            false => Err(missing(operation, &self.entry.key, &self.entry.sandbox)),
        }
    }

    fn no_stdin(&self) -> Result<()> {
        let command = &self.entry.command;
        if matches!(command.stdin, Stdin::Piped) || command.terminal.is_some() {
            return Ok(());
        }
        Err(self
            .entry
            .error(ErrorKind::InvalidInput, Operation::WriteStdin)
            .with_message(format!(
                "the job {:?} was started without a standard input to write to",
                self.entry.key.as_str()
            ))
            .with_hint("start it with Command::stdin_piped or Command::terminal"))
    }
}

#[async_trait]
impl JobControl for Control {
    async fn info(&self) -> Result<JobInfo> {
        self.known(Operation::FindJob)?;
        Ok(self.entry.info())
    }

    async fn read_log(&self, from: u64, options: LogOptions) -> Result<JobLog> {
        self.known(Operation::ReadLog)?;
        let entry = &self.entry;
        let mut grown = entry.grown.subscribe();
        grown.mark_unchanged();
        let found = entry.look(from, options.limit)?;
        let (Some(wait), true) = (options.wait, found.chunks.is_empty() && !found.ended) else {
            return Ok(found);
        };
        require_time(Operation::ReadLog)
            .map_err(|error| error.with_sandbox(entry.sandbox.clone()))?;
        // Neither the sender nor the entry goes away meanwhile.
        let more = async {
            loop {
                if grown.changed().await.is_err() {
                    return;
                }
                match entry.look(from, options.limit) {
                    Ok(found) if found.chunks.is_empty() && !found.ended => {}
                    _ => return,
                }
            }
        };
        let _ = tokio::time::timeout(wait, more).await;
        entry.look(from, options.limit)
    }

    async fn write_stdin(&self, offset: u64, bytes: Bytes) -> Result<u64> {
        const OP: Operation = Operation::WriteStdin;
        self.known(OP)?;
        self.no_stdin()?;
        self.process().await;
        let entry = &self.entry;
        // One writer at a time, so that offsets mean something.
        let mut stdin = entry.stdin.lock().await;
        let taken = *entry.taken.borrow();
        let Some(before) = taken.checked_sub(offset) else {
            return Err(entry
                .error(ErrorKind::InvalidInput, OP)
                .with_message(format!(
                    "standard input has {taken} bytes so far; those up to {offset} would be missing"
                ))
                .with_hint("write at the `stdin_next` that the job's info gives"));
        };
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        let mut left = bytes.get(before..).unwrap_or_default();
        while !left.is_empty() {
            let Some(pipe) = stdin.as_mut() else {
                return Err(entry.error(ErrorKind::Closed, OP).with_message(format!(
                    "the standard input of {:?} is closed",
                    entry.key.as_str()
                )));
            };
            match pipe.write(left).await {
                Ok(len @ 1..) => {
                    left = left.get(len..).unwrap_or_default();
                    entry.taken.send_modify(|taken| *taken += len as u64);
                }
                // The pipe takes nothing any more.
                Ok(_) | Err(_) => *stdin = None,
            }
        }
        Ok(*entry.taken.borrow())
    }

    async fn close_stdin(&self) -> Result<()> {
        self.known(Operation::WriteStdin)?;
        self.no_stdin()?;
        if self.entry.command.terminal.is_some() {
            return Err(self
                .entry
                .error(ErrorKind::InvalidInput, Operation::WriteStdin)
                .with_message("the input of a terminal has no end")
                .with_hint("write \\x04 at the start of a line"));
        }
        self.process().await;
        if let Some(mut stdin) = self.entry.stdin.lock().await.take() {
            // A pipe without a reader is closed already.
            let _ = stdin.shutdown().await;
        }
        Ok(())
    }

    async fn wait(&self) -> Result<Exit> {
        self.known(Operation::WaitJob)?;
        let mut phase = self.entry.phase.subscribe();
        let over = phase
            .wait_for(|phase| !matches!(phase, Phase::Starting | Phase::Running(_)))
            .await;
        match over.as_deref() {
            Ok(Phase::Ended(exit)) => Ok(*exit),
            Ok(Phase::Failed(error)) => Err(error.clone()),
            _ => Err(self.entry.abandoned(Operation::WaitJob)),
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.known(Operation::Signal)?;
        match self.process().await {
            Some(process) => process.signal(signal).await,
            None => Ok(()),
        }
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.known(Operation::Resize)?;
        match self.process().await {
            Some(process) => process.resize(size).await,
            None => Ok(()),
        }
    }

    async fn stop(&self) -> Result<()> {
        self.known(Operation::StopJob)?;
        let Some(process) = self.process().await else {
            return Ok(());
        };
        process.kill().await?;
        drop(process);
        // So that what follows finds it ended, with all of its output.
        let _ = self.wait().await;
        Ok(())
    }

    async fn forget(&self) -> Result<()> {
        const OP: Operation = Operation::ForgetJob;
        self.known(OP)?;
        if !self.entry.info().state.is_final() {
            return Err(self
                .entry
                .error(ErrorKind::Busy, OP)
                .with_message(format!("the job {:?} runs", self.entry.key.as_str()))
                .with_hint("stop it, or wait for it, first"));
        }
        if let Some(shared) = self.shared.upgrade() {
            let mut entries = lock(&shared.entries);
            if entries
                .get(&self.entry.key)
                .is_some_and(|entry| Arc::ptr_eq(entry, &self.entry))
            {
                entries.remove(&self.entry.key);
            }
        }
        Ok(())
    }
}

/// The last bytes of both streams.
struct Log {
    parts: VecDeque<LogChunk>,
    limit: u64,
    /// The offset of the oldest byte that is kept.
    first: u64,
    /// The offset of the next byte.
    next: u64,
}

impl Log {
    fn new(limit: u64) -> Self {
        Self {
            parts: VecDeque::new(),
            limit,
            first: 0,
            next: 0,
        }
    }

    fn push(&mut self, stream: LogStream, bytes: &[u8]) {
        match self.parts.back_mut() {
            // Programs that write byte by byte would cost a part for each.
            Some(last) if last.stream == stream && last.bytes.len() + bytes.len() <= JOINED => {
                last.bytes = [&last.bytes[..], bytes].concat().into();
            }
            _ => {
                let bytes = Bytes::copy_from_slice(bytes);
                self.parts
                    .push_back(LogChunk::new(self.next, stream, bytes));
            }
        }
        self.next += bytes.len() as u64;
        self.trim();
    }

    /// Lets go of what is beyond the limits, the oldest first.
    fn trim(&mut self) {
        let mut first = self.next.saturating_sub(self.limit).max(self.first);
        if self.parts.len() as u64 > self.limit / PART + 1
            && let Some(oldest) = self.parts.front()
        {
            first = first.max(oldest.end());
        }
        while let Some(oldest) = self.parts.front_mut() {
            if oldest.end() <= first {
                self.parts.pop_front();
                continue;
            }
            if oldest.offset < first {
                let cut = usize::try_from(first - oldest.offset).unwrap_or(usize::MAX);
                oldest.bytes = oldest.bytes.slice(cut.min(oldest.bytes.len())..);
                oldest.offset = first;
            }
            break;
        }
        self.first = first;
    }

    fn read(&self, from: u64, limit: u64) -> JobLog {
        let start = from.max(self.first);
        let end = start.saturating_add(limit).min(self.next);
        let mut chunks = Vec::new();
        let at = self.parts.partition_point(|part| part.end() <= start);
        for part in self.parts.iter().skip(at) {
            if part.offset >= end {
                break;
            }
            let cut = |offset: u64| {
                let offset = offset.clamp(part.offset, part.end());
                usize::try_from(offset - part.offset).unwrap_or(usize::MAX)
            };
            let bytes = part.bytes.slice(cut(start)..cut(end));
            chunks.push(LogChunk::new(part.offset.max(start), part.stream, bytes));
        }
        JobLog {
            chunks,
            next: end,
            lost: start - from,
            first_kept: self.first,
            ended: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Runtime;

    use super::*;

    #[test]
    fn a_job_whose_runtime_has_ended_is_lost_and_not_waited_for_without_end() {
        let (first, second) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let jobs = Arc::new(Jobs::new(SandboxId::new("s")));
        let key = JobKey::new("k");
        let (starting, name) = (jobs.clone(), key.clone());
        first.spawn(async move {
            let command = Command::new("true");
            let spawn = |_| std::future::pending::<Result<Process>>();
            starting
                .start(&name, command, JobOptions::new(), spawn)
                .await
        });
        let job = loop {
            if let Ok(job) = jobs.find(&key) {
                break job;
            }
            std::thread::yield_now();
        };
        first.shutdown_timeout(Duration::from_secs(60));
        second.block_on(async {
            let waited = tokio::time::timeout(Duration::from_secs(60), job.wait()).await;
            let error = waited.expect("no end").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
            assert!(job.info().await.unwrap().state.is_final());
        });
    }
}
