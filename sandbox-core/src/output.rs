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

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// One output stream as it was kept.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Exit {
    /// Status with which it ended.
    pub status: ExitStatus,
    /// Resources that it used, where the backend knows.
    pub usage: Option<ResourceUsage>,
}

impl Exit {
    /// Ended like this; what it used is not known.
    pub fn new(status: ExitStatus) -> Self {
        Self {
            status,
            usage: None,
        }
    }

    /// Adds the resources that it used.
    #[must_use]
    pub fn usage(mut self, usage: ResourceUsage) -> Self {
        self.usage = Some(usage);
        self
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
