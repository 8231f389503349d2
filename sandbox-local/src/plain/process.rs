//! Starts a command, watches it to its end and gives its handle out.
//!
//! It must never leave the main process running once its handle, its time or its sandbox is gone.

use std::io::{self, ErrorKind as ErrorKindOfHost};
use std::process::{ExitStatus as HostStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::backend::timed_out;
use sandbox_core::{
    CollectOptions, Command, Error, ErrorKind, Execution, Exit, ExitStatus, Operation, Output,
    Process, ProcessControl, ProcessStderr, ProcessStdin, ProcessStdout, Result, SandboxId, Signal,
    Stdin,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command as HostCommand};
use tokio::sync::watch;
use tokio::time::Instant;

use super::group::{Group, Groups, Reach};
use super::program::not_started;
use super::stream::{Ended, Stream};

/// Time that a killed main process may take to be reported dead.
const GRACE: Duration = Duration::from_secs(5);

/// Number of tries for a program that is open for writing, a millisecond apart: a process that
/// another thread is just starting has a copy of every descriptor for a moment, also of one that
/// has been written to and closed here.
const BUSY_TRIES: u32 = 1000;

/// Parameters of a start.
pub(crate) struct Start<'a> {
    pub(crate) op: Operation,
    pub(crate) program: &'a [u8],
    pub(crate) sandbox: SandboxId,
    pub(crate) timeout: Option<Duration>,
    /// Whether there is a pipe for standard input.
    pub(crate) stdin: bool,
    pub(crate) groups: &'a Groups,
    pub(crate) closed: watch::Receiver<bool>,
    /// Time for which output is still read after the end.
    pub(crate) grace: Duration,
    /// Way to start it, if not as an ordinary child.
    pub(crate) launch: Option<&'a dyn Launch>,
}

/// A process that was launched, and what reaches all that it starts.
pub(crate) type Launched = (Child, Arc<dyn Reach>);

/// A way to start a command other than as an ordinary child.
#[async_trait]
pub(crate) trait Launch: Send + Sync {
    /// Starts it, and gives the command back for another try.
    async fn launch(&self, command: HostCommand)
    -> io::Result<(HostCommand, io::Result<Launched>)>;
}

/// End of a main process.
#[derive(Clone, Copy, Debug)]
enum End {
    Exited(Exit),
    TimedOut(Duration),
    Closed,
    Unknown,
}

/// Starts the command. Dropping the future starts nothing.
pub(crate) async fn start(mut command: HostCommand, start: Start<'_>) -> Result<Process> {
    // Now, not when its process is seen: this task may have to wait for its turn until then.
    let deadline = start
        .timeout
        .and_then(|timeout| Some((timeout, Instant::now().checked_add(timeout)?)));
    command
        .stdin(if start.stdin {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut tries = 0;
    let (mut child, reach) = loop {
        let spawned = match start.launch {
            None => command.spawn().map(|child| (child, None)),
            Some(launch) => {
                let failed = |e| not_started(e, start.op, start.program);
                let launched = launch.launch(command).await.map_err(failed)?;
                command = launched.0;
                launched.1.map(|(child, reach)| (child, Some(reach)))
            }
        };
        match spawned {
            Err(e) if e.kind() == ErrorKindOfHost::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            spawned => break spawned.map_err(|e| not_started(e, start.op, start.program))?,
        }
    };
    let group = Group::new(child.id(), reach);
    start.groups.add(&group);
    let (done, end) = watch::channel(None);
    let stdin = child.stdin.take().map(ProcessStdin::new);
    let stdout = child.stdout.take();
    let stdout = stdout.map(|pipe| ProcessStdout::new(Stream::new(pipe, ended(&end), start.grace)));
    let stderr = child.stderr.take();
    let stderr = stderr.map(|pipe| ProcessStderr::new(Stream::new(pipe, ended(&end), start.grace)));
    tokio::spawn(watch_over(
        child,
        KillOnDrop(Arc::clone(&group)),
        deadline,
        start.closed,
        done,
    ));
    let control = Control {
        op: start.op,
        sandbox: start.sandbox,
        group,
        end,
    };
    Ok(Process::new(control, stdin, stdout, stderr))
}

/// The result of a command that was asked for at that time, and whose process has been started.
pub(crate) async fn output(
    process: Process,
    command: Command,
    asked: std::time::Instant,
    sandbox: &SandboxId,
) -> Result<Output> {
    let mut options = CollectOptions::new().started(asked);
    options.stdout_limit = command.stdout_limit;
    options.stderr_limit = command.stderr_limit;
    options.sandbox = Some(sandbox.clone());
    if let Stdin::Bytes(bytes) = command.stdin {
        options.stdin = bytes;
    }
    process.wait_with_output(options).await
}

/// Gives a process the bytes that its command has for standard input, in the background.
pub(crate) fn feed(process: &mut Process, stdin: Stdin, mut closed: watch::Receiver<bool>) {
    if let Stdin::Bytes(bytes) = stdin
        && let Some(mut stdin) = process.stdin.take()
    {
        tokio::spawn(async move {
            tokio::select! {
                // A program that does not want its input is not an error.
                _ = stdin.write_all(&bytes) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        });
    }
}

fn ended(end: &watch::Receiver<Option<End>>) -> Ended {
    let mut end = end.clone();
    Box::pin(async move {
        // An error says that the watching task is gone, which is an end too.
        let _ = end.wait_for(Option::is_some).await;
    })
}

/// Kills a command whose watcher goes away with the runtime.
struct KillOnDrop(Arc<Group>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.kill();
        }
    }
}

async fn watch_over(
    mut child: Child,
    group: KillOnDrop,
    deadline: Option<(Duration, Instant)>,
    mut closed: watch::Receiver<bool>,
    done: watch::Sender<Option<End>>,
) {
    let group = &group.0;
    let told = closed.clone();
    let cut = loop {
        tokio::select! {
            biased;
            status = child.wait() => {
                group.main_ended();
                let end = match status.map(exit) {
                    // `close` kills before it is seen here.
                    Ok(exit) if *told.borrow() && was_killed(exit) => End::Closed,
                    Ok(exit) => End::Exited(exit),
                    Err(_) => End::Unknown,
                };
                done.send_replace(Some(end));
                return;
            }
            () = group.kill_asked() => {
                // The group is killed; this is for hosts that have none.
                let _ = child.start_kill();
            }
            // A sender that is gone is a sandbox that was dropped.
            _ = closed.wait_for(|closed| *closed) => break End::Closed,
            timeout = reached(deadline) => break End::TimedOut(timeout),
        }
    };
    group.kill();
    let _ = child.start_kill();
    if tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
        group.main_ended();
        group.emptied().await;
    }
    done.send_replace(Some(cut));
}

