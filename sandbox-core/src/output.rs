//! Results of commands: status, streams, cost.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// End of a command: by itself with a code, or by a signal.
///
/// ```
/// use sandbox_core::ExitStatus;
/// assert!(ExitStatus::Code(0).success());
/// assert_eq!(ExitStatus::Code(3).to_string(), "exit code 3");
/// assert_eq!(ExitStatus::Signal(9).to_string(), "killed by signal 9");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ExitStatus {
    /// Ended by itself with this code: 0–255 in a Linux guest, 32 bits in a Windows guest.
    Code(i32),
    /// Ended by this signal (its number on Linux).
    Signal(i32),
}

impl ExitStatus {
    /// Whether the command ended by itself with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The exit code; `None` if a signal ended the command.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }

    /// The signal that ended the command; `None` if it ended by itself.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
        }
    }
}

impl ExitStatus {
    /// The code by which a POSIX shell reports this end: the exit code, or 128 and the signal.
    ///
    /// ```
    /// use sandbox_core::ExitStatus;
    /// assert_eq!(ExitStatus::Code(3).shell_code(), 3);
    /// assert_eq!(ExitStatus::Signal(9).shell_code(), 137);
    /// ```
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Why a command ended, where that is known.
///
/// A status alone does not tell: the memory limit, a caller's kill and a `kill -9` in the guest all
/// end a command by signal 9.
///
/// ```
/// use sandbox_core::{Exit, ExitCause, ExitStatus};
/// assert_eq!(Exit::new(ExitStatus::Code(1)).cause, ExitCause::Exited);
/// assert_eq!(Exit::new(ExitStatus::Signal(24)).cause, ExitCause::CpuLimit);
/// assert_eq!(Exit::new(ExitStatus::Signal(9)).cause, ExitCause::Unknown);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ExitCause {
    /// Not known: by a signal that a program in the sandbox sent, or that the backend can't
    /// explain.
    #[default]
    Unknown,
    /// The main process ended by itself with an exit code.
    Exited,
    /// The kernel killed a process of the sandbox while the command ran, because memory ran out,
    /// and the command ended by signal 9, or with 137 as a shell says that. Which process it was is
    /// not recorded: where commands run side by side, it may have been a neighbour's.
    OutOfMemory,
    /// The command used the processor time that `ulimit -t` allowed it, and got SIGXCPU.
    CpuLimit,
    /// The command's timeout killed it; that is an error, and [`Error::exit_cause`] says this.
    ///
    /// [`Error::exit_cause`]: crate::Error::exit_cause
    Timeout,
    /// The caller ended it: by [`Process::kill`](crate::Process::kill), by a signal from
    /// [`Process::signal`](crate::Process::signal), or by closing the sandbox.
    Killed,
}

impl ExitCause {
    /// Returns the cause that the status alone tells.
    fn of(status: ExitStatus) -> Self {
        const SIGXCPU: i32 = 24;
        match status {
            ExitStatus::Code(_) => Self::Exited,
            ExitStatus::Signal(SIGXCPU) => Self::CpuLimit,
            ExitStatus::Signal(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Exited => "exited",
            Self::OutOfMemory => "out-of-memory",
            Self::CpuLimit => "cpu-limit",
            Self::Timeout => "timeout",
            Self::Killed => "killed",
        })
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// The kept part of an output stream.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct CapturedStream {
    /// The first bytes of the stream, up to the command's limit, exactly as written.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::bytes"))]
    pub bytes: Bytes,
    /// Number of bytes that were read in all.
    pub total: u64,
}

impl CapturedStream {
    /// A stream of `total` bytes, of which `bytes` were kept.
    pub fn new(bytes: impl Into<Bytes>, total: u64) -> Self {
        Self {
            bytes: bytes.into(),
            total,
        }
    }

    /// Whether the stream was longer than what was kept.
    ///
    /// ```
    /// use sandbox_core::CapturedStream;
    /// assert!(CapturedStream::new("first bytes", 4_000).is_truncated());
    /// ```
    pub fn is_truncated(&self) -> bool {
        self.total > self.bytes.len() as u64
    }

