//! One file as a stream: read in parts from a second name of it, written in parts that are put together
//! at the commit.
//!
//! Memory must never grow with the file, and nothing may stay of what is not committed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use sandbox_core::{
    Error, ErrorKind, FileBatch, FileReader, FileSink, FileWriter, GuestPath, Mode,
    OpenReadOptions, OpenWriteOptions, Operation, Result,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::guest::batch::{ByDirectory, script};
use crate::guest::files::moment;
use crate::guest::handle::{Guest, KeepAlive, fresh};
use crate::guest::script::{garbled, said};
use crate::guest::transport::Transport;

/// Bytes that go with one request.
const STEP: usize = 4 << 20;
/// Bytes that wait to be sent beside those.
const BUFFER: usize = 256 << 10;
/// Time that putting a file in place may take.
const PLACING: Duration = Duration::from_secs(300);

/// Directory in the guest that has what is on its way; it goes with the next request.
struct Staged<T: Transport> {
    guest: Arc<Guest<T>>,
    dir: String,
}

impl<T: Transport> Staged<T> {
    fn new(guest: &Arc<Guest<T>>) -> (Self, String) {
        let (dir, nonce) = fresh(T::STAGING);
        let guest = Arc::clone(guest);
        (Self { guest, dir }, nonce)
    }

    /// Bytes of the file that is held here.
    async fn part(&self, at: u64, length: u64) -> Result<Bytes> {
        const OP: Operation = Operation::OpenRead;
        let (dir, _) = fresh(T::STAGING);
        let first = at + 1;
        let part = format!("part {}/file {first} {length}\n", self.dir);
        let script = self.guest.files_script(&dir).text(&part);
        let said = self.guest.helper(OP, script, &dir, &[]).await?;
        self.guest.emitted(OP, &said, &dir, length).await
    }
}

impl<T: Transport> Drop for Staged<T> {
    fn drop(&mut self) {
        let dir = std::mem::take(&mut self.dir);
        self.guest.state().stale_dirs.push(dir);
    }
}

impl<T: Transport> Guest<T> {
    pub(crate) async fn open_read(
        self: Arc<Self>,
        path: &GuestPath,
        options: OpenReadOptions,
    ) -> Result<FileReader> {
        const OP: Operation = Operation::OpenRead;
        self.open(OP)?;
        let at = self.resolve(path, OP)?;
        let (staged, _) = Staged::new(&self);
        let script = self.files_script(&staged.dir).text("hold");
        let script = script.word(at.as_bytes()).text("\n");
        let text = self.helper(OP, script, &staged.dir, &[&at]).await?;
        let words = said(&text, OP).map_err(|error| self.named(error))?.words;
        let known = match words[..] {
            ["OK", size, time] => size.parse::<u64>().ok().map(|size| (size, moment(time))),
            _ => None,
        };
        let (size, modified) = known.ok_or_else(|| self.named(garbled(OP)))?;
        let end = options.length.map_or(size, |length| {
            options.offset.saturating_add(length).min(size)
        });
        let (sender, parts) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut at = options.offset;
            while at < end {
                let part = staged.part(at, (end - at).min(STEP as u64)).await;
                let read = part.as_ref().map_or(0, Bytes::len);
                // An error is told last; of a file that has become shorter nothing more comes.
                if sender.send(part).await.is_err() || read == 0 {
                    return;
                }
                at += read as u64;
            }
        });
        let reader = FileReader::new(
            Reading {
                parts,
                ready: Bytes::new(),
                left: end.saturating_sub(options.offset),
                _task: KeepAlive::new(task.abort_handle()),
            },
            size,
        );
        Ok(match modified {
            Some(modified) => reader.modified(modified),
            None => reader,
        })
    }

    pub(crate) async fn open_write(
        self: Arc<Self>,
        path: &GuestPath,
        options: OpenWriteOptions,
    ) -> Result<FileWriter> {
        const OP: Operation = Operation::OpenWrite;
        self.open(OP)?;
        let mut file = FileBatch::new();
        let one = file.push(path.clone(), Bytes::new());
        one.mode = options.mode;
        one.write_mode = options.write_mode;
        let at = {
            let found = file.resolve(&self.workdir());
            let found = found.map_err(|error| self.named(error.with_operation(OP)))?;
            let at = found.into_iter().next().map(|(at, _)| at);
            at.ok_or_else(|| self.named(garbled(OP)))?
        };
        self.resolve(&at, OP)?;
        let (staged, nonce) = Staged::new(&self);
        let (input, mut given) = tokio::io::duplex(BUFFER);
        let task = tokio::spawn(async move {
            let guest = Arc::clone(&staged.guest);
            let mut parts = Vec::new();
            loop {
                let mut part = Vec::new();
                let read = (&mut given).take(STEP as u64).read_to_end(&mut part).await;
                read.map_err(|e| guest.named(Error::from_io(e, OP)))?;
                if part.is_empty() {
                    return Ok((staged, parts));
                }
                guest.open(OP)?;
                let number = parts.len();
                let name = guest.upload_part(OP, &staged.dir, number, part.into());
                parts.push(name.await?);
            }
        });
        Ok(FileWriter::new(Writing {
            guest: self,
            at,
            file,
            nonce,
            input,
            task: Uploading(task),
        }))
    }

    /// Puts the parts of a file together, and the file in place.
    async fn put_together(
        &self,
        staged: &Staged<T>,
        parts: &[String],
        writing: (&GuestPath, &FileBatch, &str),
    ) -> Result<()> {
        const OP: Operation = Operation::OpenWrite;
        let (at, file, nonce) = writing;
        let dir = &staged.dir;
        let Some(one) = file.files().first() else {
            return Err(self.named(garbled(OP)));
        };
        let name = at.file_name().unwrap_or_default();
        let parent = at.parent().unwrap_or_else(GuestPath::root);
        let by_directory = ByDirectory::from([(parent, vec![(1, name, one)])]);
        let mut whole = self.cleared().text(&format!(
            "mkdir -p {dir}/1/new && : > {dir}/go\nwhole={dir}/1/new/"
        ));
        whole.quoted(name);
        let whole = whole.text(&format!(
            "\n: > \"$whole\"\nfor part in {}; do cat \"$part\" >> \"$whole\" && rm -f \"$part\" || \
             {{ rm -rf {dir}; echo 'E NOSPACE'; exit 0; }}; done\nchmod {:o} \"$whole\"\n",
            parts.join(" "),
            one.mode.unwrap_or(Mode::FILE).bits(),
        ));
        let rest = script(dir, nonce, &by_directory);
        let whole = whole.bytes(&rest.0);
        let said = self.run(OP, &whole, dir, false, PLACING).await;
        let said = said.map_err(|failure| self.failed(failure))?;
        self.verdict(OP, &said, &[at])
    }
}

