//! Writers that keep what they should throw away, or show what they should keep to themselves.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use sandbox_core::{Error, ErrorKind, FileSink, FileWriter, GuestPath, Operation, Result};
use tokio::io::AsyncWrite;

/// Commits when it is dropped.
pub(super) struct Keeping(pub(super) Option<FileWriter>);

impl Keeping {
    fn writer(&mut self) -> std::io::Result<Pin<&mut FileWriter>> {
        match &mut self.0 {
            Some(writer) => Ok(Pin::new(writer)),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            let mut commit = Box::pin(writer.commit());
            // At once where it can be, so that it does not depend on what runs when.
            let mut context = Context::from_waker(std::task::Waker::noop());
            if commit.as_mut().poll(&mut context).is_pending() {
                tokio::spawn(commit);
            }
        }
    }
}

impl AsyncWrite for Keeping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writer()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.writer()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.writer()?.poll_shutdown(cx)
    }
}

#[async_trait]
impl FileSink for Keeping {
    async fn commit(mut self: Pin<Box<Self>>) -> Result<()> {
        match self.0.take() {
            Some(writer) => writer.commit().await,
            None => Err(Error::new(ErrorKind::Other, Operation::OpenWrite)),
        }
    }
}

/// The parts that writers have written so far, by path.
#[derive(Clone, Default)]
pub(super) struct Parts(Arc<Mutex<BTreeMap<GuestPath, Vec<u8>>>>);

impl Parts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GuestPath, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> BTreeMap<GuestPath, Vec<u8>> {
        self.lock().clone()
    }

    pub(super) fn of(&self, path: GuestPath, writer: FileWriter) -> Showing {
        self.lock().insert(path.clone(), Vec::new());
        Showing {
            writer,
            path,
            parts: self.clone(),
        }
    }
}

/// Shows what it has written before its commit.
pub(super) struct Showing {
    writer: FileWriter,
    path: GuestPath,
    parts: Parts,
}

impl AsyncWrite for Showing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.writer).poll_write(cx, bytes))?;
        let Self { path, parts, .. } = &*self;
        let new = bytes.get(..written).unwrap_or_default();
        let mut all = parts.lock();
        all.entry(path.clone()).or_default().extend_from_slice(new);
        drop(all);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

#[async_trait]
impl FileSink for Showing {
    async fn commit(self: Pin<Box<Self>>) -> Result<()> {
        let Self {
            writer,
            path,
            parts,
        } = *Pin::into_inner(self);
        parts.lock().remove(&path);
        writer.commit().await
    }
}
