//! A running command, and the engine that `exec` shares with it.
//!
//! Invariant: no buffer here grows with what a program writes beyond the caller's limits.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{
    Captured, CapturedOutput, Error, ErrorKind, Exit, Operation, Output, Ran, Result, SandboxId,
};

/// How long a killed tree may take to be reported dead before the host gives up on it. Longer than
/// any backend takes to give up by itself: giving up earlier would lose what is in the pipes.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// A signal, by its number on Linux.
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

/// What a backend provides for a running command.
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
}

/// The reading end of an output stream: an [`AsyncRead`].
///
/// It ends when the main process has ended and what it had written has been read. A backend may
/// read on for a moment, for what the rest of the tree is just writing; a grandchild that keeps the
/// pipe does not keep the stream. Nothing is buffered beyond the pipe: a reader that does not read
/// holds the program up.
pub struct ProcessOutput(Pin<Box<dyn AsyncRead + Send + Sync>>);

impl ProcessOutput {
    /// Wraps a backend's stream.
    pub fn new(stream: impl AsyncRead + Send + Sync + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl fmt::Debug for ProcessOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessOutput")
    }
}

/// The writing end of a command's standard input: an [`AsyncWrite`]. Shutting it down or dropping
/// it is the program's end of file.
pub struct ProcessStdin(Pin<Box<dyn AsyncWrite + Send + Sync>>);

impl ProcessStdin {
    /// Wraps a backend's stream.
    pub fn new(stream: impl AsyncWrite + Send + Sync + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl AsyncWrite for ProcessStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

impl fmt::Debug for ProcessStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessStdin")
    }
}

/// A running command, from [`spawn`](crate::Sandbox::spawn).
///
/// Dropping it kills the command and everything it started, unless its main process has ended.
/// The streams can be taken out and used apart.
#[derive(Debug)]
pub struct Process {
    /// Standard input, if the command asked for a pipe.
    pub stdin: Option<ProcessStdin>,
    /// Standard output.
    pub stdout: Option<ProcessOutput>,
    /// Standard error.
    pub stderr: Option<ProcessOutput>,
    control: Box<dyn ProcessControl>,
}

/// What [`Process::wait_with_output`] keeps and for how long it waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectOptions {
    /// Bytes for standard input, given before end of file.
    pub stdin: Bytes,
    /// How many bytes of stdout are kept.
    pub stdout_limit: u64,
    /// How many bytes of stderr are kept.
    pub stderr_limit: u64,
    /// When to kill the tree.
    pub timeout: Option<Duration>,
    /// When the command was asked for, for its duration and its deadline.
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

impl Process {
    /// A process of a backend.
    pub fn new(
        control: impl ProcessControl,
        stdin: Option<ProcessStdin>,
        stdout: Option<ProcessOutput>,
        stderr: Option<ProcessOutput>,
    ) -> Self {
        Self {
            stdin,
            stdout,
            stderr,
            control: Box::new(control),
        }
    }

    /// The same process with another control around its own; for layers.
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
    /// # Errors
    /// [`ErrorKind::Timeout`] if the command's timeout killed it; [`ErrorKind::Lost`] or
    /// [`ErrorKind::Closed`] if the sandbox went away.
    pub async fn wait(&self) -> Result<Exit> {
        self.control.wait().await
    }

    /// Sends a signal to the main process; `Ok` if it has ended already.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the backend can't; [`ErrorKind::InvalidInput`] for a
    /// number that is no signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.control.signal(signal).await
    }

    /// Kills it and everything it started, and returns when they are dead.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] if the sandbox went away.
    pub async fn kill(&self) -> Result<()> {
        self.control.kill().await
    }

    /// Feeds the input, keeps the output within limits and waits for the end: what
    /// [`exec`](crate::Sandbox::exec) is built on.
    ///
    /// Beyond a limit the stream is read on and thrown away, so that the program is not held up.
    /// At the timeout the whole tree is killed and what had been written is in the error.
    /// Dropping the future drops the process, which kills it.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with [`Ran::Cut`] and the partial output; what
    /// [`wait`](Process::wait) says, with the partial output.
    pub async fn wait_with_output(mut self, options: CollectOptions) -> Result<Output> {
        let mut stdout = Keep::new(self.stdout.take(), options.stdout_limit);
        let mut stderr = Keep::new(self.stderr.take(), options.stderr_limit);
        let stdin = self.stdin.take();
        let finished = {
            let run = async {
                let (exit, (), ()) =
                    tokio::join!(self.control.wait(), stdout.drain(), stderr.drain());
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
            CapturedOutput::new(stdout.finish(), stderr.finish(), options.started.elapsed());
        match exit {
            Ok(exit) => Ok(Output::new(exit, streams)),
            Err(error) if matches!(error.ran(), Some(Ran::Unknown | Ran::NotStarted)) => Err(error),
            Err(error) => Err(error.with_partial_output(streams)),
        }
    }

    /// Kills the tree at the deadline and takes what is left in the pipes.
    async fn cut(&self, stdout: &mut Keep, stderr: &mut Keep, options: &CollectOptions) -> Error {
        let kill = tokio::time::timeout(KILL_GRACE, async {
            let killed = self.control.kill().await;
            tokio::join!(stdout.drain(), stderr.drain());
            killed
        });
        let outcome = kill.await;
        let after = options.timeout.unwrap_or_default();
        let mut error = Error::new(ErrorKind::Timeout, Operation::Exec)
            .with_message(format!(
                "the command was killed after its timeout of {after:?}"
            ))
            .with_ran(Ran::Cut);
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
struct Keep {
    stream: Option<ProcessOutput>,
    kept: BytesMut,
    limit: usize,
    total: u64,
}

impl Keep {
    const CHUNK: usize = 64 << 10;

    fn new(stream: Option<ProcessOutput>, limit: u64) -> Self {
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

    fn finish(self) -> Captured {
        Captured::new(self.kept.freeze(), self.total)
    }
}
