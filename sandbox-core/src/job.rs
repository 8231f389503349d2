//! Jobs: commands that are started once under a key, and found again by it.
//!
//! A job must never depend on the caller that started it: it runs on when the caller is gone, and
//! its log is read by offset, by any number of readers.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, ErrorKind, Exit, ExitStatus, Operation, Result, Signal, TerminalSize};

/// Number of bytes of its output that a job keeps by default: 8 MiB.
pub const DEFAULT_LOG_LIMIT: u64 = 8 << 20;

/// Number of bytes that one reading of a log gives at most by default: 1 MiB.
pub const DEFAULT_LOG_READ_LIMIT: u64 = 1 << 20;

/// The name that a caller gives a job, unique in its sandbox: 1 to 256 bytes of UTF-8 without
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct JobKey(String);

impl JobKey {
    /// The longest key, in bytes.
    pub const MAX: usize = 256;

    /// Makes a key of this text; [`validate`](Self::validate) says whether it can be used.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Refuses a key that can't be used.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: empty, too long, or with a control character.
    ///
    /// ```
    /// use sandbox_core::{JobKey, Operation};
    /// assert!(JobKey::new("build 42").validate(Operation::StartJob).is_ok());
    /// assert!(JobKey::new("").validate(Operation::StartJob).is_err());
    /// ```
    pub fn validate(&self, operation: Operation) -> Result<()> {
        let message = match self.0.len() {
            0 => "the job's key is empty".to_owned(),
            len if len > Self::MAX => {
                format!("the job's key has {len} bytes, and may have {}", Self::MAX)
            }
            _ if self.0.chars().any(char::is_control) => {
                "the job's key has a control character".to_owned()
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::InvalidInput, operation).with_message(message))
    }
}

impl From<&str> for JobKey {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl From<String> for JobKey {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Options of [`start_job`](crate::Sandbox::start_job).
///
/// ```
/// use sandbox_core::JobOptions;
/// let long_log = JobOptions::new().log_limit(64 << 20);
/// # assert_eq!(long_log.log_limit, 64 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct JobOptions {
    /// Number of output bytes that are kept, both streams together: the last ones. Fewer are kept
    /// of output whose streams take turns every few bytes.
    pub log_limit: u64,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            log_limit: DEFAULT_LOG_LIMIT,
        }
    }
}

impl JobOptions {
    /// The defaults: the last [`DEFAULT_LOG_LIMIT`] bytes of output are kept.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets how many bytes of its output are kept.
        log_limit: u64,
    }
}

/// Options of [`Job::read_log`].
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::LogOptions;
/// let small_parts = LogOptions::new().limit(4096).wait(Duration::from_secs(30));
/// # assert_eq!(small_parts.limit, 4096);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct LogOptions {
    /// Greatest number of bytes that are given.
    pub limit: u64,
    /// Limit of the wait for the next byte where there is none yet. `None`: no waiting.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds_or_none"))]
    pub wait: Option<Duration>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LOG_READ_LIMIT,
            wait: None,
        }
    }
}

impl LogOptions {
    /// The defaults: at most [`DEFAULT_LOG_READ_LIMIT`] bytes, without waiting.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets how many bytes are given at most.
        limit: u64,

        /// Sets how long to wait for the next byte where there is none yet.
        wait: Some(Duration),
    }
}

/// The stream that a part of a log came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum LogStream {
    /// Standard output, and everything that a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A part of a log: bytes of one stream that were read together.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct LogChunk {
    /// Start of the part, in bytes since the job started, both streams counted.
    pub offset: u64,
    /// The stream.
    pub stream: LogStream,
    /// The bytes, exactly as written; a character may go on in the next part.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::bytes"))]
    pub bytes: Bytes,
}

impl LogChunk {
    /// Bytes of a stream at an offset.
    pub fn new(offset: u64, stream: LogStream, bytes: impl Into<Bytes>) -> Self {
        Self {
            offset,
            stream,
            bytes: bytes.into(),
        }
    }

    /// The offset of the byte after it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

impl fmt::Debug for LogChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.offset, self.end());
        write!(f, "LogChunk({:?} {from}..{to})", self.stream)
    }
}

/// Result of one reading of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct JobLog {
    /// The parts in order of their offsets, without a gap between them.
    pub chunks: Vec<LogChunk>,
    /// Offset to read on from.
    pub next: u64,
    /// Number of bytes lost between the offset that was asked for and the first part: they were
    /// not kept. Zero: there is no gap.
    pub lost: u64,
    /// The offset of the oldest byte that is kept.
    pub first_kept: u64,
    /// Whether the job has ended and `next` is the end of its log.
    pub ended: bool,
}

