//! One file of the model as a stream.
//!
//! A writer must change nothing before its commit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    FileReader, FileSink, GuestPath, OpenReadOptions, OpenWriteOptions, Operation, Result,
    WriteMode,
};
use tokio::io::AsyncWrite;

use super::core::Core;

/// The part of a content that was asked for.
pub(super) fn reader(content: Bytes, options: &OpenReadOptions) -> FileReader {
    let len = content.len();
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(len);
    let end = options
        .length
        .map_or(u64::MAX, |length| options.offset.saturating_add(length));
    let part = content.slice(at(options.offset)..at(end));
    FileReader::new(std::io::Cursor::new(part), len as u64)
}

/// Sink of a stream, with what was written so far.
pub(super) struct Sink {
    core: Arc<Core>,
    given: GuestPath,
    path: GuestPath,
    options: OpenWriteOptions,
    content: Vec<u8>,
}

impl Sink {
    pub(super) fn new(
        core: Arc<Core>,
        given: GuestPath,
        path: GuestPath,
        options: OpenWriteOptions,
    ) -> Self {
        Self {
            core,
            given,
            path,
            options,
            content: Vec::new(),
        }
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.content.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl FileSink for Sink {
    async fn commit(self: Pin<Box<Self>>) -> Result<()> {
        const OP: Operation = Operation::OpenWrite;
        self.core.check(OP)?;
        let new = self.options.write_mode == WriteMode::CreateNew;
        self.core
            .change(|tree| tree.write(&self.path, &self.content, self.options.mode, new))
            .map_err(|kind| self.core.error(kind, OP, &self.given))
    }
}
