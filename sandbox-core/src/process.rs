//! A running command, and the engine that `exec` shares with it.
//!
//! Invariant: no buffer here grows with what a program writes beyond the caller's limits.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::backend::require_time;
use crate::{
    CapturedStream, Error, ErrorKind, Execution, Exit, ExitCause, ExitStatus, Operation, Output,
    PartialOutput, Result, SandboxId, TerminalSize,
};

/// Time after which the host gives up on a killed tree that is not reported dead. Longer than
/// any backend takes to give up by itself: giving up earlier would lose what is in the pipes.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// A signal, by its number on Linux.
///
/// ```
/// use sandbox_core::Signal;
/// assert_eq!(Signal::TERMINATE, Signal(15));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGHUP
    pub const HANGUP: Self = Self(1);
    /// SIGINT
    pub const INTERRUPT: Self = Self(2);
    /// SIGKILL
    pub const KILL: Self = Self(9);
    /// SIGUSR1
    pub const USER_1: Self = Self(10);
    /// SIGTERM
    pub const TERMINATE: Self = Self(15);
}

/// The control of a running command, which a backend provides.
///
/// ```
/// use sandbox_core::{Exit, ExitStatus, Process, ProcessControl, Result, Signal, async_trait};
///
/// /// A command that has ended already.
/// #[derive(Debug)]
/// struct Done;
///
/// #[async_trait]
/// impl ProcessControl for Done {
///     async fn wait(&self) -> Result<Exit> {
///         Ok(Exit::new(ExitStatus::Code(0)))
///     }
///     async fn signal(&self, _: Signal) -> Result<()> {
///         Ok(())
///     }
///     async fn kill(&self) -> Result<()> {
///         Ok(())
///     }
/// }
/// let process = Process::new(Done, None, None, None);
/// # let _ = process;
/// ```
///
/// # Contract
/// Dropping the control kills the whole tree without blocking, unless the main process has ended.
#[async_trait]
pub trait ProcessControl: fmt::Debug + Send + Sync + 'static {
    /// Waits for the main process. May be called again and then returns the same. Dropping the
    /// future stops the waiting, not the process.
    async fn wait(&self) -> Result<Exit>;

    /// Sends a signal to the main process. `Ok` if it has ended already.
    async fn signal(&self, signal: Signal) -> Result<()>;

    /// Kills the main process and everything it started, daemons included; returns when they are
    /// dead. `Ok` if they are already.
    async fn kill(&self) -> Result<()>;

    /// Changes the size of the command's terminal. `Ok` if it has ended already. The default
    /// refuses: the command has no terminal.
    async fn resize(&self, size: TerminalSize) -> Result<()> {
        let _ = size;
        Err(no_terminal())
    }
}

/// The error of [`Process::resize`] for a command without a terminal.
pub(crate) fn no_terminal() -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Resize)
        .with_message("the command has no terminal")
        .with_hint("start it with Command::terminal")
}

