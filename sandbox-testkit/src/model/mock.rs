//! The model as a mock: scripted commands, faults of any operation, and a log of the calls.
//!
//! It must never print what a command was given: `Debug` of a logged command shows its program and
//! how many arguments it has.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::layer;
use sandbox_core::{Command, ErrorKind, GuestPath, Operation, SandboxId};

/// One step of a scripted command.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Writes to stdout.
    Stdout(Bytes),
    /// Writes to stderr.
    Stderr(Bytes),
    /// Waits.
    Pause(Duration),
    /// Writes a file, relative to the directory in which the command runs.
    Write(GuestPath, Bytes),
}

/// The end of a scripted command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Exits with this code.
    Exit(i32),
    /// Is killed by this signal.
    Signal(i32),
    /// Never ends by itself: it waits for a timeout, a kill or `close`.
    Hang,
    /// Is not started at all, with an error of this kind; its steps are not taken.
    NotStarted(ErrorKind),
}

/// A scripted command: steps in order, then an end.
///
/// ```
/// use std::time::Duration;
/// use sandbox_testkit::model::MockOutcome;
///
/// // Says something, works for a while, leaves a file, and fails.
/// let outcome = MockOutcome::exit(1)
///     .stdout("compiling\n")
///     .pause(Duration::from_millis(20))
///     .write("target/log", "boom")
///     .stderr("error: boom\n");
/// // Gets stuck half way.
/// let stuck = MockOutcome::hang().stdout("1 of 2\n");
/// # let _ = (outcome, stuck);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MockOutcome {
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

impl MockOutcome {
    /// A command that ends this way, without any step.
    pub fn new(end: End) -> Self {
        Self {
            steps: Vec::new(),
            end,
        }
    }

    /// Exits with this code after its steps.
    pub fn exit(code: i32) -> Self {
        Self::new(End::Exit(code))
    }

    /// Is killed by this signal after its steps.
    pub fn signal(signal: i32) -> Self {
        Self::new(End::Signal(signal))
    }

    /// Takes its steps and then never ends by itself.
    pub fn hang() -> Self {
        Self::new(End::Hang)
    }

    /// Is not started, with an error of this kind.
    pub fn error(kind: ErrorKind) -> Self {
        Self::new(End::NotStarted(kind))
    }

    /// Adds a step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Then writes this to stdout.
    pub fn stdout(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Stdout(bytes.into()))
    }

    /// Then writes this to stderr.
    pub fn stderr(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Stderr(bytes.into()))
    }

    /// Then waits this long.
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// Then writes a file of the sandbox, with its parents.
    pub fn write(self, path: impl Into<GuestPath>, content: impl Into<Bytes>) -> Self {
        self.step(Step::Write(path.into(), content.into()))
    }
}

/// A fault of one call, whatever its operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The call does nothing and fails with this kind. A command is
    /// [not started](sandbox_core::Execution::NotStarted).
    Refuse(ErrorKind),
    /// The call takes effect, then its answer is lost: it fails with this kind. Whether a command
    /// ran is [unknown](sandbox_core::Execution::Unknown).
    LoseAnswer(ErrorKind),
    /// The call does nothing and never returns; the caller has to give it up.
    Hang,
    /// The call waits first.
    Delay(Duration),
}

/// A call that the model got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The sandbox that the call is about; `None` for `create` and `list`.
    pub sandbox: Option<SandboxId>,
    /// The operation.
    pub operation: Operation,
    /// The paths in the guest that it named, as they were given.
    pub paths: Vec<GuestPath>,
    /// The command, for `exec` and `spawn`.
    pub command: Option<Command>,
}

impl Call {
    pub(super) fn new(call: &layer::Call<'_>) -> Self {
        Self {
            sandbox: call.sandbox_id(),
            operation: call.operation(),
            paths: call.paths().into_iter().cloned().collect(),
            command: call.command().cloned(),
        }
    }

    /// The program of a command, as text; empty for other calls.
    pub fn program(&self) -> String {
        let program = self.command.as_ref().map(Command::program);
        String::from_utf8_lossy(program.unwrap_or_default()).into_owned()
    }
}
