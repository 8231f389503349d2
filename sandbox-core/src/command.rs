//! A command to run: argument vector, input, directory, environment, limits.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Env, Error, ErrorKind, Execution, GuestPath, Operation, Result, Secret, TerminalOptions,
};

/// Default limit of each output stream: 16 MiB.
pub const DEFAULT_OUTPUT_LIMIT: u64 = 16 << 20;

#[cfg(feature = "serde")]
fn default_output_limit() -> u64 {
    DEFAULT_OUTPUT_LIMIT
}

/// Standard input of a command.
///
/// ```
/// use sandbox_core::{Command, Stdin};
/// let command = Command::new("sort").stdin("2\n1\n");
/// assert!(matches!(command.stdin, Stdin::Bytes(_)));
/// ```
#[derive(Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Stdin {
    /// End of file at once (the default).
    #[default]
    Empty,
    /// These bytes, then end of file.
    Bytes(#[cfg_attr(feature = "serde", serde(with = "crate::wire::bytes"))] Bytes),
    /// A pipe that the caller writes to: only for [`spawn`](crate::Sandbox::spawn).
    Piped,
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Piped => f.write_str("Piped"),
        }
    }
}

/// A command: an argument vector, never a line for a shell to take apart.
///
/// Arguments reach the program byte for byte. A shell is asked for by name, with
/// [`Command::shell`]. `Debug` shows the program and how many arguments there are, not what they
/// say.
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::Command;
/// let command = Command::new("python3")
///     .args(["-c", "print(input())"])
///     .stdin("hello\n")
///     .env("LANG", "C.UTF-8")
///     .timeout(Duration::from_secs(10));
/// assert_eq!(command.argv().len(), 3);
/// assert!(!format!("{command:?}").contains("input"));
/// ```
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct Command {
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::argv"))]
    argv: Vec<Vec<u8>>,
    /// Variables on top of the sandbox's environment.
    #[cfg_attr(feature = "serde", serde(default))]
    pub env: Env,
    /// Directory in which the command starts, relative to the workdir; the workdir if `None`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub cwd: Option<GuestPath>,
    /// Standard input.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stdin: Stdin,
    /// Time after which it and everything it started are killed. `None`: the spec's default, or
    /// no limit if that has none.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "crate::wire::seconds_or_none")
    )]
    pub timeout: Option<Duration>,
    /// Bytes of stdout that [`exec`](crate::Sandbox::exec) keeps; what is beyond is read and
    /// thrown away, and the output says so.
    #[cfg_attr(feature = "serde", serde(default = "default_output_limit"))]
    pub stdout_limit: u64,
    /// Bytes of stderr that are kept, in the same way.
    #[cfg_attr(feature = "serde", serde(default = "default_output_limit"))]
    pub stderr_limit: u64,
    /// The user in the sandbox to run as; the sandbox's own if `None`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub user: Option<String>,
    /// A terminal instead of three pipes; see [`terminal`](Command::terminal).
    #[cfg_attr(feature = "serde", serde(default))]
    pub terminal: Option<TerminalOptions>,
}

impl Command {
    /// A command that runs `program`, found in the `PATH` of its environment unless it has a `/`.
    pub fn new(program: impl AsRef<[u8]>) -> Self {
        Self {
            argv: vec![program.as_ref().to_vec()],
            env: Env::new(),
            cwd: None,
            stdin: Stdin::Empty,
            timeout: None,
            stdout_limit: DEFAULT_OUTPUT_LIMIT,
            stderr_limit: DEFAULT_OUTPUT_LIMIT,
            user: None,
            terminal: None,
        }
    }