impl JobLog {
    /// The bytes of one stream, one after the other.
    pub fn stream(&self, stream: LogStream) -> Vec<u8> {
        let parts = self.chunks.iter().filter(|chunk| chunk.stream == stream);
        parts
            .flat_map(|chunk| chunk.bytes.iter().copied())
            .collect()
    }

    /// The bytes of both streams in the order in which they were read.
    pub fn bytes(&self) -> Vec<u8> {
        let parts = self.chunks.iter();
        parts
            .flat_map(|chunk| chunk.bytes.iter().copied())
            .collect()
    }
}

/// Progress of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum JobState {
    /// Start under way.
    Starting,
    /// Running.
    Running,
    /// Ended, the main process with this status.
    Ended(ExitStatus),
    /// Cut, or unknown whether it started: [`Job::wait`] has the error.
    Failed(ErrorKind),
}

impl JobState {
    /// Whether nothing more will come of the job.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Ended(_) | Self::Failed(_))
    }
}

/// A job as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct JobInfo {
    /// The key.
    pub key: JobKey,
    /// Progress of the job.
    pub state: JobState,
    /// Time at which its start was asked for.
    pub started: SystemTime,
    /// The offset of the oldest byte of its log that is kept.
    pub log_first: u64,
    /// The offset after the newest byte of its log.
    pub log_next: u64,
    /// Number of bytes that its standard input has taken: the offset of the next
    /// [`write_stdin`](Job::write_stdin).
    pub stdin_next: u64,
}

impl JobInfo {
    /// A job whose start was asked for at this time, with an empty log.
    pub fn new(key: JobKey, state: JobState, started: SystemTime) -> Self {
        Self {
            key,
            state,
            started,
            log_first: 0,
            log_next: 0,
            stdin_next: 0,
        }
    }

    /// Sets which offsets of the log are kept.
    #[must_use]
    pub fn log(mut self, first: u64, next: u64) -> Self {
        self.log_first = first;
        self.log_next = next;
        self
    }

    /// Sets how many bytes standard input has taken.
    #[must_use]
    pub fn stdin(mut self, next: u64) -> Self {
        self.stdin_next = next;
        self
    }
}

/// The control of a job, which a backend provides: [`backend::Jobs`](crate::backend::Jobs) has one
/// over any backend that can spawn.
///
/// # Contract
/// Dropping the control has no effect on the job. Each method is as in [`Job`].
#[async_trait]
pub trait JobControl: fmt::Debug + Send + Sync + 'static {
    /// See [`Job::info`].
    async fn info(&self) -> Result<JobInfo>;

    /// See [`Job::read_log`].
    async fn read_log(&self, from: u64, options: LogOptions) -> Result<JobLog>;

    /// See [`Job::write_stdin`].
    async fn write_stdin(&self, offset: u64, bytes: Bytes) -> Result<u64>;

    /// See [`Job::close_stdin`].
    async fn close_stdin(&self) -> Result<()>;

    /// See [`Job::wait`].
    async fn wait(&self) -> Result<Exit>;

    /// See [`Job::signal`].
    async fn signal(&self, signal: Signal) -> Result<()>;

    /// See [`Job::resize`].
    async fn resize(&self, size: TerminalSize) -> Result<()>;

    /// See [`Job::stop`].
    async fn stop(&self) -> Result<()>;

    /// See [`Job::forget`].
    async fn forget(&self) -> Result<()>;
}

/// A handle to a job, from [`start_job`](crate::Sandbox::start_job) or
/// [`find_job`](crate::Sandbox::find_job).
///
/// Clones are handles to the same job. Dropping them has no effect on it: it ends by itself, by
/// [`stop`](Job::stop), at its command's timeout, or with its sandbox. A handle keeps its sandbox
/// alive.
#[derive(Clone, Debug)]
pub struct Job {
    key: JobKey,
    control: Arc<dyn JobControl>,
    /// Dropped last.
    alive: Option<Arc<dyn Any + Send + Sync>>,
}

impl Job {
    /// A handle to a backend's job.
    pub fn new(key: JobKey, control: Arc<dyn JobControl>) -> Self {
        Self {
            key,
            control,
            alive: None,
        }
    }

    /// Keeps something alive as long as the handle: the sandbox in which the job runs. For
    /// backends.
    #[must_use]
    pub fn keep_alive(mut self, needed: Arc<dyn Any + Send + Sync>) -> Self {
        self.alive = Some(needed);
        self
    }

    /// Puts another control around the job's own; for layers.
    #[must_use]
    pub fn map_control<C: JobControl>(self, wrap: impl FnOnce(Arc<dyn JobControl>) -> C) -> Self {
        Self {
            control: Arc::new(wrap(self.control)),
            ..self
        }
    }

    /// The key under which it was started.
    pub fn key(&self) -> &JobKey {
        &self.key
    }