macro_rules! reader {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        ///
        /// It ends when the main process has ended and what it had written has been read. A backend
        /// may read on for a moment, for what the rest of the tree is just writing; a grandchild
        /// that keeps the pipe does not keep the stream. Nothing is buffered beyond the pipe: a
        /// program whose output is not read is held up.
        pub struct $name(Pin<Box<dyn AsyncRead + Send + Sync>>);

        impl $name {
            /// Wraps a backend's stream.
            pub fn new(stream: impl AsyncRead + Send + Sync + 'static) -> Self {
                Self(Box::pin(stream))
            }
        }

        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                self.0.as_mut().poll_read(cx, buf)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

reader! {
    /// The standard output of a running command: an [`AsyncRead`], as [`std::process::ChildStdout`]
    /// is a `Read`.
    ProcessStdout
    /// The standard error of a running command: an [`AsyncRead`], as [`std::process::ChildStderr`]
    /// is a `Read`.
    ProcessStderr
}

/// The standard input of a running command: an [`AsyncWrite`]. Shutting it down or dropping it is
/// the program's end of file; a write after that fails with
/// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe). The input of a
/// [terminal](crate::Command::terminal) has no end: write `\x04` at the start of a line.
///
/// ```no_run
/// # use sandbox_core::{Command, Result, Sandbox};
/// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
/// use tokio::io::AsyncWriteExt as _;
/// let mut process = sandbox.spawn(Command::new("sort").stdin_piped()).await?;
/// if let Some(mut stdin) = process.stdin.take() {
///     stdin.write_all(b"2\n1\n").await.ok();
///     stdin.shutdown().await.ok();
/// }
/// # Ok(()) }
/// ```
pub struct ProcessStdin(Option<Pin<Box<dyn AsyncWrite + Send + Sync>>>);

impl ProcessStdin {
    /// Wraps a backend's stream.
    pub fn new(stream: impl AsyncWrite + Send + Sync + 'static) -> Self {
        Self(Some(Box::pin(stream)))
    }

    fn stream(&mut self) -> std::io::Result<Pin<&mut (dyn AsyncWrite + Send + Sync)>> {
        match &mut self.0 {
            Some(stream) => Ok(stream.as_mut()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl AsyncWrite for ProcessStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(stream) = &mut self.0 else {
            return Poll::Ready(Ok(()));
        };
        let done = std::task::ready!(stream.as_mut().poll_shutdown(cx));
        // The shutdown of a pipe of tokio's does nothing: only closing it is an end of file.
        self.0 = None;
        Poll::Ready(done)
    }
}

impl fmt::Debug for ProcessStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessStdin")
    }
}

/// A running command, from [`spawn`](crate::Sandbox::spawn).
///
/// Dropping it kills the command and everything it started, unless its main process has ended. It
/// keeps its sandbox alive: the sandbox's last handle may be dropped before it.
/// The streams can be taken out and used apart.
///
/// ```no_run
/// # use sandbox_core::{Command, ExitCause, Result, Sandbox};
/// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
/// let process = sandbox.spawn(Command::new("sleep").arg("50")).await?;
/// process.kill().await?;
/// assert_eq!(process.wait().await?.cause, ExitCause::Killed);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Process {
    /// Standard input, if the command asked for a pipe or a terminal.
    pub stdin: Option<ProcessStdin>,
    /// Standard output, or what the terminal shows.
    pub stdout: Option<ProcessStdout>,
    /// Standard error; `None` if the command has a terminal.
    pub stderr: Option<ProcessStderr>,
    control: Box<dyn ProcessControl>,
    /// The signals that the caller sent, one bit for each number.
    sent: AtomicU64,
    /// Dropped last.
    alive: Vec<Arc<dyn Any + Send + Sync>>,
}

/// Options of [`Process::wait_with_output`]: its input, what it keeps and how long it waits.
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::CollectOptions;
/// let options = CollectOptions::new().stdout_limit(64 << 10).timeout(Duration::from_secs(5));
/// assert_eq!(options.stderr_limit, sandbox_core::DEFAULT_OUTPUT_LIMIT);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectOptions {
    /// Bytes for standard input, given before end of file.
    pub stdin: Bytes,
    /// Number of bytes of stdout that are kept.
    pub stdout_limit: u64,
    /// Number of bytes of stderr that are kept.
    pub stderr_limit: u64,
    /// Time after which the tree is killed.
    pub timeout: Option<Duration>,
    /// Time at which the command was asked for: its duration and its deadline count from it.
    pub started: Instant,
    /// The sandbox, for errors.
    pub sandbox: Option<SandboxId>,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            stdin: Bytes::new(),
            stdout_limit: crate::DEFAULT_OUTPUT_LIMIT,
            stderr_limit: crate::DEFAULT_OUTPUT_LIMIT,
            timeout: None,
            started: Instant::now(),
            sandbox: None,
        }
    }
}

impl CollectOptions {
    /// The defaults: no input, [`DEFAULT_OUTPUT_LIMIT`](crate::DEFAULT_OUTPUT_LIMIT), no timeout,
    /// started now.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets the bytes for standard input.
        stdin: into Bytes,

        /// Sets how many bytes of stdout are kept.
        stdout_limit: u64,

        /// Sets how many bytes of stderr are kept.
        stderr_limit: u64,

        /// Sets when the tree is killed.
        timeout: Some(Duration),

        /// Sets when the command was asked for.
        started: Instant,

        /// Sets the sandbox that errors name.
        sandbox: Some(SandboxId),
    }
}

impl Process {
    /// A process of a backend.
    ///
    /// ```
    /// # use sandbox_core::{Process, ProcessControl, ProcessStdout};
    /// fn started(control: impl ProcessControl, stdout: tokio::net::TcpStream) -> Process {
    ///     Process::new(control, None, Some(ProcessStdout::new(stdout)), None)
    /// }
    /// ```
    pub fn new(
        control: impl ProcessControl,
        stdin: Option<ProcessStdin>,
        stdout: Option<ProcessStdout>,
        stderr: Option<ProcessStderr>,
    ) -> Self {
        Self {
            stdin,
            stdout,
            stderr,
            control: Box::new(control),
            sent: AtomicU64::new(0),
            alive: Vec::new(),
        }
    }