    /// `/bin/sh -c SCRIPT`: for pipes, redirections and the like.
    ///
    /// Never build the script from untrusted text; give it arguments instead: those that
    /// [`arg`](Command::arg) adds are `$0`, `$1`, … in the script.
    pub fn shell(script: impl AsRef<[u8]>) -> Self {
        Self::new("/bin/sh").arg("-c").arg(script)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.argv.push(arg.as_ref().to_vec());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<[u8]>>>(mut self, args: I) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().to_vec()));
        self
    }

    /// Sets a variable of the command's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<Vec<u8>>, value: impl Into<Secret>) -> Self {
        self.env = self.env.set(name, value);
        self
    }

    /// Takes a variable out of the command's environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<Vec<u8>>) -> Self {
        self.env = self.env.unset(name);
        self
    }

    crate::setters! {
        /// Starts it in this directory.
        cwd: Some(into GuestPath),
    }

    /// Gives it these bytes on standard input, then end of file.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// Gives it a pipe for standard input that the caller of `spawn` writes to.
    #[must_use]
    pub fn stdin_piped(mut self) -> Self {
        self.stdin = Stdin::Piped;
        self
    }

    crate::setters! {
        /// Kills it and everything it started after this time.
        timeout: Some(Duration),
    }

    /// Keeps at most this many bytes of each output stream.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.stdout_limit = bytes;
        self.stderr_limit = bytes;
        self
    }

    crate::setters! {
        /// Keeps at most this many bytes of stdout.
        stdout_limit: u64,

        /// Keeps at most this many bytes of stderr.
        stderr_limit: u64,

        /// Runs it as this user of the sandbox.
        user: Some(into String),

        /// Gives it a terminal instead of three pipes: only for [`spawn`](crate::Sandbox::spawn) and
        /// [`start_job`](crate::Sandbox::start_job).
        ///
        /// The process has [`stdin`](crate::Process::stdin) and [`stdout`](crate::Process::stdout)
        /// then, both of the terminal, and no [`stderr`](crate::Process::stderr): a terminal shows
        /// everything in one stream. Bytes are not exact: what is written to it comes back (echo), and
        /// `\n` comes as `\r\n`, unless the program or [`TerminalOptions::raw`] turns that off.
        ///
        /// - Control characters do what they do on a keyboard: `\x03` interrupts, `\x1c` quits, `\x1a`
        ///   stops the job in the foreground, `\x04` at the start of a line is the end of input. Shutting
        ///   stdin down is none of these.
        /// - A line is at most 4,095 bytes unless the terminal is raw: the kernel drops the rest.
        /// - `TERM` is [`DEFAULT_TERM`](crate::DEFAULT_TERM) unless the environment has one.
        /// - When the main process ends the terminal hangs up; what it left in the background can't write
        ///   to it any more.
        ///
        /// ```no_run
        /// # use sandbox_core::{Command, Result, Sandbox, TerminalSize};
        /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
        /// let size = TerminalSize { rows: 40, columns: 120 };
        /// let process = sandbox.spawn(Command::new("sh").terminal(size)).await?;
        /// process.resize(TerminalSize { rows: 50, columns: 120 }).await?;
        /// # Ok(()) }
        /// ```
        terminal: Some(into TerminalOptions),
    }

    /// The argument vector; the first element is the program.
    pub fn argv(&self) -> &[Vec<u8>] {
        &self.argv
    }

    /// The program, for messages.
    pub fn program(&self) -> &[u8] {
        self.argv.first().map_or(b"", Vec::as_slice)
    }

    /// Checks what can be checked without a sandbox.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], not started: an empty program, a NUL byte in an argument, an
    /// invalid variable, a piped stdin or a terminal for `exec`, a terminal without rows or columns
    /// or with bytes for stdin, a timeout of zero.
    pub fn validate(&self, operation: Operation) -> Result<()> {
        let invalid = |why: &str| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(why)
                .with_execution(Execution::NotStarted)
        };
        if self.program().is_empty() {
            return Err(invalid("the program is empty"));
        }
        if self.argv.iter().any(|arg| arg.contains(&0)) {
            return Err(invalid("an argument has a NUL byte"));
        }
        if operation == Operation::Exec && matches!(self.stdin, Stdin::Piped) {
            return Err(invalid("exec has no one to write to a piped stdin").with_hint("use spawn"));
        }
        if let Some(terminal) = self.terminal {
            if operation == Operation::Exec {
                let why = "exec keeps the exact bytes of two streams; a terminal has one stream and \
                           changes it";
                return Err(invalid(why).with_hint("use spawn"));
            }
            if matches!(self.stdin, Stdin::Bytes(_)) {
                let why = "a terminal can't be given bytes and an end of input";
                return Err(invalid(why).with_hint("write to the stdin of the process"));
            }
            terminal
                .size
                .validate(operation)
                .map_err(|error| error.with_execution(Execution::NotStarted))?;
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(invalid("the timeout is zero"));
        }
        self.env
            .validate(operation)
            .map_err(|error| error.with_execution(Execution::NotStarted))
    }
}

impl Command {
    /// Whether both would do the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self {
            argv,
            env,
            cwd,
            stdin,
            timeout,
            stdout_limit,
            stderr_limit,
            user,
            terminal,
        } = self;
        let same_input = match (stdin, &other.stdin) {
            (Stdin::Empty, Stdin::Empty) | (Stdin::Piped, Stdin::Piped) => true,
            (Stdin::Bytes(bytes), Stdin::Bytes(others)) => bytes == others,
            _ => false,
        };
        same_input
            && *argv == other.argv
            && *env == other.env
            && *cwd == other.cwd
            && *timeout == other.timeout
            && (*stdout_limit, *stderr_limit) == (other.stdout_limit, other.stderr_limit)
            && *user == other.user
            && *terminal == other.terminal
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field(
                "program",
                &format_args!("\"{}\"", self.program().escape_ascii()),
            )
            .field("args", &self.argv.len().saturating_sub(1))
            .field("env", &self.env)
            .field("cwd", &self.cwd)
            .field("stdin", &self.stdin)
            .field("timeout", &self.timeout)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}
