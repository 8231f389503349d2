//! The log of requests, for people: a line each, with what came of it and how long it took.
//!
//! It must never have a token, a body or a query in it.

use std::path::PathBuf;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::options::Log;

/// Lines that wait for the disk; a request waits when there are more.
const WAITING: usize = 256;

/// Time that the end of an emulator waits for its log.
const WRITTEN: Duration = Duration::from_secs(10);

/// Channel to the log's writer; no log if `None`.
pub(super) type Lines = Option<mpsc::Sender<Entry>>;

/// Entry for the log's writer.
#[derive(Debug)]
pub(super) enum Entry {
    Line(String),
    /// Wants to know when all before it is written.
    Written(oneshot::Sender<()>),
}

/// Waits until what has been sent is written, or the writer has ended.
pub(super) async fn written(lines: &Lines) {
    let Some(lines) = lines else { return };
    let (sender, receiver) = oneshot::channel();
    let told = async {
        lines.send(Entry::Written(sender)).await.ok()?;
        receiver.await.ok()
    };
    // What can't be written by then is lost with its reader or its disk.
    let _ = tokio::time::timeout(WRITTEN, told).await;
}

/// Opens a log; must be called on a runtime.
pub(super) async fn open(log: &Log) -> Result<Lines> {
    Ok(match log {
        Log::Off => None,
        Log::Stderr => Some(write(tokio::io::stderr())),
        Log::File(path) => Some(write(file(path.clone()).await?)),
    })
}

async fn file(path: PathBuf) -> Result<tokio::fs::File> {
    let mut options = tokio::fs::OpenOptions::new();
    let opened = options.create(true).append(true).open(&path);
    opened.await.map_err(|e| {
        Error::new(ErrorKind::Unavailable, Operation::Connect)
            .with_message("the log can't be opened")
            .with_host_path(path)
            .with_source(e)
    })
}

fn write(mut to: impl AsyncWrite + Send + Unpin + 'static) -> mpsc::Sender<Entry> {
    let (sender, mut lines) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(entry) = lines.recv().await {
            match entry {
                Entry::Line(line) => {
                    // Nowhere is left to tell if the log can't be written.
                    let _ = to.write_all(line.as_bytes()).await;
                    let _ = to.flush().await;
                }
                // Who asked may have given up.
                Entry::Written(told) => drop(told.send(())),
            }
        }
    });
    sender
}
