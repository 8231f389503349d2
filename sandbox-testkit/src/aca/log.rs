//! The log of requests, for people: a line each, with what came of it and how long it took.
//!
//! It must never have a token, a body or a query in it.

use std::path::PathBuf;

use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::options::Log;

/// Lines that wait for the disk; a request waits when there are more.
const WAITING: usize = 256;

/// Where lines go; nowhere if `None`.
pub(super) type Lines = Option<mpsc::Sender<String>>;

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

fn write(mut to: impl AsyncWrite + Send + Unpin + 'static) -> mpsc::Sender<String> {
    let (sender, mut lines) = mpsc::channel::<String>(WAITING);
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            // Nowhere is left to tell if the log can't be written.
            let _ = to.write_all(line.as_bytes()).await;
            let _ = to.flush().await;
        }
    });
    sender
}
