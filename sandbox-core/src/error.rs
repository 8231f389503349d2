//! The one error type: what failed, on what, and whether the command ran.
//!
//! Invariant: no dependency's type appears here; what a dependency said is kept as `source()`.

use std::fmt;
use std::sync::Arc;

use crate::{ExitCause, GuestPath, PartialOutput, SandboxId};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// Kinds of errors, in terms that an application can act on.
///
/// ```
/// use sandbox_core::ErrorKind;
/// fn needs_a_new_sandbox(kind: ErrorKind) -> bool {
///     matches!(kind, ErrorKind::Closed | ErrorKind::Expired | ErrorKind::Lost)
/// }
/// assert!(needs_a_new_sandbox(ErrorKind::Expired));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, path or spec that can't be right; nothing was done.
    InvalidInput,
    /// A path in the sandbox or on the host, a sandbox or a snapshot that does not exist.
    NotFound,
    /// The program of a command was found neither as given nor in `PATH`.
    CommandNotFound,
    /// The program exists and may not be executed, or is of no executable format.
    NotExecutable,
    /// The name is taken, and replacing what has it was not asked for.
    AlreadyExists,
    /// A directory is needed and the path names something else.
    NotADirectory,
    /// A directory is there where a file is needed.
    IsADirectory,
    /// Neither a regular file nor a directory: a FIFO, socket or device, which is never opened.
    NotARegularFile,
    /// A directory that has entries can't be removed without being asked for.
    DirectoryNotEmpty,
    /// The sandbox's user may not do this, or the service denies it.
    PermissionDenied,
    /// The place is read-only.
    ReadOnly,
    /// A limit given by the caller or the backend was reached.
    LimitExceeded,
    /// No space or no inode left.
    StorageFull,
    /// The deadline of a command passed: it was killed, or never started. Nothing else is this kind:
    /// a port that is not listened on in time is [`NotListening`](Self::NotListening), and a
    /// service, a host or a layer that did not answer in time is [`Unavailable`](Self::Unavailable).
    Timeout,
    /// The backend does not have this operation or option. Nothing was done.
    Unsupported,
    /// The sandbox is closed.
    Closed,
    /// The sandbox's time to live passed, and it was ended as by `close`.
    Expired,
    /// The sandbox is gone without `close` and before its time: killed, destroyed, collected.
    Lost,
    /// The isolation that the spec requires can't be had on this host; nothing was created.
    Isolation,
    /// The backend, or what an operation needs of the host, can't be reached or did not answer in
    /// time.
    Unavailable,
    /// No or wrong credentials.
    Unauthenticated,
    /// Too many requests or too many sandboxes.
    RateLimited,
    /// In use, or changed at the same time.
    Busy,
    /// Conflict of what is there with what is asked for: a job's key that has another command.
    Conflict,
    /// Nothing listens on the port, or nothing did in the time of a wait.
    NotListening,
    /// Anything else that the operating system or the service reported.
    Other,
}

/// Progress of the command of a failed [`exec`](crate::Sandbox::exec) or
/// [`spawn`](crate::Sandbox::spawn): it decides whether running the command again is safe.
///
/// ```
/// use sandbox_core::{Error, ErrorKind, Execution, Operation};
/// # let error = Error::new(ErrorKind::Unavailable, Operation::Exec)
/// #     .with_execution(Execution::NotStarted);
/// let run_again = error.is_retryable() && error.execution() == Some(Execution::NotStarted);
/// # assert!(run_again);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Execution {
    /// The command never started: running it again runs it once.
    NotStarted,
    /// The command started and was ended early; [`Error::partial_output`] has what it had written.
    Interrupted,
    /// Whether the command ran is unknown: a connection broke before an answer came.
    Unknown,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// An operation of [`Sandbox`](crate::Sandbox) or [`Provider`](crate::Provider).
        ///
        /// ```
        /// use sandbox_core::Operation;
        /// assert_eq!(Operation::ReadFile.to_string(), "read_file");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// The operation's name as it is written in code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

