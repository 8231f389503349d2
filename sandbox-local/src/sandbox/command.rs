//! Commands of the API, as the engine takes them.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rustix::io::Errno;
use sandbox_core::backend::command_not_found;
use sandbox_core::{
    Command, DEFAULT_TERM, Env, EnvValue, Error, ErrorKind, Execution, Exit, ExitStatus, GuestPath,
    Operation, Process, ProcessControl, ProcessStderr, ProcessStdin, ProcessStdout, ResourceUsage,
    Result, SandboxId, Signal, Stdin, TerminalSize,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::deadline::Deadline;
use super::ended::Ended;
use super::lost;
use super::memory::Memory;
use crate::engine::{
    Engine, ExitError, ExitFuture, Failure, FailureKind, Killed, Lost, Running, SpawnError,
    SpawnRequest, Terminal, Tree,
};
use crate::files;
use crate::start::cgroup::Cgroup;

/// Search path of programs when the environment has no `PATH`: execvp(3)'s default.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// A command with everything resolved.
pub(crate) struct PreparedCommand {
    candidates: Vec<Vec<u8>>,
    argv: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    cwd: GuestPath,
}

/// Facts about the sandbox that errors and the control of a process need.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) sandbox: SandboxId,
    pub(crate) ended: Arc<Ended>,
    pub(crate) operation: Operation,
    /// Control group, which may say why the sandbox ended.
    pub(crate) cgroup: Arc<Cgroup>,
    pub(crate) memory: Memory,
    /// Held while the process is: a sandbox with a running command is in use.
    pub(crate) _in_use: Arc<()>,
}

/// Resolves environment, working directory and the paths to try.
pub(crate) fn prepare(
    command: &Command,
    workdir: &GuestPath,
    mut env: BTreeMap<Vec<u8>, EnvValue>,
    operation: Operation,
) -> Result<PreparedCommand> {
    if command.terminal.is_some() && !env.contains_key(&b"TERM"[..]) {
        Env::new().set("TERM", DEFAULT_TERM).apply_to(&mut env);
    }
    command.env.apply_to(&mut env);
    let cwd = match &command.cwd {
        Some(cwd) => cwd.resolve(workdir, operation)?,
        None => workdir.clone(),
    };
    let program = command.program();
    let candidates = if program.contains(&b'/') {
        vec![program.to_vec()]
    } else {
        let path = env
            .get(&b"PATH"[..])
            .map_or(DEFAULT_PATH, |value| value.value.expose());
        path.split(|b| *b == b':')
            .map(|dir| {
                // An empty element of PATH is the working directory.
                let mut candidate = if dir.is_empty() {
                    b".".to_vec()
                } else {
                    dir.to_vec()
                };
                candidate.push(b'/');
                candidate.extend_from_slice(program);
                candidate
            })
            .collect()
    };
    let env = env
        .into_iter()
        .map(|(name, value)| [&name[..], b"=", value.value.expose()].concat())
        .collect();
    Ok(PreparedCommand {
        candidates,
        argv: command.argv().to_vec(),
        env,
        cwd,
    })
}

/// Starts a prepared command. `exec` learns of a program that can't be run from `wait`; `spawn`
/// waits until it runs.
pub(crate) async fn start(
    engine: &Engine,
    prepared: PreparedCommand,
    command: &Command,
    terminal: Option<Terminal>,
    deadline: Deadline,
    context: Context,
) -> Result<Process> {
    let spawning = context.operation != Operation::Exec;
    let request = SpawnRequest {
        candidates: prepared.candidates,
        argv: prepared.argv,
        env: prepared.env,
        cwd: prepared.cwd.as_bytes().to_vec(),
        stdin: match &command.stdin {
            Stdin::Empty => crate::engine::Stdin::Null,
            _ => crate::engine::Stdin::Piped,
        },
        terminal,
        confirm: spawning,
        deadline: deadline.at(),
        ..SpawnRequest::default()
    };
    let names = Names {
        program: command.program().into(),
        cwd: prepared.cwd,
    };
    let running = match engine.spawn(request).await {
        Ok(running) => running,
        Err(error) => return Err(not_spawned(error, deadline, &names, &context)),
    };
    let Running {
        tree,
        stdin,
        stdout,
        stderr,
        terminal,
        exit,
    } = running;
    let shared = Arc::new(Shared {
        tree,
        context,
        names,
        timed_out: AtomicBool::new(false),
        given_up: watch::Sender::new(false),
    });
    let ended = exit.watch();
    let control = Control {
        exit: Mutex::new(exit),
        ended: AtomicBool::new(false),
        // `exec` keeps its deadline itself: it kills with the output in hand.
        watchdog: deadline.at().filter(|_| spawning).map(|at| {
            let shared = shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                if ended.is_known() {
                    return;
                }
                shared.timed_out.store(true, Ordering::Release);
                // What is lost is dead as well. What is not dead by now is not waited for.
                let _ = shared.tree.kill().await;
                shared.given_up.send_replace(true);
            })
        }),
        shared,
        deadline,
        terminal,
    };
    let stdin = match (stdin.map(ProcessStdin::new), &command.stdin) {
        (Some(mut pipe), Stdin::Bytes(bytes)) if spawning => {
            let bytes = bytes.clone();
            // Ends when all is read, or with the last reader.
            tokio::spawn(async move {
                let _ = pipe.write_all(&bytes).await;
                let _ = pipe.shutdown().await;
            });
            None
        }
        (stdin, _) => stdin,
    };
    let (stdout, stderr) = (ProcessStdout::new(stdout), stderr.map(ProcessStderr::new));
    Ok(Process::new(control, stdin, Some(stdout), stderr))
}

