//! Connections to ports, single files and watches: streams that are followed as a process's are.
//!
//! A file that is written is put in place by its commit and by nothing else: what its client lets go
//! of, or leaves, is gone. Must never tell the failure of a stream as its end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use sandbox_core::{
    Error, ErrorKind, Exit, FileEvent, FileWatch, FileWriter, Operation, Process, ProcessControl,
    ProcessStdin, ProcessStdout, Result, Sandbox, Signal,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::asked::Asked;
use super::body::Buffered;
use super::pipe::Failed;
use super::reply::{Reply, refused};
use super::routes::Action;
use crate::wire::{self, Problem};

/// Form in which the failure of such a stream is told.
pub(super) const FAILED: Failed = |error| {
    let error = error.downcast::<Error>();
    let error = error.unwrap_or_else(|error| Error::from_io(error, Operation::OpenRead));
    let problem = Problem::new(error);
    serde_json::to_vec(&problem).unwrap_or_default().into()
};

/// Most events that a watch may hold here until they are sent.
const EVENTS: usize = 1 << 16;

/// Number of bytes of events at which a part of them is sent.
const PART: usize = 16 << 10;

/// A stream that is asked for.
pub(super) enum Opening {
    Port(wire::Port),
    Read(wire::OpenRead),
    Write(wire::OpenWrite),
    Watch(wire::Watch),
}

/// Reads which stream a request asks for.
pub(super) fn opening(asked: &Asked, body: &Buffered) -> Result<Opening> {
    Ok(match asked.action {
        Action::ConnectPort => Opening::Port(asked.parse(body)?),
        Action::OpenRead => Opening::Read(asked.parse(body)?),
        Action::Watch => {
            let watch: wire::Watch = asked.parse(body)?;
            if watch.options.events > EVENTS {
                let why = format!("a watch holds at most {EVENTS} events here");
                return Err(refused(ErrorKind::LimitExceeded, asked.operation, why));
            }
            Opening::Watch(watch)
        }
        _ => Opening::Write(asked.parse(body)?),
    })
}

impl Opening {
    /// Opens it, and gives it as a process.
    pub(super) async fn open(
        self,
        sandbox: &dyn Sandbox,
        operation: Operation,
    ) -> Result<(Reply, Process, Option<NewFile>)> {
        let nothing = || Reply::json(&wire::Nothing {}, operation);
        Ok(match self {
            Self::Port(wire::Port { port }) => {
                let (read, write) = tokio::io::split(sandbox.connect_port(port).await?);
                let (stdin, stdout) = (ProcessStdin::new(write), ProcessStdout::new(read));
                let process = Process::new(Stays, Some(stdin), Some(stdout), None);
                (nothing()?, process, None)
            }
            Self::Read(wire::OpenRead { path, options }) => {
                let reader = sandbox.open_read(&path, options).await?;
                let opened = wire::Opened {
                    size: reader.size,
                    modified: reader.modified.map(wire::Time::from),
                };
                let stdout = ProcessStdout::new(reader);
                let process = Process::new(Stays, None, Some(stdout), None);
                (Reply::json(&opened, operation)?, process, None)
            }
            Self::Write(wire::OpenWrite { path, options }) => {
                let writer = sandbox.open_write(&path, options).await?;
                let file = NewFile(Arc::new(Mutex::new(Written::So(writer))));
                let stdin = ProcessStdin::new(file.clone());
                let process = Process::new(Stays, Some(stdin), None, None);
                (nothing()?, process, Some(file))
            }
            Self::Watch(wire::Watch { path, options }) => {
                let watch = sandbox.watch(&path, options).await?;
                let stdout = ProcessStdout::new(Events::new(watch));
                let process = Process::new(Stays, None, Some(stdout), None);
                (nothing()?, process, None)
            }
        })
    }
}

/// A stream without an end of its own: it is there until it is let go of.
#[derive(Debug)]
struct Stays;

#[async_trait]
impl ProcessControl for Stays {
    async fn wait(&self) -> Result<Exit> {
        std::future::pending().await
    }

    async fn signal(&self, _: Signal) -> Result<()> {
        let why = "this is a stream, not a program";
        Err(refused(ErrorKind::InvalidInput, Operation::Signal, why))
    }

    async fn kill(&self) -> Result<()> {
        Ok(())
    }
}

/// Events of a watch as lines, up to the error that ends it.
struct Events {
    lines: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send + Sync>>,
    rest: Bytes,
}

impl Events {
    fn new(watch: FileWatch) -> Self {
        let taken = Vec::new().into_iter();
        let lines = futures_util::stream::try_unfold(Some((watch, taken)), |at| async {
            let Some((mut watch, mut taken)) = at else {
                return Ok(None);
            };
            if taken.len() == 0 {
                taken = watch.next().await?.into_iter();
            }
            let part = lines(&mut taken)?;
            Ok(Some((part, Some((watch, taken)))))
        });
        Self {
            lines: Box::pin(lines),
            rest: Bytes::new(),
        }
    }
}

/// A part of the events that were taken together, with the empty line if it is the last.
fn lines(events: &mut std::vec::IntoIter<FileEvent>) -> Result<Bytes> {
    let mut part = Vec::new();
    for event in events.by_ref() {
        let written = serde_json::to_writer(&mut part, &event);
        written.map_err(|error| Error::from_io(error.into(), Operation::Watch))?;
        part.push(b'\n');
        if part.len() >= PART {
            break;
        }
    }
    if events.len() == 0 {
        part.push(b'\n');
    }
    Ok(part.into())
}

impl AsyncRead for Events {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.lines.as_mut().poll_next(cx)) {
                Some(part) => self.rest = part.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// A file that is written, until its commit takes it.
#[derive(Clone)]
pub(super) struct NewFile(Arc<Mutex<Written>>);

enum Written {
    So(FileWriter),
    /// Nothing is left of it.
    Failed(Option<io::Error>),
    Committed,
}

impl NewFile {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts it in place, if all of it was taken.
    pub(super) async fn commit(&self, size: u64, taken: u64) -> Result<()> {
        const OP: Operation = Operation::OpenWrite;
        let written = std::mem::replace(&mut *self.written(), Written::Committed);
        match written {
            Written::So(_) if size != taken => {
                let why =
                    format!("{taken} bytes of {size} were taken: the file is not put in place");
                Err(refused(ErrorKind::Lost, OP, why))
            }
            Written::So(writer) => writer.commit().await,
            Written::Failed(Some(error)) => Err(Error::from_io(error, OP)),
            Written::Failed(None) | Written::Committed => {
                let why = "the file was committed before, or could not be written";
                Err(refused(ErrorKind::InvalidInput, OP, why))
            }
        }
    }

    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut FileWriter>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut written = self.written();
        let Written::So(writer) = &mut *written else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match poll(Pin::new(writer)) {
            Poll::Ready(Err(error)) => {
                // Kept for the commit, which says it to the client.
                let kind = error.kind();
                *written = Written::Failed(Some(error));
                Poll::Ready(Err(kind.into()))
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for NewFile {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|writer| writer.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|writer| writer.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The commit is another call.
        self.poll_flush(cx)
    }
}