operations! {
    /// [`Provider::create`](crate::Provider::create)
    Create = "create",
    /// [`Provider::attach`](crate::Provider::attach)
    Attach = "attach",
    /// [`Provider::list`](crate::Provider::list)
    List = "list",
    /// [`Provider::destroy`](crate::Provider::destroy)
    Destroy = "destroy",
    /// [`Provider::list_snapshots`](crate::Provider::list_snapshots)
    ListSnapshots = "list_snapshots",
    /// [`Provider::delete_snapshot`](crate::Provider::delete_snapshot)
    DeleteSnapshot = "delete_snapshot",
    /// Choosing or reaching a provider.
    Connect = "connect",
    /// [`Sandbox::exec`](crate::Sandbox::exec)
    Exec = "exec",
    /// [`Sandbox::spawn`](crate::Sandbox::spawn)
    Spawn = "spawn",
    /// Signalling a spawned process.
    Signal = "signal",
    /// [`Sandbox::write_files`](crate::Sandbox::write_files)
    WriteFiles = "write_files",
    /// [`Sandbox::read_file`](crate::Sandbox::read_file)
    ReadFile = "read_file",
    /// [`Sandbox::list_dir`](crate::Sandbox::list_dir)
    ListDir = "list_dir",
    /// [`Sandbox::metadata`](crate::Sandbox::metadata)
    Metadata = "metadata",
    /// [`Sandbox::remove`](crate::Sandbox::remove)
    Remove = "remove",
    /// [`Sandbox::create_dir`](crate::Sandbox::create_dir)
    CreateDir = "create_dir",
    /// [`Sandbox::rename`](crate::Sandbox::rename)
    Rename = "rename",
    /// [`Sandbox::import_dir`](crate::Sandbox::import_dir)
    ImportDir = "import_dir",
    /// [`Sandbox::export_dir`](crate::Sandbox::export_dir)
    ExportDir = "export_dir",
    /// [`Sandbox::set_workdir`](crate::Sandbox::set_workdir)
    SetWorkdir = "set_workdir",
    /// [`Sandbox::set_env`](crate::Sandbox::set_env)
    SetEnv = "set_env",
    /// [`Sandbox::egress_decisions`](crate::Sandbox::egress_decisions)
    EgressDecisions = "egress_decisions",
    /// [`Sandbox::restrict_egress`](crate::Sandbox::restrict_egress)
    RestrictEgress = "restrict_egress",
    /// [`Sandbox::fork`](crate::Sandbox::fork)
    Fork = "fork",
    /// [`Sandbox::snapshot`](crate::Sandbox::snapshot)
    Snapshot = "snapshot",
    /// [`Sandbox::close`](crate::Sandbox::close)
    Close = "close",
    /// [`Sandbox::isolation`](crate::Sandbox::isolation)
    Isolation = "isolation",
    /// Changing the size of a terminal: [`Process::resize`](crate::Process::resize)
    Resize = "resize",
    /// [`Sandbox::start_job`](crate::Sandbox::start_job)
    StartJob = "start_job",
    /// [`Sandbox::find_job`](crate::Sandbox::find_job)
    FindJob = "find_job",
    /// [`Sandbox::list_jobs`](crate::Sandbox::list_jobs)
    ListJobs = "list_jobs",
    /// [`Job::read_log`](crate::Job::read_log)
    ReadLog = "read_log",
    /// [`Job::write_stdin`](crate::Job::write_stdin)
    WriteStdin = "write_stdin",
    /// [`Job::wait`](crate::Job::wait)
    WaitJob = "wait_job",
    /// [`Job::stop`](crate::Job::stop)
    StopJob = "stop_job",
    /// [`Job::forget`](crate::Job::forget)
    ForgetJob = "forget_job",
    /// [`Sandbox::connect_port`](crate::Sandbox::connect_port)
    ConnectPort = "connect_port",
    /// [`Sandbox::open_read`](crate::Sandbox::open_read)
    OpenRead = "open_read",
    /// [`Sandbox::open_write`](crate::Sandbox::open_write)
    OpenWrite = "open_write",
    /// [`Sandbox::changes`](crate::Sandbox::changes)
    Changes = "changes",
    /// Putting changes in place elsewhere: on the host, or in another sandbox.
    ApplyChanges = "apply_changes",
    /// [`Sandbox::usage`](crate::Sandbox::usage)
    Usage = "usage",
    /// [`Sandbox::watch`](crate::Sandbox::watch)
    Watch = "watch",
    /// [`Sandbox::pause`](crate::Sandbox::pause)
    Pause = "pause",
    /// [`Sandbox::resume`](crate::Sandbox::resume)
    Resume = "resume",
    /// Making, changing, watching or deleting what sandboxes run on: a cloud's control plane.
    Provision = "provision",
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of every operation.
///
/// It says which operation failed, in which sandbox, on which path, whether a command ran, what
/// to do about it, and what lay beneath ([`source`](std::error::Error::source)).
///
/// ```
/// use sandbox_core::{Error, ErrorKind, GuestPath, Operation};
/// let error = Error::new(ErrorKind::NotFound, Operation::ReadFile)
///     .with_message("no such file")
///     .with_path(GuestPath::from("/workspace/a.txt"));
/// assert_eq!(error.to_string(), "read_file: no such file: /workspace/a.txt");
/// assert!(!error.is_retryable());
/// ```
///
/// `Display` is one line: operation, message, path, sandbox, hint. `Debug` adds the kind, how far a
/// command got, and the source:
///
/// ```
/// # use sandbox_core::{Error, ErrorKind, Execution, Operation, SandboxId};
/// let error = Error::new(ErrorKind::CommandNotFound, Operation::Exec)
///     .with_message("no such program")
///     .with_path("cargo")
///     .with_sandbox(SandboxId::new("s1"))
///     .with_execution(Execution::NotStarted)
///     .with_hint("install it, or set PATH");
/// assert_eq!(
///     error.to_string(),
///     "exec: no such program: cargo (sandbox s1); install it, or set PATH",
/// );
/// assert_eq!(
///     format!("{error:?}"),
///     "Error { kind: CommandNotFound, display: exec: no such program: cargo (sandbox s1); \
///      install it, or set PATH, execution: NotStarted }",
/// );
/// ```
///
/// Kinds, operations and this form are stable; the wording of messages is not. A clone shares the
/// source.
#[derive(Clone)]
pub struct Error(Box<Facts>);

#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    operation: Operation,
    message: String,
    path: Option<GuestPath>,
    host_path: Option<std::path::PathBuf>,
    sandbox: Option<SandboxId>,
    hint: Option<String>,
    execution: Option<Execution>,
    partial: Option<PartialOutput>,
    retryable: bool,
    source: Option<Source>,
}

