//! One file as a stream: a part of it read, or a whole one written and committed.
//!
//! A stream must never hold more of a file than a buffer, and a writer must leave nothing unless it
//! is committed.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Mode, Result, WriteMode};

/// Options of [`open_read`](crate::Sandbox::open_read): which part of the file.
///
/// ```
/// use sandbox_core::OpenReadOptions;
/// let second_mebibyte = OpenReadOptions::new().offset(1 << 20).length(1 << 20);
/// # assert_eq!(second_mebibyte.offset, 1 << 20);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct OpenReadOptions {
    /// Start of the reading, in bytes. At or beyond the end of the file there is nothing to read.
    pub offset: u64,
    /// Greatest number of bytes to read. `None`: up to the end of the file.
    pub length: Option<u64>,
}

impl OpenReadOptions {
    /// The whole file.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Starts at this byte.
        offset: u64,

        /// Reads at most this many bytes.
        length: Some(u64),
    }
}

/// Options of [`open_write`](crate::Sandbox::open_write).
///
/// ```
/// use sandbox_core::{Mode, OpenWriteOptions, WriteMode};
/// let options = OpenWriteOptions::new().mode(Mode::EXECUTABLE).write_mode(WriteMode::CreateNew);
/// # assert_eq!(options.mode, Some(Mode::EXECUTABLE));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct OpenWriteOptions {
    /// Permission bits. `None`: those of the file that is replaced, or `0o644`.
    pub mode: Option<Mode>,
    /// Treatment of a file that is already there; whether there is one is asked at the commit.
    pub write_mode: WriteMode,
}

impl OpenWriteOptions {
    /// The defaults: replaces a file and keeps its permission bits.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets the permission bits.
        mode: Some(Mode),

        /// Sets what to do where a file is already.
        write_mode: WriteMode,
    }
}

/// A part of a file as a stream: an [`AsyncRead`], from
/// [`open_read`](crate::Sandbox::open_read).
///
/// It is of the file that was opened: a file that takes its place later is not seen. A program may
/// write to the file meanwhile; what is read then is not of one moment.
pub struct FileReader {
    /// The size of the whole file when it was opened.
    pub size: u64,
    /// Time of the file's last change, where the backend knows.
    pub modified: Option<SystemTime>,
    stream: Pin<Box<dyn AsyncRead + Send + Sync>>,
    /// Dropped last.
    pub(crate) alive: Vec<Arc<dyn Any + Send + Sync>>,
}

impl FileReader {
    /// Wraps a backend's stream of a file of this size.
    pub fn new(stream: impl AsyncRead + Send + Sync + 'static, size: u64) -> Self {
        Self {
            size,
            modified: None,
            stream: Box::pin(stream),
            alive: Vec::new(),
        }
    }

    crate::setters! {
        /// Sets when the file was last changed.
        modified: Some(SystemTime),
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileReader({} bytes)", self.size)
    }
}

/// Destination of the bytes of a [`FileWriter`], provided by a backend.
///
/// # Contract
/// Dropping it without a commit leaves nothing, and does not block.
#[async_trait]
pub trait FileSink: AsyncWrite + Send + Sync + 'static {
    /// Writes what is buffered and puts the file in place.
    ///
    /// # Errors
    /// Those of [`FileWriter::commit`]; nothing is left then.
    async fn commit(self: Pin<Box<Self>>) -> Result<()>;
}

/// A new file as a stream: an [`AsyncWrite`], from [`open_write`](crate::Sandbox::open_write).
///
/// Nothing is seen under the file's name before [`commit`](FileWriter::commit), and dropping it
/// without leaves nothing. Shutting it down does not commit it.
pub struct FileWriter {
    sink: Pin<Box<dyn FileSink>>,
    /// Dropped last.
    pub(crate) alive: Vec<Arc<dyn Any + Send + Sync>>,
}

impl FileWriter {
    /// Wraps a backend's sink.
    pub fn new(sink: impl FileSink) -> Self {
        Self {
            sink: Box::pin(sink),
            alive: Vec::new(),
        }
    }

    /// Puts the file in place, whole.
    ///
    /// Dropping the future leaves the whole file or nothing.
    ///
    /// ```no_run
    /// # use sandbox_core::{OpenWriteOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::AsyncWriteExt as _;
    /// let mut file = sandbox.open_write(&"log.txt".into(), OpenWriteOptions::new()).await?;
    /// file.write_all(b"one\n").await?;
    /// file.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`AlreadyExists`](crate::ErrorKind::AlreadyExists),
    /// [`IsADirectory`](crate::ErrorKind::IsADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`StorageFull`](crate::ErrorKind::StorageFull). Nothing is left then.
    pub async fn commit(self) -> Result<()> {
        let Self { sink, alive } = self;
        let committed = sink.commit().await;
        drop(alive);
        committed
    }
}

impl AsyncWrite for FileWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.sink.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.sink.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.sink.as_mut().poll_shutdown(cx)
    }
}

impl fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileWriter")
    }
}
