//! An output stream of a process behind a server, resumed by its offset.
//!
//! Invariant: every byte is given out once, in order, however often the connection breaks; what is
//! not read is not asked for, so that the program is held up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use reqwest::Method;
use sandbox_core::{ErrorKind, Operation};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::call::Call;
use super::http::{Http, Opened};
use crate::wire::{Problem, frame};

/// A stream that is followed from its beginning.
#[derive(Debug)]
pub(super) struct Following {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
    task: AbortHandle,
}

impl Following {
    pub(super) fn new(http: &Arc<Http>, name: &Arc<str>, what: &'static str) -> Self {
        Self::until(http, name, what, true)
    }

    /// Of a stream whose process does not end by itself: one that is lost is not its end.
    pub(super) fn whole(http: &Arc<Http>, name: &Arc<str>) -> Self {
        Self::until(http, name, "stdout", false)
    }

    fn until(http: &Arc<Http>, name: &Arc<str>, what: &'static str, ends: bool) -> Self {
        // What is in it, and in the connection, is all that is read ahead.
        let (sender, parts) = mpsc::channel(2);
        let (http, name) = (Arc::clone(http), Arc::clone(name));
        let task = tokio::spawn(follow(http, name, what, ends, sender));
        Self {
            parts,
            rest: Bytes::new(),
            task: task.abort_handle(),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AsyncRead for Following {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.parts.poll_recv(cx)) {
                Some(part) => self.rest = part?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

async fn follow(
    http: Arc<Http>,
    name: Arc<str>,
    what: &'static str,
    ends: bool,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let path = ["v1", "processes", &*name, what];
    let mut offset = 0_u64;
    // Since when nothing came.
    let mut since: Option<Instant> = None;
    loop {
        let call = Call::read(Operation::Spawn, Method::GET, &path).query("from", offset);
        let why = match http.frames(&call).await {
            Ok(mut frames) => loop {
                let part = match frames.next().await {
                    Ok(part) => part,
                    Err(why) => break why,
                };
                since = None;
                match part.kind {
                    frame::DATA => {
                        offset += part.data.len() as u64;
                        if sender.send(Ok(part.data)).await.is_err() {
                            return;
                        }
                    }
                    frame::END => return,
                    frame::MORE => break String::new(),
                    frame::ERROR => {
                        let problem: Option<Problem> = serde_json::from_slice(&part.data).ok();
                        let error = problem.map_or_else(
                            || io::Error::other("the stream failed at the server"),
                            |problem| io::Error::other(problem.into_error()),
                        );
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                    _ => {}
                }
            },
            Err(Opened::Refused(error)) => {
                // A process that was let go of, or a closed sandbox: the end of its output.
                let is_end = ends && matches!(error.kind(), ErrorKind::Lost | ErrorKind::Closed);
                if !is_end {
                    let _ = sender.send(Err(io::Error::other(error))).await;
                }
                return;
            }
            Err(Opened::Broken(why)) => why,
        };
        if why.is_empty() {
            continue;
        }
        let since = since.get_or_insert_with(Instant::now);
        if since.elapsed() > http.horizon() {
            let broken = io::Error::new(io::ErrorKind::ConnectionReset, why);
            let _ = sender.send(Err(broken)).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
