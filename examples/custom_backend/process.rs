//! A running command: watched to its end, and killed with everything it started.
//!
//! It must never leave a process running once its handle, its time or its sandbox is gone.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal as HostSignal, kill_process_group, pidfd_open, pidfd_send_signal,
};
use sandbox::backend::{blocking, timed_out};
use sandbox::{
    Capability, Error, ErrorKind, Execution, Exit, ExitStatus, GuestPath, Operation, Process,
    ProcessControl, ProcessStderr, ProcessStdin, ProcessStdout, Result, SandboxId, Signal,
    async_trait,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command as HostCommand};
use tokio::sync::{Notify, watch};

use crate::provider::Place;

/// Time that a killed process may take to be gone.
const DYING: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Reasons for which a command ends early.
pub(crate) struct Watched {
    /// Kept until nothing runs in it. Before `closed`, whose end says that it is let go.
    #[allow(dead_code)] // Dropping it is its use.
    pub(crate) place: Arc<Place>,
    pub(crate) op: Operation,
    pub(crate) sandbox: SandboxId,
    pub(crate) program: Vec<u8>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) closed: watch::Receiver<bool>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Exited(Exit),
    TimedOut(Duration),
    Closed,
    Lost,
}

/// Starts a command of the host and watches over it.
pub(crate) fn start(mut host: HostCommand, stdin: bool, watched: Watched) -> Result<Process> {
    host.stdin(match stdin {
        true => Stdio::piped(),
        false => Stdio::null(),
    });
    host.stdout(Stdio::piped()).stderr(Stdio::piped());
    host.process_group(0).kill_on_drop(true);
    let mut child = host.spawn().map_err(|error| {
        let program = GuestPath::new(watched.program.clone());
        let kind = match error.kind() {
            std::io::ErrorKind::ArgumentListTooLong => ErrorKind::LimitExceeded,
            _ => ErrorKind::Other,
        };
        Error::new(kind, watched.op)
            .with_message("the launcher could not be started")
            .with_path(program)
            .with_source(error)
    })?;
    let stdin = child.stdin.take().map(ProcessStdin::new);
    let stdout = child.stdout.take().map(ProcessStdout::new);
    let stderr = child.stderr.take().map(ProcessStderr::new);
    let (done, end) = watch::channel(None);
    let kill = Arc::new(Notify::new());
    let control = Control {
        op: watched.op,
        sandbox: watched.sandbox.clone(),
        kill: Arc::clone(&kill),
        end,
    };
    tokio::spawn(watch_over(child, watched, kill, done));
    Ok(Process::new(control, stdin, stdout, stderr))
}

/// Gives a process its input while it runs.
pub(crate) fn feed(process: &mut Process, bytes: Bytes) {
    if let Some(mut stdin) = process.stdin.take() {
        // A program that does not want its input is no error, and ends the writing when it ends.
        tokio::spawn(async move { stdin.write_all(&bytes).await });
    }
}

async fn watch_over(
    mut child: Child,
    mut watched: Watched,
    kill: Arc<Notify>,
    done: watch::Sender<Option<End>>,
) {
    let deadline = async {
        match watched.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        status = child.wait() => status.map_or(End::Lost, |status| End::Exited(exit(status))),
        // An error says that the sandbox is gone.
        _ = async { watched.closed.wait_for(|closed| *closed).await.is_ok() } => End::Closed,
        () = kill.notified() => End::Exited(Exit::new(ExitStatus::Signal(Signal::KILL.0))),
        () = deadline => End::TimedOut(watched.timeout.unwrap_or_default()),
    };
    // What has ended by itself has no number any more, and nothing is killed.
    kill_all(&mut child).await;
    done.send_replace(Some(ended));
}

/// Kills the launcher and its children, one of which is the first process of the command's pid
/// namespace: with it the kernel ends all others, and it is gone when they are.
async fn kill_all(child: &mut Child) {
    let Some(pid) = child.id() else {
        return;
    };
    let list = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(list).unwrap_or_default();
    let children: Vec<_> = children
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .collect();
    // Each may have ended by itself.
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, HostSignal::KILL);
    }
    for first in &children {
        let _ = pidfd_send_signal(first, HostSignal::KILL);
    }
    let _ = child.wait().await;
    // A descriptor of a process can be read when the process is gone.
    let gone = blocking(Operation::Exec, move || {
        for first in &children {
            let _ = poll(&mut [PollFd::new(first, PollFlags::IN)], Some(&DYING));
        }
        Ok(())
    });
    let _ = gone.await;
}

fn exit(status: std::process::ExitStatus) -> Exit {
    Exit::new(match status.signal() {
        Some(signal) => ExitStatus::Signal(signal),
        None => ExitStatus::Code(status.code().unwrap_or(255)),
    })
}

/// The handle of a running command.
#[derive(Debug)]
struct Control {
    op: Operation,
    sandbox: SandboxId,
    kill: Arc<Notify>,
    end: watch::Receiver<Option<End>>,
}

impl Control {
    async fn end(&self) -> End {
        let mut end = self.end.clone();
        let known = end.wait_for(Option::is_some).await;
        known.ok().and_then(|end| *end).unwrap_or(End::Lost)
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&self) -> Result<Exit> {
        let error = match self.end().await {
            End::Exited(exit) => return Ok(exit),
            End::TimedOut(after) => timed_out(self.op, after),
            End::Closed => Error::closed(self.op, &self.sandbox),
            End::Lost => Error::new(ErrorKind::Lost, self.op)
                .with_message("the end of the command was not seen"),
        };
        Err(error
            .with_execution(Execution::Interrupted)
            .with_sandbox(self.sandbox.clone()))
    }

    async fn signal(&self, _: Signal) -> Result<()> {
        let why = "a signal would reach the launcher and not the program";
        Err(
            Error::unsupported(Operation::Signal, Capability::Signals, why)
                .with_sandbox(self.sandbox.clone()),
        )
    }

    async fn kill(&self) -> Result<()> {
        self.kill.notify_one();
        self.end().await;
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}
