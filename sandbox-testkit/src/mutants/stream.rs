//! A writer that keeps what it should throw away.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use sandbox_core::{Error, ErrorKind, FileSink, FileWriter, Operation, Result};
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
