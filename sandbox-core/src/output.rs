//! What came of a command: status, streams, cost.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

/// How a command ended: by itself with a code, or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ExitStatus {
    /// It ended by itself. The code is 0–255.
    Code(u8),
    /// This signal killed it (its number on Linux).
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended by itself with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code, unless a signal killed it.
    pub fn code(self) -> Option<u8> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }

    /// The signal, if one killed it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
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
#[non_exhaustive]
pub struct Captured {
    /// The first bytes of the stream, up to the command's limit, exactly as written.
    pub bytes: Bytes,
    /// How many bytes were read in all.
    pub total: u64,
}

impl Captured {
    /// A stream of `total` bytes, of which `bytes` were kept.
    pub fn new(bytes: impl Into<Bytes>, total: u64) -> Self {
        Self {
            bytes: bytes.into(),
            total,
        }
    }

    /// Whether more was written than was kept.
    pub fn truncated(&self) -> bool {
        self.total > self.bytes.len() as u64
    }

    /// The bytes as text, with U+FFFD for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

impl AsRef<[u8]> for Captured {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Captured({} of {} bytes)", self.bytes.len(), self.total)
    }
}

/// What a command had written when it was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapturedOutput {
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// How long it had run.
    pub duration: Duration,
}

impl CapturedOutput {
    /// These streams, after this time.
    pub fn new(stdout: Captured, stderr: Captured, duration: Duration) -> Self {
        Self {
            stdout,
            stderr,
            duration,
        }
    }
}

/// What a command used, where the backend knows: it and the children it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ResourceUsage {
    /// Processor time in user mode.
    pub user_time: Duration,
    /// Processor time in the kernel.
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

/// How a process ended, and what that cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// How it ended.
    pub status: ExitStatus,
    /// What it used, where the backend knows.
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

    /// The same with what it used.
    #[must_use]
    pub fn usage(mut self, usage: ResourceUsage) -> Self {
        self.usage = Some(usage);
        self
    }
}

/// The result of a command that ran to its end. A non-zero code is data, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// From the request to the end of the command, as seen from the host.
    pub duration: Duration,
    /// What it used, where the backend knows.
    pub usage: Option<ResourceUsage>,
}

impl Output {
    /// The result of a command with this end and these streams.
    pub fn new(exit: Exit, streams: CapturedOutput) -> Self {
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
