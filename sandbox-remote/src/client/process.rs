//! A process behind a server: its end, signals, and the streams that belong to it.
//!
//! Invariant: it is asked after as long as its handle lives, so that the server keeps it; dropping
//! the handle ends it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{
    Command, Error, Execution, Exit, Operation, Process, ProcessControl, ProcessStderr,
    ProcessStdin, ProcessStdout, Result, Signal, TerminalSize,
};
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::call::{Call, Sent};
use super::http::Http;
use super::state::SandboxState;
use super::stream::Following;
use crate::wire;

/// The most input of one request.
const INPUT: usize = 1 << 20;

/// Starts a command and follows it.
pub(super) async fn spawn(
    sandbox: &Arc<SandboxState>,
    command: Command,
    operation: Operation,
) -> Result<Process> {
    command
        .validate(Operation::Spawn)
        .map_err(|error| sandbox.named(error))?;
    let call = Call::named(operation, &sandbox.path("spawn"));
    // From here on the process is let go of whenever this is dropped.
    let remote = Remote::of(&sandbox.http, &call);
    let name = Arc::clone(&remote.name);
    let spawned: Result<wire::Spawned> = sandbox.call(call, &wire::Run::from(command)).await;
    let spawned = match spawned {
        Ok(spawned) => spawned,
        Err(error) if error.execution() == Some(Execution::NotStarted) => {
            remote.forget();
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let stream =
        |there: bool, what: &'static str| there.then(|| Following::new(&sandbox.http, &name, what));
    let stdout = stream(spawned.stdout, "stdout").map(ProcessStdout::new);
    let stderr = stream(spawned.stderr, "stderr").map(ProcessStderr::new);
    let stdin = spawned
        .stdin
        .then(|| ProcessStdin::new(Input::new(&sandbox.http, &name)));
    let ended = watch::Sender::new(None);
    let watching = tokio::spawn(watch_end(Arc::clone(sandbox), name, ended.clone()));
    let control = Control {
        remote,
        sandbox: Arc::clone(sandbox),
        ended,
        watching: watching.abort_handle(),
    };
    let alive: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(sandbox) as _;
    Ok(Process::new(control, stdin, stdout, stderr).keep_alive(alive))
}

/// Lets go of the process when it is dropped.
#[derive(Debug)]
pub(super) struct Remote {
    http: Arc<Http>,
    pub(super) name: Arc<str>,
}

impl Remote {
    /// The process that a call will make.
    pub(super) fn of(http: &Arc<Http>, call: &Call<'_>) -> Self {
        Self {
            http: Arc::clone(http),
            name: call.name().into(),
        }
    }

    /// Forgets the process: there is none.
    fn forget(mut self) {
        self.name = "".into();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            self.http.in_background(&["v1", "processes", &self.name]);
        }
    }
}

pub(super) type Ended = Option<Result<Exit>>;

#[derive(Debug)]
struct Control {
    remote: Remote,
    sandbox: Arc<SandboxState>,
    ended: watch::Sender<Ended>,
    watching: AbortHandle,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Asks for the end of a process until it is there, or the server is lost.
pub(super) async fn watch_end(
    sandbox: Arc<SandboxState>,
    name: Arc<str>,
    ended: watch::Sender<Ended>,
) {
    const OP: Operation = Operation::Spawn;
    let path = ["v1", "processes", &name, "wait"];
    let mut since = None;
    let exit = loop {
        let call = Call::read(OP, Method::POST, &path);
        match sandbox.http.call::<wire::Waited>(call).await {
            Ok(wire::Waited::Running) => since = None,
            Ok(wire::Waited::Ended(exit)) => break Ok(exit),
            Err(error) => {
                use sandbox_core::ErrorKind::{RateLimited, Unavailable};
                let unreachable = matches!(error.kind(), Unavailable | RateLimited);
                let since = since.get_or_insert_with(Instant::now);
                if !unreachable {
                    break Err(error);
                }
                if since.elapsed() > sandbox.http.horizon() {
                    break Err(error.with_execution(Execution::Unknown));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let exit = exit.map_err(|error| sandbox.named(error));
    ended.send_replace(Some(exit));
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&self) -> Result<Exit> {
        let mut ended = self.ended.subscribe();
        let exit = ended.wait_for(Option::is_some).await;
        let exit = exit.ok().and_then(|exit| exit.clone());
        exit.unwrap_or_else(|| {
            let kind = sandbox_core::ErrorKind::Lost;
            Err(Error::new(kind, Operation::Spawn).with_message("the process is not followed"))
        })
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        const OP: Operation = Operation::Signal;
        let path = ["v1", "processes", &self.remote.name, "signal"];
        let call = Call::named(OP, &path);
        let body = wire::SendSignal { signal: signal.0 };
        let wire::Nothing {} = self.sandbox.call(call, &body).await?;
        Ok(())
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        let path = ["v1", "processes", &self.remote.name, "resize"];
        let call = Call::read(Operation::Resize, Method::POST, &path);
        let wire::Nothing {} = self.sandbox.call(call, &wire::Resize { size }).await?;
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        const OP: Operation = Operation::Signal;
        let path = ["v1", "processes", &self.remote.name, "kill"];
        let call = Call::read(OP, Method::POST, &path);
        let wire::Nothing {} = self.sandbox.call(call, &wire::Nothing {}).await?;
        Ok(())
    }
}

/// Input on its way: one request at a time, each with its offset.
pub(super) struct Input {
    http: Arc<Http>,
    name: Arc<str>,
    offset: u64,
    sending: Option<JoinHandle<Result<wire::Taken>>>,
    /// Whether the program reads no more.
    closed: bool,
    ended: bool,
}

impl Input {
    pub(super) fn new(http: &Arc<Http>, name: &Arc<str>) -> Self {
        Self {
            http: Arc::clone(http),
            name: Arc::clone(name),
            offset: 0,
            sending: None,
            closed: false,
            ended: false,
        }
    }

    fn send(&mut self, bytes: Bytes, end: bool) {
        let (http, name, offset) = (Arc::clone(&self.http), Arc::clone(&self.name), self.offset);
        self.sending = Some(tokio::spawn(write(http, name, offset, bytes, end)));
    }

    /// Waits for the request that is under way.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        let sent = std::task::ready!(Pin::new(sending).poll(cx));
        self.sending = None;
        let taken = sent.map_err(std::io::Error::other)?;
        let taken = taken.map_err(std::io::Error::other)?;
        self.offset = self.offset.max(taken.offset);
        self.closed = taken.closed;
        Poll::Ready(Ok(()))
    }
}

/// Writes input until all of it is taken, or the program reads no more.
async fn write(
    http: Arc<Http>,
    name: Arc<str>,
    offset: u64,
    bytes: Bytes,
    end: bool,
) -> Result<wire::Taken> {
    let until = offset + bytes.len() as u64;
    let mut at = offset;
    loop {
        let skip = usize::try_from(at - offset).unwrap_or(usize::MAX);
        let rest = bytes.slice(skip.min(bytes.len())..);
        let path = ["v1", "processes", &*name, "stdin"];
        let mut call = Call::read(Operation::Spawn, Method::POST, &path)
            .query("offset", at)
            .body(Sent::Bytes(rest));
        if end {
            call = call.query("end", 1);
        }
        let taken: wire::Taken = http.call(call).await?;
        if taken.closed || (taken.offset >= until && !end) {
            return Ok(taken);
        }
        at = taken.offset.clamp(at, until);
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        std::task::ready!(self.poll_sent(cx))?;
        if self.closed || self.ended {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let part = buf.get(..buf.len().min(INPUT)).unwrap_or_default();
        self.send(Bytes::copy_from_slice(part), false);
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.poll_sent(cx))?;
        match self.closed && !self.ended {
            true => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.poll_sent(cx))?;
        if !self.ended {
            self.ended = true;
            if !self.closed {
                self.send(Bytes::new(), true);
                return self.poll_sent(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if self.ended || self.closed {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (http, name, offset) = (Arc::clone(&self.http), Arc::clone(&self.name), self.offset);
        let sending = self.sending.take();
        // Dropping is the program's end of file, behind what was written.
        runtime.spawn(async move {
            let offset = match sending {
                Some(sending) => match sending.await {
                    Ok(Ok(taken)) if !taken.closed => taken.offset.max(offset),
                    _ => return,
                },
                None => offset,
            };
            // A process that is gone needs no end of file.
            let _ = write(http, name, offset, Bytes::new(), true).await;
        });
    }
}