/// Whether it may have been killed; hosts without signals do not tell.
fn was_killed(exit: Exit) -> bool {
    !cfg!(unix) || exit.status.signal() == Some(Signal::KILL.0)
}

/// Waits for the end of a command's time, and says how long that was.
async fn reached(deadline: Option<(Duration, Instant)>) -> Duration {
    match deadline {
        Some((timeout, end)) => {
            tokio::time::sleep_until(end).await;
            timeout
        }
        None => std::future::pending().await,
    }
}

#[cfg(unix)]
fn exit(status: HostStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    Exit::new(match status.signal() {
        Some(signal) => ExitStatus::Signal(super::group::linux_number(signal)),
        None => ExitStatus::Code(code(status)),
    })
}

#[cfg(not(unix))]
fn exit(status: HostStatus) -> Exit {
    Exit::new(ExitStatus::Code(code(status)))
}

fn code(status: HostStatus) -> i32 {
    status.code().unwrap_or(255)
}

/// The handle of a running command.
#[derive(Debug)]
struct Control {
    op: Operation,
    sandbox: SandboxId,
    group: Arc<Group>,
    end: watch::Receiver<Option<End>>,
}

impl Control {
    async fn end(&self) -> End {
        let mut end = self.end.clone();
        let known = end.wait_for(Option::is_some).await;
        known.ok().and_then(|end| *end).unwrap_or(End::Unknown)
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&self) -> Result<Exit> {
        let error = match self.end().await {
            End::Exited(exit) => return Ok(exit),
            End::TimedOut(after) => timed_out(self.op, after),
            End::Closed => Error::closed(self.op, &self.sandbox),
            End::Unknown => Error::new(ErrorKind::Lost, self.op)
                .with_message("the runtime that watched the command is gone"),
        };
        Err(error
            .with_execution(Execution::Interrupted)
            .with_sandbox(self.sandbox.clone()))
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        super::CAPABILITIES.require(sandbox_core::Capability::Signals, Operation::Signal)?;
        self.group.signal(signal).map_err(|e| {
            Error::from_io(e, Operation::Signal)
                .with_message(format!("signal {} was not sent", signal.0))
                .with_sandbox(self.sandbox.clone())
        })
    }

    async fn kill(&self) -> Result<()> {
        self.group.kill();
        self.end().await;
        self.group.emptied().await;
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.group.is_running() {
            self.group.kill();
        }
    }
}
