//! The journal: what exists or may exist, written down before a side effect and after it.
//!
//! Append-only lines in one file, one process at a time; compacted by writing a new file and
//! renaming it. A record that [`Journal::append`] returned for must never be lost, whatever kills
//! the process.

mod file;
mod record;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub(crate) use file::Store;
pub(crate) use record::{Book, Described, Kept, Record, from_ms, to_ms};

use crate::{Error, Result, SessionId};

/// Number of appends that may wait for the writer.
const WAITING: usize = 1024;

struct Append {
    records: Vec<Record>,
    done: oneshot::Sender<std::result::Result<(), Arc<std::io::Error>>>,
}

enum Order {
    Append(Append),
    /// Give the file and its lock up, then say so.
    Close(oneshot::Sender<()>),
}

/// The writing side; a copy shares it. Without a directory nothing is written.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Option<mpsc::Sender<Order>>);

impl Journal {
    /// A journal that forgets.
    pub(crate) fn none() -> (Self, Book) {
        let book = Book {
            owner: Some(SessionId::generate()),
            ..Book::default()
        };
        (Self(None), book)
    }

    /// Opens the journal in a directory, and gives what it holds.
    pub(crate) async fn open(directory: &Path, sync: bool) -> Result<(Self, Book)> {
        let directory = directory.to_owned();
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory, sync)).await;
        let (store, book) = match opened {
            Ok(opened) => opened?,
            Err(error) => return Err(Error::journal("the journal was not opened", error.into())),
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("sandbox-journal".into())
            .spawn(move || write(store, receiver))
            .map_err(|error| Error::journal("the journal's thread was not started", error))?;
        Ok((Self(Some(sender)), book))
    }

    /// Writes a record down. It is there when this returns; if the future is dropped, it is there
    /// soon or not at all.
    pub(crate) async fn append(&self, record: Record) -> Result<()> {
        self.append_all(vec![record]).await
    }

    /// Writes records down in this order.
    pub(crate) async fn append_all(&self, records: Vec<Record>) -> Result<()> {
        let Some(sender) = &self.0 else {
            return Ok(());
        };
        let ended = || {
            let io = std::io::Error::other("the journal's thread has ended");
            Error::journal("a record was not written", io)
        };
        let (done, written) = oneshot::channel();
        let append = Append { records, done };
        sender
            .send(Order::Append(append))
            .await
            .map_err(|_| ended())?;
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::journal(
                format!("a record was not written to the journal: {error}"),
                std::io::Error::new(error.kind(), error),
            )),
            Err(_) => Err(ended()),
        }
    }

    /// Gives the file up, so that another process can open it; later records are refused.
    pub(crate) async fn close(&self) {
        if let Some(sender) = &self.0 {
            let (done, closed) = oneshot::channel();
            if sender.send(Order::Close(done)).await.is_ok() {
                let _ = closed.await;
            }
        }
    }
}

/// Writes what comes until every sender is gone: all that waits in one go, and one flush for it.
fn write(mut store: Store, mut receiver: mpsc::Receiver<Order>) {
    while let Some(first) = receiver.blocking_recv() {
        let mut batch = Vec::new();
        let mut next = Some(first);
        let mut close = None;
        while let Some(order) = next {
            match order {
                Order::Append(append) => batch.push(append),
                Order::Close(done) => {
                    close = Some(done);
                    break;
                }
            }
            next = (batch.len() < WAITING)
                .then(|| receiver.try_recv().ok())
                .flatten();
        }
        let records = batch.iter().flat_map(|append| &append.records);
        let written = store.append(records).map_err(Arc::new);
        for append in batch {
            // The caller may be gone.
            let _ = append.done.send(written.clone());
        }
        if let Some(done) = close {
            drop(store);
            let _ = done.send(());
            return;
        }
    }
}
