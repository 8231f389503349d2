//! The streams of the model's programs.
//!
//! Invariant: a write to a pipe without a reader ends the writer by SIGPIPE, as on Linux.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use sandbox_core::GuestPath;

use super::pipe::{Reader, Writer};
use super::run::{Flow, Sh};
use crate::model::process::lock;

/// Input of a program.
#[derive(Clone)]
pub(super) enum In {
    Empty,
    Pipe(Reader),
    /// The rest of a file as it was when it was opened.
    File(Arc<Mutex<(Vec<u8>, usize)>>),
    Zero,
    /// A FIFO without a writer.
    Never,
}

/// Output of a program.
#[derive(Clone)]
pub(super) enum Out {
    Pipe(Writer),
    File(GuestPath),
    Null,
}

/// The three streams.
#[derive(Clone)]
pub(super) struct Io {
    pub(super) stdin: In,
    pub(super) stdout: Out,
    pub(super) stderr: Out,
}

impl In {
    /// Reads some bytes; none at the end.
    pub(super) async fn read(&mut self, buf: &mut [u8]) -> usize {
        match self {
            Self::Empty => 0,
            Self::Pipe(reader) => reader.read(buf).await.unwrap_or(0),
            Self::File(file) => {
                let mut file = lock(file);
                let (content, at) = &mut *file;
                let count = buf.len().min(content.len() - *at);
                buf[..count].copy_from_slice(&content[*at..*at + count]);
                *at += count;
                count
            }
            Self::Zero => {
                tokio::task::yield_now().await;
                buf.fill(0);
                buf.len()
            }
            Self::Never => std::future::pending().await,
        }
    }

    /// Reads to the end.
    pub(super) async fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buf = vec![0; 64 << 10];
        loop {
            match self.read(&mut buf).await {
                0 => return all,
                count => all.extend_from_slice(&buf[..count]),
            }
        }
    }

    /// Reads up to and without the next newline; `None` at the end.
    pub(super) async fn read_line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.read(&mut byte).await {
                0 if line.is_empty() => return None,
                0 => return Some(line),
                _ if byte[0] == b'\n' => return Some(line),
                _ => line.push(byte[0]),
            }
        }
    }
}

impl Sh {
    /// Writes to a stream.
    pub(super) async fn write(&self, out: &Out, bytes: &[u8]) -> Result<(), Flow> {
        match out {
            Out::Pipe(writer) => {
                let written = writer.clone().write_all(bytes).await;
                written.map_err(|_| Flow::Signal(13))
            }
            Out::File(path) => {
                // A file that was removed takes what is written with it.
                let _ = self.core.change(|tree| tree.append(path, bytes));
                Ok(())
            }
            Out::Null => Ok(()),
        }
    }

    pub(super) async fn out(&self, bytes: impl AsRef<[u8]>) -> Result<(), Flow> {
        self.write(&self.io.stdout, bytes.as_ref()).await
    }

    /// Writes a complaint of a program; the exit code that goes with it.
    pub(super) async fn complain(&self, text: impl AsRef<str>) -> Result<u8, Flow> {
        let text = format!("{}\n", text.as_ref());
        self.write(&self.io.stderr, text.as_bytes()).await?;
        Ok(1)
    }
}
