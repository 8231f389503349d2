//! Connections to ports and single files behind a server: streams that are followed as a process's
//! are.
//!
//! Invariant: the server keeps what is asked after; what is dropped here is let go of there. A
//! stream that broke is never taken for one that has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use sandbox_core::{
    FileReader, FileSink, FileWriter, GuestPath, OpenReadOptions, OpenWriteOptions, Operation,
    PortStream, Result,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::call::Call;
use super::process::{Input, Remote, watch_end};
use super::state::SandboxState;
use super::stream::Following;
use crate::wire;

/// Lease of a stream at its server.
#[derive(Debug)]
struct Kept {
    watching: AbortHandle,
    remote: Remote,
    sandbox: Arc<SandboxState>,
}

impl Kept {
    fn new(sandbox: &Arc<SandboxState>, remote: Remote) -> Self {
        let ended = watch::Sender::new(None);
        let name = Arc::clone(&remote.name);
        let watching = tokio::spawn(watch_end(Arc::clone(sandbox), name, ended));
        Self {
            watching: watching.abort_handle(),
            remote,
            sandbox: Arc::clone(sandbox),
        }
    }

    fn output(&self) -> Following {
        Following::whole(&self.sandbox.http, &self.remote.name)
    }

    fn input(&self) -> Input {
        Input::new(&self.sandbox.http, &self.remote.name)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

pub(super) async fn connect_port(sandbox: &Arc<SandboxState>, port: u16) -> Result<PortStream> {
    let path = sandbox.path("connect-port");
    let call = Call::named(Operation::ConnectPort, &path);
    let remote = Remote::of(&sandbox.http, &call);
    let wire::Nothing {} = sandbox.call(call, &wire::Port { port }).await?;
    let kept = Kept::new(sandbox, remote);
    Ok(PortStream::new(Connection {
        output: kept.output(),
        input: kept.input(),
        _kept: kept,
    }))
}

/// Both directions; input first, so that its end goes before the connection.
struct Connection {
    input: Input,
    output: Following,
    _kept: Kept,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

pub(super) async fn open_read(
    sandbox: &Arc<SandboxState>,
    path: &GuestPath,
    options: OpenReadOptions,
) -> Result<FileReader> {
    let route = sandbox.path("open-read");
    let call = Call::named(Operation::OpenRead, &route);
    let remote = Remote::of(&sandbox.http, &call);
    let body = wire::OpenRead {
        path: path.clone(),
        options,
    };
    let opened: wire::Opened = sandbox.call(call, &body).await?;
    let kept = Kept::new(sandbox, remote);
    let output = kept.output();
    let reader = FileReader::new(
        Reading {
            output,
            _kept: kept,
        },
        opened.size,
    );
    Ok(match opened.modified.and_then(wire::Time::system) {
        Some(modified) => reader.modified(modified),
        None => reader,
    })
}

struct Reading {
    output: Following,
    _kept: Kept,
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

pub(super) async fn open_write(
    sandbox: &Arc<SandboxState>,
    path: &GuestPath,
    options: OpenWriteOptions,
) -> Result<FileWriter> {
    let route = sandbox.path("open-write");
    let call = Call::named(Operation::OpenWrite, &route);
    let remote = Remote::of(&sandbox.http, &call);
    let body = wire::OpenWrite {
        path: path.clone(),
        options,
    };
    let wire::Nothing {} = sandbox.call(call, &body).await?;
    let kept = Kept::new(sandbox, remote);
    Ok(FileWriter::new(Writing {
        input: kept.input(),
        kept,
        path: path.clone(),
        size: 0,
    }))
}

struct Writing {
    input: Input,
    kept: Kept,
    path: GuestPath,
    size: u64,
}

impl AsyncWrite for Writing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.input).poll_write(cx, buf))?;
        self.size += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // The commit is another call.
        self.poll_flush(cx)
    }
}

#[async_trait]
impl FileSink for Writing {
    async fn commit(mut self: Pin<Box<Self>>) -> Result<()> {
        // What it said of an error the commit says better: by the size, or by what the disk said.
        let _ = self.input.flush().await;
        let name = Arc::clone(&self.kept.remote.name);
        let path = ["v1", "processes", &*name, "commit"];
        let call = Call::named(Operation::OpenWrite, &path);
        let sandbox = Arc::clone(&self.kept.sandbox);
        let done: Result<wire::Nothing> =
            sandbox.call(call, &wire::Commit { size: self.size }).await;
        done.map(drop)
            .map_err(|error| sandbox.named_at(&self.path, error))
    }
}