impl Error {
    /// An error of this kind in this operation.
    pub fn new(kind: ErrorKind, operation: Operation) -> Self {
        let retryable = matches!(kind, ErrorKind::Unavailable | ErrorKind::RateLimited);
        Self(Box::new(Facts {
            kind,
            operation,
            message: String::new(),
            path: None,
            host_path: None,
            sandbox: None,
            hint: None,
            execution: None,
            partial: None,
            retryable,
            source: None,
        }))
    }

    /// [`ErrorKind::Unsupported`]: the backend lacks `what`, because of `reason`.
    pub fn unsupported(operation: Operation, what: impl fmt::Display, reason: &str) -> Self {
        Self::new(ErrorKind::Unsupported, operation)
            .with_message(format!("{what} is not supported: {reason}"))
    }

    /// [`ErrorKind::Closed`].
    pub fn closed(operation: Operation, sandbox: &SandboxId) -> Self {
        Self::new(ErrorKind::Closed, operation)
            .with_message("the sandbox is closed")
            .with_sandbox(sandbox.clone())
    }

    /// [`ErrorKind::Unavailable`] of a wait that took too long. It is not retryable by itself: what
    /// was asked for may still be done.
    ///
    /// ```
    /// use sandbox_core::{Error, ErrorKind, Operation};
    /// let error = Error::unanswered(Operation::Create, "no answer within 2s");
    /// assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, false));
    /// ```
    pub fn unanswered(operation: Operation, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, operation)
            .with_message(message)
            .with_retryable(false)
    }

    /// [`ErrorKind::Expired`].
    pub fn expired(operation: Operation, sandbox: &SandboxId) -> Self {
        Self::new(ErrorKind::Expired, operation)
            .with_message("the sandbox's time to live has passed")
            .with_sandbox(sandbox.clone())
            .with_hint("create another, with a longer time to live or none")
    }

    /// The kind that an I/O error corresponds to, with that error as the source.
    ///
    /// ```
    /// use sandbox_core::{Error, ErrorKind, Operation};
    /// let io = std::io::Error::from(std::io::ErrorKind::NotFound);
    /// let error = Error::from_io(io, Operation::ReadFile);
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// assert_eq!(error.to_string(), "read_file: no such file or directory");
    /// ```
    ///
    /// If the host has run out of file descriptors, the hint names the limit to raise.
    pub fn from_io(error: std::io::Error, operation: Operation) -> Self {
        use std::io::ErrorKind as Io;
        let hint = out_of_descriptors(&error);
        let (kind, message) = match error.kind() {
            _ if hint.is_some() => (ErrorKind::LimitExceeded, "too many open files"),
            // std keeps its own kind for this one unstable.
            _ if is_loop_of_links(&error) => (ErrorKind::InvalidInput, "a loop of symbolic links"),
            Io::ArgumentListTooLong => (
                ErrorKind::LimitExceeded,
                "the arguments and the environment are too long",
            ),
            Io::InvalidFilename => (ErrorKind::InvalidInput, "a name is too long or invalid"),
            Io::NotFound => (ErrorKind::NotFound, "no such file or directory"),
            Io::AlreadyExists => (ErrorKind::AlreadyExists, "already exists"),
            Io::PermissionDenied => (ErrorKind::PermissionDenied, "permission denied"),
            Io::NotADirectory => (ErrorKind::NotADirectory, "not a directory"),
            Io::IsADirectory => (ErrorKind::IsADirectory, "is a directory"),
            Io::DirectoryNotEmpty => (ErrorKind::DirectoryNotEmpty, "the directory is not empty"),
            Io::ReadOnlyFilesystem => (ErrorKind::ReadOnly, "the place is read-only"),
            Io::StorageFull | Io::QuotaExceeded => (ErrorKind::StorageFull, "no space left"),
            Io::FileTooLarge => (ErrorKind::LimitExceeded, "the file is too large"),
            Io::ResourceBusy => (ErrorKind::Busy, "in use"),
            Io::TimedOut => (ErrorKind::Unavailable, "timed out"),
            Io::InvalidInput => (ErrorKind::InvalidInput, "invalid argument"),
            _ => (ErrorKind::Other, "the operating system reported an error"),
        };
        let mut told = Self::new(kind, operation)
            .with_message(message)
            .with_retryable(false)
            .with_source(error);
        told.0.hint = hint.map(Into::into);
        told
    }

    /// Names another operation: the one that was asked for, where it is done by way of this one.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation = operation;
        self
    }

    /// Sets the message: what happened, in a few words without a full stop.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Names the path in the sandbox (or the program, for a command that was not found).
    #[must_use]
    pub fn with_path(mut self, path: impl Into<GuestPath>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// Names the path on the host.
    #[must_use]
    pub fn with_host_path(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.0.host_path = Some(path.into());
        self
    }

    /// Names the sandbox.
    #[must_use]
    pub fn with_sandbox(mut self, sandbox: SandboxId) -> Self {
        self.0.sandbox = Some(sandbox);
        self
    }

    /// Sets the hint: what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets whether the command ran.
    #[must_use]
    pub fn with_execution(mut self, execution: Execution) -> Self {
        self.0.execution = Some(execution);
        self
    }

    /// Marks the command as interrupted, with what it had written until then.
    #[must_use]
    pub fn with_partial_output(mut self, partial: PartialOutput) -> Self {
        self.0.execution = Some(Execution::Interrupted);
        self.0.partial = Some(partial);
        self
    }

    /// Overrides whether trying again can help.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Keeps what lay beneath.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the operation that failed.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The path in the sandbox, where there is one.
    pub fn path(&self) -> Option<&GuestPath> {
        self.0.path.as_ref()
    }

    /// The path on the host, where there is one.
    pub fn host_path(&self) -> Option<&std::path::Path> {
        self.0.host_path.as_deref()
    }

    /// The sandbox, where there is one.
    pub fn sandbox(&self) -> Option<&SandboxId> {
        self.0.sandbox.as_ref()
    }

    /// The message, without operation and path.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Advice on what to do about the error.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the command ran; `None` if the operation runs no command.
    pub fn execution(&self) -> Option<Execution> {
        self.0.execution
    }

    /// Why the command ended; `None` if it did not run or its end is not known.
    ///
    /// ```
    /// use sandbox_core::{Error, ErrorKind, Execution, ExitCause, Operation};
    /// let error = Error::new(ErrorKind::Timeout, Operation::Exec)
    ///     .with_execution(Execution::Interrupted);
    /// assert_eq!(error.exit_cause(), Some(ExitCause::Timeout));
    /// ```
    pub fn exit_cause(&self) -> Option<ExitCause> {
        match (self.0.execution, self.0.kind) {
            (Some(Execution::Interrupted), ErrorKind::Timeout) => Some(ExitCause::Timeout),
            (Some(Execution::Interrupted), ErrorKind::Closed) => Some(ExitCause::Killed),
            _ => None,
        }
    }

    /// Output that the command had written before it was cut.
    pub fn partial_output(&self) -> Option<&PartialOutput> {
        self.0.partial.as_ref()
    }

    /// Takes the partial output out: what a command had written before it was interrupted.
    ///
    /// ```
    /// use sandbox_core::{Error, ErrorKind, Operation, PartialOutput};
    /// let error = Error::new(ErrorKind::Timeout, Operation::Exec)
    ///     .with_partial_output(PartialOutput::default());
    /// let partial = error.into_partial_output().unwrap_or_default();
    /// assert!(partial.stdout.bytes.is_empty());
    /// ```
    pub fn into_partial_output(self) -> Option<PartialOutput> {
        self.0.partial
    }

    /// Whether the same call may succeed later. This says nothing about side effects: before
    /// running a command again, look at [`execution`](Error::execution).
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

/// Advice for an I/O error that is `EMFILE` (24) or `ENFILE` (23), the same numbers on all
/// Unix systems.
fn out_of_descriptors(error: &std::io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(24) if cfg!(unix) => Some(
            "this process has used up its open files: close sandboxes, or raise the limit \
             (`ulimit -n`, or LimitNOFILE= of its service)",
        ),
        Some(23) if cfg!(unix) => {
            Some("the machine has used up its open files: raise sysctl fs.file-max")
        }
        _ => None,
    }
}

