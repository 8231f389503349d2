//! Control of a spawned command: its input, its signals and its end.
//!
//! What is asked of it goes into files of a volume that its container shares with short commands of
//! this backend. Invariant: nothing that is in the volume is ever read on this side: the command may
//! write to it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Error, ErrorKind, Execution, Exit, Operation, ProcessControl, Result, Signal};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::guest::Script;
use crate::guest::frame::Frame;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::files::broken;
use crate::sandbox::process::Progress;
use crate::session::client::SMALL_ANSWER;
use crate::session::nonce::nonce;
use crate::session::query::{self, CONTROL, find};

/// Bytes of input that go in one query.
const CHUNK: usize = 256 << 10;

/// The way to a spawned command.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) sandbox: Arc<DaggerSandbox>,
    /// The container from which the command was started.
    pub(super) base: String,
    pub(super) volume: String,
    /// The argument that gives the volume to the command's user.
    pub(super) owner: String,
    /// The user of this one command.
    pub(super) user: Option<String>,
}

impl Channel {
    /// Runs a short command that puts a file into the volume.
    async fn put(
        &self,
        operation: Operation,
        script: impl FnOnce(Script) -> Script + Send,
    ) -> Result<()> {
        let nonce = nonce();
        let script = script(Script::new(&nonce).line(&format!("cd {CONTROL} || exit 0")));
        let script = script
            .line("echo \"frame $nonce\"; echo \"end $nonce\"")
            .text();
        let mut below = query::run(&script, &nonce, "stdout");
        below = query::controlled(&self.volume, &self.owner, &below);
        if let Some(user) = &self.user {
            below = format!("withUser(name: {}) {{ {below} }}", query::string(user));
        }
        let query = query::on_container(&self.base, &below);
        let sandbox = &self.sandbox;
        let answer = sandbox.ask(&query, operation, SMALL_ANSWER, sandbox.patience());
        let answer = answer.await?;
        let stdout = find(&answer, "stdout").unwrap_or_default();
        match Frame::parse(stdout, &nonce) {
            Ok(_) => Ok(()),
            Err(problem) => Err(sandbox.named(broken(problem, operation))),
        }
    }

    /// Asks for a signal, or for the end of all.
    async fn signal(&self, operation: Operation, word: &str) -> Result<()> {
        let line = format!(
            "echo {word} >\"new.$nonce\" || exit 0\n\
             n=1; while ! ln \"new.$nonce\" \"signal$n\" 2>/dev/null; do\n\
             n=$((n + 1)); if [ $n -gt 10000 ]; then exit 0; fi\n\
             done; rm -f \"new.$nonce\""
        );
        self.put(operation, |script| script.line(&line)).await
    }

    /// Hands on the next part of the input, or its end.
    async fn input(&self, number: u64, bytes: &[u8]) -> Result<()> {
        let to = match bytes.is_empty() {
            true => format!("end{number}"),
            false => format!("in{number}"),
        };
        let encoded = STANDARD.encode(bytes);
        self.put(Operation::Spawn, |script| {
            let script = script.decode("\"new.$nonce\"", &encoded);
            script.line(&format!("mv -f \"new.$nonce\" {to} || exit 0"))
        })
        .await
    }
}

/// Passes on the input of a command, up to its end. What can't be passed on breaks the pipe.
pub(super) async fn feed(channel: Arc<Channel>, mut given: DuplexStream) {
    let mut bytes = Vec::with_capacity(CHUNK);
    for number in 1.. {
        bytes.clear();
        let read = (&mut given).take(CHUNK as u64).read_buf(&mut bytes).await;
        let ended = read.is_ok_and(|read| read == 0);
        if channel.input(number, &bytes).await.is_err() || ended {
            return;
        }
    }
}

/// A spawned command.
pub(super) struct Control {
    channel: Arc<Channel>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
    feeder: Option<JoinHandle<()>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(
        channel: Arc<Channel>,
        progress: watch::Receiver<Progress>,
        task: JoinHandle<()>,
        feeder: Option<JoinHandle<()>>,
    ) -> Self {
        Self {
            channel,
            progress,
            task,
            feeder,
        }
    }

    fn has_ended(&self) -> bool {
        self.progress.borrow().outcome.is_some()
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&self) -> Result<Exit> {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.outcome.is_some());
        match ended
            .await
            .ok()
            .and_then(|progress| progress.outcome.clone())
        {
            Some(outcome) => outcome,
            None => Err(self.channel.sandbox.named(gone())),
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        const OP: Operation = Operation::Signal;
        let sandbox = &self.channel.sandbox;
        if !(1..=64).contains(&signal.0) {
            let error = Error::new(ErrorKind::InvalidInput, OP)
                .with_message(format!("there is no signal number {}", signal.0));
            return Err(sandbox.named(error));
        }
        sandbox.check_open(OP)?;
        match self.has_ended() {
            true => Ok(()),
            false => self.channel.signal(OP, &signal.0.to_string()).await,
        }
    }

    async fn kill(&self) -> Result<()> {
        const OP: Operation = Operation::Spawn;
        if self.has_ended() {
            return Ok(());
        }
        let sandbox = &self.channel.sandbox;
        sandbox.check_open(OP)?;
        self.channel.signal(OP, "all").await?;
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.outcome.is_some());
        match tokio::time::timeout(sandbox.patience(), ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(sandbox
                .named(Error::new(ErrorKind::Busy, OP))
                .with_message("the command was killed but has not ended yet")
                .with_hint("kill again to wait on, or drop the process")
                .with_retryable(true)),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
        // One that has ended still hands its output to those who read it.
        if !self.has_ended() {
            self.task.abort();
        }
    }
}

/// The error of a process whose task is gone.
fn gone() -> Error {
    Error::new(ErrorKind::Other, Operation::Spawn)
        .with_message("the task that carries the command ended")
        .with_execution(Execution::Unknown)
}
