//! Errors of the engine, with the kernel's reason where there is one.
//! Must never carry arguments or environment values: they may be secrets.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::protocol::stage;

/// A plan that cannot be laid out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    /// A path or string contains a zero byte.
    #[error("{0}: a zero byte inside a string")]
    Nul(String),
    /// Too many ops, slots, exports or bytes.
    #[error("the plan exceeds its limit of {limit} {what}")]
    TooLarge {
        /// Name of what there is too much of.
        what: &'static str,
        /// Limit.
        limit: usize,
    },
}

/// A sandbox that did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The plan cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A step on the host's side failed.
    #[error("{step}: {errno}")]
    Step {
        /// Which.
        step: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
    /// An op of the plan failed.
    #[error("{label}: {errno}")]
    Op {
        /// Label of the operation.
        label: Cow<'static, str>,
        /// Position in the plan.
        index: usize,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The plan went through, but the agent misses what it needs to serve.
    #[error("the sandbox's own {what}: {errno}")]
    Serving {
        /// Name of what it needs.
        what: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The first process can't be started in its control groups.
    #[error("start the sandbox's first process in its control groups")]
    Groups(#[source] io::Error),
    /// The agent ended before it was ready.
    #[error("the sandbox's first process ended before it was ready ({0})")]
    Died(String),
    /// The agent was not ready in time.
    #[error("the sandbox was not ready within {0:?}")]
    TimedOut(Duration),
    /// No tokio runtime, or one that is going down.
    #[error("no tokio runtime to run on")]
    NoRuntime,
}

impl StartError {
    /// The kernel's reason, if there is one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Step { errno, .. } | Self::Op { errno, .. } | Self::Serving { errno, .. } => {
                Some(*errno)
            }
            Self::Groups(error) => Errno::from_io_error(error),
            Self::Plan(_) | Self::Died(_) | Self::TimedOut(_) | Self::NoRuntime => None,
        }
    }
}

/// Why nothing in the sandbox can be reached any more.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The agent has ended, and with it everything in the sandbox.
    #[error("the sandbox's first process is gone")]
    Ended,
    /// The backend itself gave the sandbox up: its last handle was dropped, or it was closed.
    #[error("the sandbox was given up while it was in use")]
    GivenUp,
    /// The runtime that the sandbox was served in has ended.
    #[error("the tokio runtime that served the sandbox has ended")]
    RuntimeEnded,
    /// The agent did not answer within its time.
    #[error("the sandbox's first process did not answer in time")]
    Silent,
}

/// A process that did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// An argument, variable or path contains a zero byte.
    #[error("{0}: a zero byte inside a string")]
    Nul(&'static str),
    /// Arguments and environment exceed what the engine takes.
    #[error("arguments and environment of {size} bytes exceed the limit of {limit}")]
    TooLarge {
        /// Their size.
        size: usize,
        /// Limit of their size.
        limit: usize,
    },
    /// The host could not provide pipes or memory.
    #[error("{step}: {errno}")]
    Host {
        /// Step that it was doing.
        step: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The sandbox refused; the program did not run.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The sandbox is gone; nothing was sent.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The time was up before the request went out; the program does not run.
    #[error("the time was up before the program was started")]
    TooLate,
    /// The time was up before the sandbox confirmed that the program runs; it is killed.
    #[error("the time was up before the program was seen to run")]
    NotConfirmed,
    /// The sandbox went away before it confirmed that the program runs.
    #[error(transparent)]
    Unconfirmed(Lost),
}

/// Why a process has no exit.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ExitError {
    /// The program did not start.
    #[error(transparent)]
    NotStarted(#[from] Failure),
    /// The sandbox went away while it ran.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Reasons that keep a program from running inside the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The working directory cannot be entered.
    Cwd,
    /// No candidate exists (or its interpreter does not).
    NotFound,
    /// A candidate exists but may not be executed.
    NotExecutable,
    /// The file is not a program.
    BadFormat,
    /// Arguments and environment are too long for the kernel.
    ArgumentsTooLong,
    /// No more processes are allowed.
    ProcessLimit,
    /// The program is open for writing.
    Busy,
    /// Anything else.
    Other,
}

/// A program that did not run inside the sandbox.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}: {errno}", self.describe())]
pub(crate) struct Failure {
    /// Reason.
    pub(crate) kind: FailureKind,
    /// The kernel's reason.
    pub(crate) errno: Errno,
}

impl Failure {
    /// Reads the agent's report.
    pub(super) fn new(at: u64, errno: u64) -> Self {
        let errno = super::wire::errno(errno);
        let kind = match (u32::try_from(at).unwrap_or(0), errno) {
            (stage::CWD, _) => FailureKind::Cwd,
            (stage::FORK, Errno::AGAIN) => FailureKind::ProcessLimit,
            (stage::EXEC, Errno::NOENT | Errno::NOTDIR) => FailureKind::NotFound,
            (stage::EXEC, Errno::ACCESS | Errno::PERM) => FailureKind::NotExecutable,
            // EIO is what the kernel says of a binary that ends in the middle of its headers.
            (
                stage::EXEC,
                Errno::NOEXEC | Errno::LIBBAD | Errno::INVAL | Errno::ISDIR | Errno::IO,
            ) => FailureKind::BadFormat,
            (stage::EXEC, Errno::TOOBIG) => FailureKind::ArgumentsTooLong,
            (stage::EXEC, Errno::AGAIN) => FailureKind::ProcessLimit,
            (stage::EXEC, Errno::TXTBSY) => FailureKind::Busy,
            _ => FailureKind::Other,
        };
        Self { kind, errno }
    }

    fn describe(self) -> &'static str {
        match self.kind {
            FailureKind::Cwd => "enter the working directory",
            FailureKind::NotFound => "find the program",
            FailureKind::NotExecutable => "execute the program",
            FailureKind::BadFormat => "understand the program's format",
            FailureKind::ArgumentsTooLong => "pass arguments and environment",
            FailureKind::ProcessLimit => "create another process",
            FailureKind::Busy => "execute what is open for writing",
            FailureKind::Other => "start the program",
        }
    }
}
