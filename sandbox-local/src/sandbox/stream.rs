//! Files as streams, on top of a run.
//!
//! A writer holds the run: a fork must not freeze a layer that has a part of a file.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use rustix::pipe::PipeFlags;
use sandbox_core::{
    Error, ErrorKind, FileReader, FileSink, FileWriter, GuestPath, OpenReadOptions,
    OpenWriteOptions, Operation, Result, SandboxId,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio::sync::oneshot;

use super::LocalSandbox;
use super::ended::Ended;
use crate::engine::StdinWriter;
use crate::file_operations::FileOperations as _;
use crate::files::Incoming;

/// Most bytes that the pipe to the writing thread holds.
const PIPE: usize = 1 << 20;

impl LocalSandbox {
    pub(super) async fn reader(
        &self,
        path: &GuestPath,
        options: OpenReadOptions,
    ) -> Result<FileReader> {
        const OP: Operation = Operation::OpenRead;
        let path = self.resolve(path, OP)?;
        let (offset, length) = (options.offset, options.length.unwrap_or(u64::MAX));
        let opened = self.on_files(OP, move |root| root.open_read(&path, &options));
        let (file, size, modified) = opened.await?;
        let reader = Reader {
            // What a file grows by is not of the part that was asked for.
            file: tokio::fs::File::from_std(file).take(if offset < size { length } else { 0 }),
            ended: self.ended.clone(),
            _in_use: self.facts.usage.now.clone(),
        };
        let reader = FileReader::new(reader, size);
        Ok(match modified {
            Some(modified) => reader.modified(modified),
            None => reader,
        })
    }

    pub(super) async fn writer(
        &self,
        path: &GuestPath,
        options: OpenWriteOptions,
    ) -> Result<FileWriter> {
        const OP: Operation = Operation::OpenWrite;
        let path = self.resolve(path, OP)?;
        let other = |error: io::Error| {
            self.named(Error::from_io(error, OP))
                .with_message("the stream could not be set up")
        };
        let (read, write) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| other(errno.into()))?;
        // Only faster: an ordinary user may have no more of the larger ones.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE);
        rustix::io::ioctl_fionbio(&write, true).map_err(|errno| other(errno.into()))?;
        let running = self.running(OP).await?;
        let commit = Arc::new(AtomicBool::new(false));
        let source = Source {
            pipe: read,
            commit: commit.clone(),
            ended: self.ended.clone(),
            sandbox: self.id.clone(),
            _in_use: self.facts.usage.now.clone(),
        };
        let (is_open, opened) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        let sandbox = self.id.clone();
        // A thread of its own: it waits for the caller for as long as the writer lives.
        std::thread::Builder::new()
            .name("sandbox-write".into())
            .spawn(move || {
                let say = || {
                    // The caller may have lost interest.
                    let _ = is_open.send(());
                };
                let written = running.root.open_write(&path, &options, say, &source);
                drop(running);
                let _ = done.send(written.map_err(|error| error.with_sandbox(sandbox)));
            })
            .map_err(other)?;
        let mut sink = Sink {
            pipe: Some(StdinWriter::new(write).map_err(other)?),
            outcome,
            failed: None,
            commit,
            sandbox: self.id.clone(),
        };
        match opened.await {
            Ok(()) => Ok(FileWriter::new(sink)),
            Err(_) => {
                // What is closed ends the thread, wherever it is.
                sink.pipe = None;
                match sink.finished().await {
                    Err(error) => Err(error),
                    Ok(()) => Err(sink.ended()),
                }
            }
        }
    }
}

struct Reader {
    file: Take<tokio::fs::File>,
    ended: Arc<Ended>,
    _in_use: Arc<()>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.is_ended() {
            return Poll::Ready(Err(io::Error::other("the sandbox is closed")));
        }
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

/// The writing thread's side.
struct Source {
    pipe: OwnedFd,
    commit: Arc<AtomicBool>,
    ended: Arc<Ended>,
    sandbox: SandboxId,
    _in_use: Arc<()>,
}

impl Incoming for Source {
    fn pipe(&self) -> &OwnedFd {
        &self.pipe
    }

    fn is_committed(&self) -> bool {
        self.commit.load(Ordering::Acquire)
    }

    fn check_open(&self) -> Result<()> {
        match self.ended.is_ended() {
            true => Err(self.ended.error(Operation::OpenWrite, &self.sandbox)),
            false => Ok(()),
        }
    }
}

/// The caller's side.
struct Sink {
    pipe: Option<StdinWriter>,
    outcome: oneshot::Receiver<Result<()>>,
    failed: Option<Error>,
    /// Set before the pipe is closed.
    commit: Arc<AtomicBool>,
    sandbox: SandboxId,
}

impl Sink {
    /// The error of a thread that ended without a word.
    fn ended(&self) -> Error {
        Error::new(ErrorKind::Other, Operation::OpenWrite)
            .with_message("the writing thread ended early")
            .with_sandbox(self.sandbox.clone())
    }

    async fn finished(&mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.ended()),
        }
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(pipe) = &mut this.pipe {
            match std::task::ready!(Pin::new(pipe).poll_write(cx, bytes)) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => this.pipe = None,
                written => return Poll::Ready(written),
            }
        }
        // The thread has given up: it says why.
        if this.failed.is_none() {
            let said = std::task::ready!(Pin::new(&mut this.outcome).poll(cx));
            let error = match said {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => this.ended(),
            };
            this.failed = Some(error);
        }
        let error = this.failed.clone().unwrap_or_else(|| this.ended());
        Poll::Ready(Err(io::Error::other(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl FileSink for Sink {
    async fn commit(mut self: Pin<Box<Self>>) -> Result<()> {
        if self.failed.is_none() {
            self.commit.store(true, Ordering::Release);
        }
        self.pipe = None;
        self.finished().await
    }
}