/// Names that errors have in them.
#[derive(Debug)]
struct Names {
    program: GuestPath,
    cwd: GuestPath,
}

struct Shared {
    tree: Tree,
    context: Context,
    names: Names,
    timed_out: AtomicBool,
    /// The kill at the deadline is over, whatever came of it.
    given_up: watch::Sender<bool>,
}

/// Waits for, signals and kills a command of the engine.
struct Control {
    /// Held over the wait: the engine wakes one waiter.
    exit: Mutex<ExitFuture>,
    ended: AtomicBool,
    /// Kills the tree at the deadline.
    watchdog: Option<JoinHandle<()>>,
    deadline: Deadline,
    shared: Arc<Shared>,
    /// The host's end of the terminal, if it has one.
    terminal: Option<OwnedFd>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("sandbox", &self.shared.context.sandbox)
            .field("exec", &self.shared.tree.id())
            .finish_non_exhaustive()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
        if !self.ended.load(Ordering::Acquire) {
            self.shared.tree.kill_detached();
        }
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&self) -> Result<Exit> {
        let shared = &self.shared;
        let mut given_up = shared.given_up.subscribe();
        let outcome = tokio::select! {
            biased;
            outcome = async { (&mut *self.exit.lock().await).await } => outcome,
            _ = given_up.wait_for(|given_up| *given_up) => return Err(self.timed_out()),
        };
        self.ended.store(true, Ordering::Release);
        // What ended by itself just then was not cut.
        let killed = outcome.is_ok_and(|exit| exit.signal == Some(Signal::KILL.0));
        if killed && shared.timed_out.load(Ordering::Acquire) {
            return Err(self.timed_out());
        }
        match outcome {
            Ok(exit) => Ok(shared.context.memory.explain(exit_of(exit))),
            Err(ExitError::NotStarted(failure)) => {
                Err(not_started(failure, &shared.names, &shared.context))
            }
            Err(ExitError::Lost(lost)) => Err(shared
                .context
                .lost(lost)
                .with_execution(Execution::Interrupted)),
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        const LAST: i32 = 64;
        let context = self.signalling();
        if !(1..=LAST).contains(&signal.0) {
            return Err(context
                .error(ErrorKind::InvalidInput)
                .with_message(format!("there is no signal number {}", signal.0))
                .with_hint("use a number from 1 to 64"));
        }
        self.shared
            .tree
            .signal(signal.0)
            .await
            .map_err(|lost| context.lost(lost))
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        let context = Context {
            operation: Operation::Resize,
            ..self.shared.context.clone()
        };
        let Some(terminal) = &self.terminal else {
            return Err(context
                .error(ErrorKind::InvalidInput)
                .with_message("the command has no terminal")
                .with_hint("start it with Command::terminal"));
        };
        files::resize(terminal, size).map_err(|errno| {
            Error::from_io(errno.into(), Operation::Resize)
                .with_message("the size of the terminal can't be changed")
                .with_sandbox(context.sandbox)
        })
    }

    async fn kill(&self) -> Result<()> {
        let context = self.signalling();
        match self.shared.tree.kill().await {
            Ok(killed) => context.killed(killed),
            Err(why) => Err(context.lost(why)),
        }
    }
}

impl Control {
    fn signalling(&self) -> Context {
        Context {
            operation: Operation::Signal,
            ..self.shared.context.clone()
        }
    }

    fn timed_out(&self) -> Error {
        let context = &self.shared.context;
        self.deadline
            .killed(context.operation)
            .with_sandbox(context.sandbox.clone())
    }
}

fn exit_of(exit: crate::engine::Exit) -> Exit {
    let status = match (exit.code, exit.signal) {
        (_, Some(signal)) => ExitStatus::Signal(signal),
        (code, None) => ExitStatus::Code(code.unwrap_or(255)),
    };
    let peak = exit.peak_kib.saturating_mul(1024);
    Exit::new(status).usage(ResourceUsage::new(exit.user, exit.system, peak))
}