/// Whether an I/O error is `ELOOP`: 40 on Linux, 62 on macOS and the BSDs.
fn is_loop_of_links(error: &std::io::Error) -> bool {
    let number = if cfg!(target_os = "linux") { 40 } else { 62 };
    cfg!(unix) && error.raw_os_error() == Some(number)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "{}: ", inner.operation)?;
        if inner.message.is_empty() {
            write!(f, "{:?}", inner.kind)?;
        } else {
            f.write_str(&inner.message)?;
        }
        if let Some(path) = &inner.path {
            write!(f, ": {}", path.to_string_lossy().escape_debug())?;
        }
        if let Some(path) = &inner.host_path {
            write!(
                f,
                ": host path {}",
                path.display().to_string().escape_debug()
            )?;
        }
        if let Some(sandbox) = &inner.sandbox {
            write!(f, " (sandbox {sandbox})")?;
        }
        if let Some(hint) = &inner.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", &inner.kind)
            .field("display", &format_args!("{self}"));
        if let Some(execution) = &inner.execution {
            out.field("execution", execution);
        }
        if let Some(source) = &inner.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn the_text_names_operation_path_sandbox_and_remedy() {
        let error = Error::new(ErrorKind::Isolation, Operation::Create)
            .with_message("user namespaces are off")
            .with_sandbox(SandboxId::new("s1"))
            .with_hint("set user.max_user_namespaces");
        assert_eq!(
            error.to_string(),
            "create: user namespaces are off (sandbox s1); set user.max_user_namespaces"
        );
    }

    #[test]
    fn io_errors_keep_their_source_and_get_a_kind() {
        let io = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::from_io(io, Operation::WriteFiles);
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.source().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_host_out_of_descriptors_is_told_which_limit_to_raise() {
        for (number, limit) in [(24, "ulimit -n"), (23, "fs.file-max")] {
            let io = std::io::Error::from_raw_os_error(number);
            let error = Error::from_io(io, Operation::WriteFiles);
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            assert!(error.hint().is_some_and(|hint| hint.contains(limit)));
        }
    }

    #[test]
    fn control_characters_in_a_path_do_not_reach_the_terminal() {
        let error = Error::new(ErrorKind::NotFound, Operation::ReadFile)
            .with_message("no such file")
            .with_path("a\n\u{1b}[31mb");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