/// Parts of a file as a stream.
struct Reading {
    parts: mpsc::Receiver<Result<Bytes>>,
    ready: Bytes,
    /// Number of bytes that have not come. None come any more where the file has become shorter.
    left: u64,
    /// Task that asks for the parts; it ends with this.
    _task: KeepAlive,
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ready.is_empty() && buffer.remaining() > 0 {
            match ready!(self.parts.poll_recv(context)) {
                Some(Ok(part)) => {
                    self.left = match part.len() as u64 {
                        0 => 0,
                        came => self.left.saturating_sub(came),
                    };
                    self.ready = part;
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None if self.left == 0 => return Poll::Ready(Ok(())),
                // Not the end of the file.
                None => {
                    let error = Error::new(ErrorKind::Lost, Operation::OpenRead)
                        .with_message("the tokio runtime that reads the file has ended");
                    return Poll::Ready(Err(io::Error::other(error)));
                }
            }
        }
        let length = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready[..length]);
        self.ready.advance(length);
        Poll::Ready(Ok(()))
    }
}

type Uploaded<T> = Result<(Staged<T>, Vec<String>)>;

/// Task that sends the parts; it ends with this.
struct Uploading<T: Transport>(JoinHandle<Uploaded<T>>);

impl<T: Transport> Drop for Uploading<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writer of a file, whose parts go as they are written.
struct Writing<T: Transport> {
    guest: Arc<Guest<T>>,
    at: GuestPath,
    /// The file without its content.
    file: FileBatch,
    nonce: String,
    input: DuplexStream,
    task: Uploading<T>,
}

impl<T: Transport> AsyncWrite for Writing<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The commit is another call.
        self.poll_flush(context)
    }
}

#[async_trait]
impl<T: Transport> FileSink for Writing<T> {
    async fn commit(self: Pin<Box<Self>>) -> Result<()> {
        const OP: Operation = Operation::OpenWrite;
        let Self {
            guest,
            at,
            file,
            nonce,
            input,
            mut task,
        } = *Pin::into_inner(self);
        // The end of what is written.
        drop(input);
        let sent = (&mut task.0).await.map_err(|error| {
            let error = Error::new(ErrorKind::Other, OP).with_source(error);
            guest.named(error.with_message("the task that sends the file ended early"))
        });
        let (staged, parts) = sent??;
        guest.open(OP)?;
        // On a task of its own: once the guest puts the file in place it finishes, and a fork waits.
        let placing = tokio::spawn(async move {
            let _files = guest.files.read().await;
            let writing = (&at, &file, &*nonce);
            guest.put_together(&staged, &parts, writing).await
        });
        placing.await.map_err(|error| {
            let error = Error::new(ErrorKind::Other, OP).with_source(error);
            error.with_message("the task that puts the file in place ended early")
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a file of this length that are read when these parts come and the task then ends.
    async fn read(left: u64, come: &[&'static [u8]]) -> io::Result<Vec<u8>> {
        let (sender, parts) = mpsc::channel(come.len());
        for part in come {
            sender.send(Ok(Bytes::from_static(part))).await.unwrap();
        }
        drop(sender);
        let mut reading = Reading {
            parts,
            ready: Bytes::new(),
            left,
            _task: KeepAlive::new(tokio::spawn(async {}).abort_handle()),
        };
        let mut read = Vec::new();
        reading.read_to_end(&mut read).await.map(|_| read)
    }

    #[tokio::test]
    async fn a_task_that_ends_early_is_an_error_and_a_file_that_became_shorter_is_not() {
        let error = read(10, &[b"abc"]).await.unwrap_err();
        let error = error.downcast::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        assert_eq!(read(3, &[b"abc"]).await.unwrap(), b"abc");
        assert_eq!(read(10, &[b"abc", b""]).await.unwrap(), b"abc");
    }
}