    /// Keeps something alive as long as the process: the sandbox in which it runs. For backends.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sandbox_core::{Process, Sandbox};
    /// fn handed_out(sandbox: Arc<impl Sandbox + 'static>, process: Process) -> Process {
    ///     process.keep_alive(sandbox)
    /// }
    /// ```
    #[must_use]
    pub fn keep_alive(mut self, needed: Arc<dyn Any + Send + Sync>) -> Self {
        self.alive.push(needed);
        self
    }

    /// Wraps the control of the process in another; for layers.
    ///
    /// ```
    /// use sandbox_core::{Exit, Process, ProcessControl, Result, Signal, async_trait};
    ///
    /// /// Tells how the process ended.
    /// #[derive(Debug)]
    /// struct Told(Box<dyn ProcessControl>);
    ///
    /// #[async_trait]
    /// impl ProcessControl for Told {
    ///     async fn wait(&self) -> Result<Exit> {
    ///         let exit = self.0.wait().await;
    ///         println!("{exit:?}");
    ///         exit
    ///     }
    ///     async fn signal(&self, signal: Signal) -> Result<()> {
    ///         self.0.signal(signal).await
    ///     }
    ///     async fn kill(&self) -> Result<()> {
    ///         self.0.kill().await
    ///     }
    /// }
    ///
    /// fn told(process: Process) -> Process {
    ///     process.map_control(Told)
    /// }
    /// ```
    #[must_use]
    pub fn map_control<C: ProcessControl>(
        self,
        wrap: impl FnOnce(Box<dyn ProcessControl>) -> C,
    ) -> Self {
        Self {
            control: Box::new(wrap(self.control)),
            ..self
        }
    }

    /// Waits for the main process to end. Dropping the future stops the waiting only.
    ///
    /// ```no_run
    /// # use sandbox_core::{Process, Result};
    /// # async fn example(process: Process) -> Result<()> {
    /// let exit = process.wait().await?;
    /// println!("{} ({})", exit.status, exit.cause);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) if the command's timeout killed it;
    /// [`Lost`](crate::ErrorKind::Lost) or
    /// [`Closed`](crate::ErrorKind::Closed) if the sandbox went away.
    pub async fn wait(&self) -> Result<Exit> {
        let exit = self.control.wait().await?;
        Ok(match (exit.status, exit.cause) {
            (ExitStatus::Signal(signal), ExitCause::Unknown) if self.was_sent(signal) => {
                exit.cause(ExitCause::Killed)
            }
            _ => exit,
        })
    }

    fn note_sent(&self, signal: Signal) {
        let bit = u32::try_from(signal.0)
            .ok()
            .and_then(|n| 1u64.checked_shl(n));
        self.sent.fetch_or(bit.unwrap_or(0), Ordering::Relaxed);
    }

    fn was_sent(&self, signal: i32) -> bool {
        let bit = u32::try_from(signal).ok().and_then(|n| 1u64.checked_shl(n));
        self.sent.load(Ordering::Relaxed) & bit.unwrap_or(0) != 0
    }