impl Context {
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.operation).with_sandbox(self.sandbox.clone())
    }

    fn lost(&self, why: Lost) -> Error {
        if self.ended.is_ended() {
            return self.ended.error(self.operation, &self.sandbox);
        }
        lost::error(why, &self.cgroup, self.operation).with_sandbox(self.sandbox.clone())
    }

    /// Result of killing a tree.
    fn killed(&self, killed: Killed) -> Result<()> {
        if killed.everything {
            tracing::warn!(
                sandbox = %self.sandbox,
                "a tree multiplied faster than it could be killed; everything in the sandbox was \
                 killed"
            );
        }
        if killed.unreadable {
            tracing::warn!(
                sandbox = %self.sandbox,
                "a process that hid which tree it belongs to was killed too"
            );
        }
        match killed.lingering {
            0 => Ok(()),
            living => Err(self
                .error(ErrorKind::Busy)
                .with_message(format!(
                    "{living} of the command's processes were killed but have not ended within \
                     five seconds: they wait in the kernel, or are frozen"
                ))
                .with_hint("kill again to wait on, or close the sandbox")
                .with_retryable(true)),
        }
    }
}

fn not_spawned(error: SpawnError, deadline: Deadline, names: &Names, context: &Context) -> Error {
    match error {
        SpawnError::TooLate => deadline
            .not_started(context.operation)
            .with_sandbox(context.sandbox.clone()),
        SpawnError::NotConfirmed => deadline
            .killed(context.operation)
            .with_sandbox(context.sandbox.clone())
            .with_execution(Execution::Unknown),
        SpawnError::Failed(failure) => not_started(failure, names, context),
        SpawnError::Lost(lost) => context.lost(lost).with_execution(Execution::NotStarted),
        SpawnError::Unconfirmed(lost) => context.lost(lost).with_execution(Execution::Unknown),
        SpawnError::TooLarge { .. } => context
            .error(ErrorKind::LimitExceeded)
            .with_message("arguments and environment are too long")
            .with_hint("pass large input on stdin or in a file")
            .with_execution(Execution::NotStarted)
            .with_source(error),
        SpawnError::Nul(_) => context
            .error(ErrorKind::InvalidInput)
            .with_message("a NUL byte in an argument, variable or path")
            .with_execution(Execution::NotStarted),
        SpawnError::Host {
            errno: Errno::MFILE | Errno::NFILE,
            ..
        } => context
            .error(ErrorKind::LimitExceeded)
            .with_message("the host has no file descriptor left for the command's pipes")
            .with_hint("raise `ulimit -n` or run fewer commands at once")
            .with_execution(Execution::NotStarted)
            .with_source(error),
        SpawnError::Host { .. } => context
            .error(ErrorKind::Other)
            .with_message("the command could not be handed over")
            .with_execution(Execution::NotStarted)
            .with_source(error),
    }
}

fn not_started(failure: Failure, names: &Names, context: &Context) -> Error {
    let program = |kind, message: &str| {
        context
            .error(kind)
            .with_message(message)
            .with_path(&names.program)
    };
    let error = match failure.kind {
        FailureKind::NotFound => command_not_found(
            context.operation,
            names.program.as_bytes(),
            "no such program (or its interpreter)",
        )
        .with_sandbox(context.sandbox.clone()),
        FailureKind::NotExecutable => {
            program(ErrorKind::NotExecutable, "the program may not be executed")
        }
        FailureKind::BadFormat => program(
            ErrorKind::NotExecutable,
            "the file is not a program that this machine can run",
        )
        .with_hint(
            "a script needs a first line such as #!/bin/sh; a binary must be whole and made for \
             this processor",
        ),
        FailureKind::Cwd => {
            let io = std::io::Error::from_raw_os_error(failure.errno.raw_os_error());
            Error::from_io(io, context.operation)
                .with_sandbox(context.sandbox.clone())
                .with_message("the working directory can't be entered")
                .with_path(&names.cwd)
        }
        FailureKind::ArgumentsTooLong => context
            .error(ErrorKind::LimitExceeded)
            .with_message("arguments and environment are too long")
            .with_hint("pass large input on stdin or in a file"),
        FailureKind::ProcessLimit => context
            .error(ErrorKind::LimitExceeded)
            .with_message("the sandbox may not have more processes"),
        FailureKind::Busy => program(
            ErrorKind::Busy,
            "the program has been open for writing for a second",
        )
        .with_hint("close the file that holds it, or wait for the process that writes it")
        .with_retryable(true),
        FailureKind::Other => program(ErrorKind::Other, "the command could not be started"),
    };
    error
        .with_execution(Execution::NotStarted)
        .with_source(failure)
}