    /// Returns how far the job is, and what of its log is kept.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, JobState, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// let info = job.info().await?;
    /// if info.state == JobState::Running {
    ///     println!("{} runs and has written {} bytes", info.key, info.log_next);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) once it was forgotten.
    pub async fn info(&self) -> Result<JobInfo> {
        self.control.info().await
    }

    /// Reads the log from an offset: bytes since the start of the job, both streams counted.
    ///
    /// Gives what there is at once; where there is nothing yet it waits as long as the options say.
    /// Bytes that are not kept any more are a gap, which [`JobLog::lost`] tells: a reading never
    /// starts later in silence. Readers don't take anything from each other, and a slow one doesn't
    /// hold up the program. Works after the end of the job and of its sandbox.
    ///
    /// Dropping the future has no effect.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, LogOptions, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// use std::time::Duration;
    /// let mut next = 0;
    /// loop {
    ///     let log = job.read_log(next, LogOptions::new().wait(Duration::from_secs(10))).await?;
    ///     if log.lost > 0 {
    ///         eprintln!("({} bytes were not kept)", log.lost);
    ///     }
    ///     print!("{}", String::from_utf8_lossy(&log.bytes()));
    ///     next = log.next;
    ///     if log.ended {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an offset beyond the end of the log, and for a
    /// limit of zero, and for waiting outside of a tokio runtime with time;
    /// [`NotFound`](ErrorKind::NotFound) once the job was forgotten.
    pub async fn read_log(&self, from: u64, options: LogOptions) -> Result<JobLog> {
        self.control.read_log(from, options).await
    }

    /// Writes to standard input at an offset: bytes since the start of the job. Returns the offset
    /// after what was written.
    ///
    /// The program gets each byte once: what lies before [`JobInfo::stdin_next`] was written by an
    /// earlier call whose answer was lost, and is left out. So a call that failed without an answer
    /// is made again as it was.
    ///
    /// Waits while the program does not read. If the future is dropped, a first part may have been
    /// written; the same call again writes the rest.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// let next = job.write_stdin(0, "first\n").await?;
    /// job.write_stdin(next, "second\n").await?;
    /// job.close_stdin().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an offset beyond what was written (bytes
    /// between would be missing), and if the command has neither a piped stdin nor a terminal;
    /// [`Closed`](ErrorKind::Closed) if the program or [`close_stdin`](Job::close_stdin) closed it.
    pub async fn write_stdin(&self, offset: u64, bytes: impl Into<Bytes> + Send) -> Result<u64> {
        self.control.write_stdin(offset, bytes.into()).await
    }

    /// Ends standard input: the program reads an end of file. A terminal's input has no end: write
    /// `\x04` at the start of a line instead. A second call does nothing.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// job.write_stdin(0, "SELECT 1;\n").await?;
    /// job.close_stdin().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the command has no piped stdin.
    pub async fn close_stdin(&self) -> Result<()> {
        self.control.close_stdin().await
    }

    /// Waits for the main process to end and its output to be in the log. May be called by any
    /// number of tasks, also after the end. Dropping the future stops the waiting, not the job.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// let exit = job.wait().await?;
    /// println!("{} ended with {}", job.key(), exit.status);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Process::wait`](crate::Process::wait);
    /// [`NotFound`](ErrorKind::NotFound) once the job was forgotten.
    pub async fn wait(&self) -> Result<Exit> {
        self.control.wait().await
    }

    /// Sends a signal to the main process; `Ok` if it has ended already.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result, Signal};
    /// # async fn example(job: &Job) -> Result<()> {
    /// job.signal(Signal::INTERRUPT).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Process::signal`](crate::Process::signal).
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.control.signal(signal).await
    }

    /// Changes the size of its terminal; `Ok` if it has ended already.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result, TerminalSize};
    /// # async fn example(job: &Job) -> Result<()> {
    /// job.resize(TerminalSize { rows: 50, columns: 132 }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Process::resize`](crate::Process::resize).
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.control.resize(size).await
    }

    /// Kills the main process and everything it started, and returns when they are dead. `Ok` if
    /// the job has ended already: background processes that it left go on until the sandbox closes.
    /// The log and the key are kept.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// job.stop().await?;
    /// let end = job.info().await?.log_next;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Process::kill`](crate::Process::kill).
    pub async fn stop(&self) -> Result<()> {
        self.control.stop().await
    }

    /// Forgets an ended job: its log and how it ended. Its key may be used again.
    ///
    /// ```no_run
    /// # use sandbox_core::{Job, Result};
    /// # async fn example(job: &Job) -> Result<()> {
    /// job.wait().await?;
    /// job.forget().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) while it runs.
    pub async fn forget(&self) -> Result<()> {
        self.control.forget().await
    }
}