    /// Sends a signal to the main process; `Ok` if it has ended already.
    ///
    /// ```no_run
    /// # use sandbox_core::{Process, Result, Signal};
    /// # async fn example(process: Process) -> Result<()> {
    /// process.signal(Signal::TERMINATE).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the backend can't; [`InvalidInput`](crate::ErrorKind::InvalidInput) for a
    /// number that no signal has.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.note_sent(signal);
        self.control.signal(signal).await
    }

    /// Kills it and everything it started, and returns when they are dead.
    ///
    /// ```no_run
    /// # use sandbox_core::{Process, Result};
    /// # async fn example(process: Process) -> Result<()> {
    /// process.kill().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Lost`](crate::ErrorKind::Lost) if the sandbox went away.
    pub async fn kill(&self) -> Result<()> {
        self.note_sent(Signal::KILL);
        self.control.kill().await
    }

    /// Changes the size of its terminal: the program in the foreground gets SIGWINCH. `Ok` if it
    /// has ended already.
    ///
    /// ```no_run
    /// # use sandbox_core::{Process, Result, TerminalSize};
    /// # async fn example(process: Process) -> Result<()> {
    /// process.resize(TerminalSize { rows: 50, columns: 132 }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it was started without
    /// [`Command::terminal`](crate::Command::terminal), or for zero rows or columns.
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        size.validate(Operation::Resize)?;
        self.control.resize(size).await
    }

    /// Feeds the input, keeps the output within limits and waits for the end: what
    /// [`exec`](crate::Sandbox::exec) is built on.
    ///
    /// Beyond a limit the stream is read on and thrown away, so that the program is not held up.
    /// At the timeout the whole tree is killed and what had been written is in the error.
    /// Dropping the future drops the process, which kills it.
    ///
    /// ```no_run
    /// # use sandbox_core::{CollectOptions, Process, Result};
    /// # async fn example(process: Process) -> Result<()> {
    /// use std::time::Duration;
    /// let options = CollectOptions::new().stdin("3\n1\n").timeout(Duration::from_secs(5));
    /// let output = process.wait_with_output(options).await?;
    /// println!("{}", output.stdout.to_string_lossy());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) with [`Execution::Interrupted`] and the partial output; what
    /// [`wait`](Process::wait) says, with the partial output; with a timeout
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) outside of a tokio runtime with time, which ends it.
    pub async fn wait_with_output(mut self, options: CollectOptions) -> Result<Output> {
        if options.timeout.is_some() {
            require_time(Operation::Exec)
                .map_err(|error| error.with_execution(Execution::Unknown))?;
        }
        let mut stdout = Keep::new(self.stdout.take(), options.stdout_limit);
        let mut stderr = Keep::new(self.stderr.take(), options.stderr_limit);
        let stdin = self.stdin.take();
        let finished = {
            let run = async {
                let (exit, (), ()) = tokio::join!(self.wait(), stdout.drain(), stderr.drain());
                exit
            };
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A program that does not want its input is not an error.
                    let _ = stdin.write_all(&options.stdin).await;
                    let _ = stdin.shutdown().await;
                }
                std::future::pending::<()>().await
            };
            tokio::select! {
                biased;
                exit = run => Some(exit),
                () = feed => None,
                () = deadline(options.started, options.timeout) => None,
            }
        };
        let exit = match finished {
            Some(exit) => exit,
            None => Err(self.cut(&mut stdout, &mut stderr, &options).await),
        };
        let streams =
            PartialOutput::new(stdout.finish(), stderr.finish(), options.started.elapsed());
        match exit {
            Ok(exit) => Ok(Output::new(exit, streams)),
            Err(error)
                if matches!(
                    error.execution(),
                    Some(Execution::Unknown | Execution::NotStarted)
                ) =>
            {
                Err(error)
            }
            Err(error) => Err(error.with_partial_output(streams)),
        }
    }

    /// Kills the tree at the deadline and takes what is left in the pipes.
    async fn cut(
        &self,
        stdout: &mut Keep<ProcessStdout>,
        stderr: &mut Keep<ProcessStderr>,
        options: &CollectOptions,
    ) -> Error {
        let kill = tokio::time::timeout(KILL_GRACE, async {
            let killed = self.control.kill().await;
            tokio::join!(stdout.drain(), stderr.drain());
            killed
        });
        let outcome = kill.await;
        let after = options.timeout.unwrap_or_default();
        let mut error = crate::backend::timed_out(Operation::Exec, after);
        if let Some(sandbox) = &options.sandbox {
            error = error.with_sandbox(sandbox.clone());
        }
        match outcome {
            Ok(Ok(())) => error,
            Ok(Err(cause)) => error.with_source(cause),
            Err(_) => {
                error.with_hint("the kill was not confirmed within ten seconds; close the sandbox")
            }
        }
    }
}

async fn deadline(started: Instant, timeout: Option<Duration>) {
    match timeout.and_then(|timeout| started.checked_add(timeout)) {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Reads a stream to its end and keeps the first `limit` bytes.
struct Keep<R> {
    stream: Option<R>,
    kept: BytesMut,
    limit: usize,
    total: u64,
}

impl<R: AsyncRead + Unpin> Keep<R> {
    const CHUNK: usize = 64 << 10;

    fn new(stream: Option<R>, limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            stream,
            kept: BytesMut::new(),
            limit,
            total: 0,
        }
    }

    async fn drain(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut beyond = Vec::new();
        loop {
            let room = self.limit - self.kept.len();
            let read = if room > 0 {
                // Small outputs are the rule: start small and let the buffer double.
                self.kept
                    .reserve(room.min(4096.max(self.kept.len()).min(Self::CHUNK)));
                let mut window = (&mut *stream).take(room as u64);
                window.read_buf(&mut self.kept).await
            } else {
                beyond.resize(Self::CHUNK, 0);
                stream.read(&mut beyond).await
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(n) => self.total += n as u64,
            }
        }
        self.stream = None;
    }

    fn finish(self) -> CapturedStream {
        CapturedStream::new(self.kept.freeze(), self.total)
    }
}
