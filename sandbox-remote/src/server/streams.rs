//! Connections to ports and single files: streams that are followed as a process's are.
//!
//! A file that is written is put in place by its commit and by nothing else: what its client lets go
//! of, or leaves, is gone. Must never tell the failure of a stream as its end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use sandbox_core::{
    Error, ErrorKind, Exit, FileWriter, Operation, Process, ProcessControl, ProcessStdin,
    ProcessStdout, Result, Sandbox, Signal,
};
use tokio::io::AsyncWrite;

use super::asked::Asked;
use super::body::Buffered;
use super::pipe::Failed;
use super::reply::{Reply, refused};
use super::routes::Action;
use crate::wire::{self, Problem};

/// Form in which the failure of such a stream is told.
pub(super) const FAILED: Failed = |error| {
    let problem = Problem::new(Error::from_io(error, Operation::OpenRead));
    serde_json::to_vec(&problem).unwrap_or_default().into()
};

/// A stream that is asked for.
pub(super) enum Opening {
    Port(wire::Port),
    Read(wire::OpenRead),
    Write(wire::OpenWrite),
}

/// Reads which stream a request asks for.
pub(super) fn opening(asked: &Asked, body: &Buffered) -> Result<Opening> {
    Ok(match asked.action {
        Action::ConnectPort => Opening::Port(asked.parse(body)?),
        Action::OpenRead => Opening::Read(asked.parse(body)?),
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