    /// The bytes as text, with U+FFFD for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

impl AsRef<[u8]> for CapturedStream {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for CapturedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CapturedStream({} of {} bytes)",
            self.bytes.len(),
            self.total
        )
    }
}

/// Output that a command had written when it was cut.
///
/// ```no_run
/// # use sandbox_core::{Command, Sandbox};
/// # async fn example(sandbox: &dyn Sandbox, command: Command) {
/// if let Err(error) = sandbox.exec(command).await
///     && let Some(partial) = error.partial_output()
/// {
///     eprintln!("{}", partial.stderr.to_string_lossy());
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct PartialOutput {
    /// Standard output.
    pub stdout: CapturedStream,
    /// Standard error.
    pub stderr: CapturedStream,
    /// Time that the command had run.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub duration: Duration,
}

impl PartialOutput {
    /// These streams, after this time.
    pub fn new(stdout: CapturedStream, stderr: CapturedStream, duration: Duration) -> Self {
        Self {
            stdout,
            stderr,
            duration,
        }
    }
}

/// Resources that a command used, where the backend knows: it and the children it waited for.
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::ResourceUsage;
/// let usage = ResourceUsage::new(Duration::from_millis(20), Duration::ZERO, 4 << 20);
/// assert_eq!(usage.max_resident_bytes, 4_194_304);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct ResourceUsage {
    /// Processor time in user mode.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub user_time: Duration,
    /// Processor time in the kernel.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub system_time: Duration,
    /// Largest resident set of one process, in bytes.
    pub max_resident_bytes: u64,
}

impl ResourceUsage {
    /// Usage of these amounts; `max_resident_bytes` is the largest resident set, in bytes.
    pub fn new(user_time: Duration, system_time: Duration, max_resident_bytes: u64) -> Self {
        Self {
            user_time,
            system_time,
            max_resident_bytes,
        }
    }
}

/// End of a process, and what it used.
///
/// ```no_run
/// # use sandbox_core::{Process, Result};
/// # async fn example(process: Process) -> Result<()> {
/// let exit = process.wait().await?;
/// println!("{}, cause: {}", exit.status, exit.cause);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Exit {
    /// Status with which it ended.
    pub status: ExitStatus,
    /// Why it ended, where that is known.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cause: ExitCause,
    /// Resources that it used, where the backend knows.
    pub usage: Option<ResourceUsage>,
}

impl Exit {
    /// Ended like this, for the cause that the status tells; what it used is not known.
    pub fn new(status: ExitStatus) -> Self {
        Self {
            status,
            cause: ExitCause::of(status),
            usage: None,
        }
    }

    crate::setters! {
        /// Sets a cause that the status does not tell.
        cause: ExitCause,

        /// Adds the resources that it used.
        usage: Some(ResourceUsage),
    }
}

/// The result of a command that ran to its end. A non-zero code is data, not an error.
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::{CapturedStream, Exit, ExitStatus, Output, PartialOutput};
/// let (out, err) = (CapturedStream::new("hello\n", 6), CapturedStream::default());
/// let streams = PartialOutput::new(out, err, Duration::from_millis(3));
/// let output = Output::new(Exit::new(ExitStatus::Code(0)), streams);
/// assert!(output.success());
/// assert_eq!(output.stdout.to_string_lossy(), "hello\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Output {
    /// Status with which it ended.
    pub status: ExitStatus,
    /// Why it ended, where that is known.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cause: ExitCause,
    /// Standard output.
    pub stdout: CapturedStream,
    /// Standard error.
    pub stderr: CapturedStream,
    /// Time from the request to the end of the command, as seen from the host.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub duration: Duration,
    /// Resources that it used, where the backend knows.
    pub usage: Option<ResourceUsage>,
}

impl Output {
    /// The result of a command with this end and these streams.
    pub fn new(exit: Exit, streams: PartialOutput) -> Self {
        Self {
            status: exit.status,
            cause: exit.cause,
            stdout: streams.stdout,
            stderr: streams.stderr,
            duration: streams.duration,
            usage: exit.usage,
        }
    }

    /// Whether it ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}
