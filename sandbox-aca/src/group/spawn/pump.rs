//! Carries bytes between a command's socket and its streams.
//!
//! Buffers are bounded: who does not read holds the program up.

use std::time::Duration;

use sandbox_core::Exit;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;

use super::socket::{Frame, Frames, Input};
use super::trailer::Trailer;
use crate::guest::exec::exit;

/// How much input goes in one frame.
const CHUNK: usize = 32 << 10;
/// How long a stream may be full before the guest is asked how the command is.
const STALLED: Duration = Duration::from_millis(300);

/// How a command ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// With this status; `why` has `t` for its timeout and `c` for a kill.
    Exit { exit: Exit, why: String },
    /// Unknown: the connection broke off.
    Broke(String),
}

/// What is known of a command.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) end: Option<End>,
    /// All that it wrote has come.
    pub(super) drained: bool,
    /// What came is not read, so that nothing else comes.
    pub(super) stalled: bool,
}

/// How a command ended, by what the guest's scripts say.
pub(super) fn told(code: &str, why: &str) -> Option<End> {
    let code = code.parse().ok()?;
    Some(End::Exit {
        exit: exit(code),
        why: why.to_owned(),
    })
}

/// The streams of one command.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) mark: String,
    pub(super) out: DuplexStream,
    pub(super) err: DuplexStream,
    /// What came of stdout already.
    pub(super) first: Vec<u8>,
    pub(super) progress: watch::Sender<Progress>,
}

impl Streams {
    /// Carries frames until both streams have ended or the connection has.
    pub(super) async fn carry(mut self, mut frames: Frames) {
        let mut out = Trailer::new(&self.mark);
        let mut err = Trailer::new(&self.mark);
        let (mut out_ended, mut err_ended) = (false, false);
        let mut next: sandbox_core::Result<_> =
            Ok(Some(Frame::Stdout(std::mem::take(&mut self.first))));
        let broke = loop {
            match next {
                Ok(Some(Frame::Stdout(bytes))) => {
                    let step = out.take(&bytes);
                    if let Some(said) = &step.end {
                        let (code, why) = said.split_once(' ').unwrap_or((said, ""));
                        let end = told(code, why)
                            .unwrap_or_else(|| End::Broke("the shell said no status".into()));
                        // Known before who reads sees the end of the stream.
                        self.progress.send_modify(|now| now.end = Some(end));
                        out_ended = true;
                    }
                    write(&mut self.out, &step.bytes, &self.progress).await;
                    if out_ended {
                        let _ = self.out.shutdown().await;
                    }
                }
                Ok(Some(Frame::Stderr(bytes))) => {
                    let step = err.take(&bytes);
                    err_ended |= step.end.is_some();
                    write(&mut self.err, &step.bytes, &self.progress).await;
                    if err_ended {
                        let _ = self.err.shutdown().await;
                    }
                }
                Ok(Some(Frame::Exit) | None) => break "the connection ended".to_owned(),
                Ok(Some(Frame::Refused(why))) => break why,
                Err(error) => break error.to_string(),
            }
            if out_ended && err_ended {
                self.progress.send_modify(|now| now.drained = true);
                return;
            }
            next = frames.next().await;
        };
        write(&mut self.out, &out.rest(), &self.progress).await;
        write(&mut self.err, &err.rest(), &self.progress).await;
        self.progress.send_modify(|now| {
            now.end.get_or_insert(End::Broke(broke));
            now.drained = true;
        });
    }
}

/// Writes to a stream, which may no longer have a reader.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    progress: &watch::Sender<Progress>,
) {
    let writing = to.write_all(bytes);
    tokio::pin!(writing);
    if tokio::time::timeout(STALLED, &mut writing).await.is_err() {
        progress.send_modify(|now| now.stalled = true);
        // An error says that there is no reader.
        let _ = writing.await;
        progress.send_modify(|now| now.stalled = false);
    }
}

/// Gives a command its input, if it has a pipe, and its shell leave when all is read.
pub(super) async fn feed(
    mut input: Input,
    given: Option<DuplexStream>,
    nonce: String,
    mut progress: watch::Receiver<Progress>,
) {
    // It ends with the command, or when there is no more to give.
    let ended = async {
        // A sender that is gone can't tell otherwise.
        let _ = progress.wait_for(|now| now.end.is_some()).await;
    };
    let give = async {
        let mut given = given;
        let mut chunk = vec![0; CHUNK];
        while let Some(stream) = &mut given {
            let sent = match stream.read(&mut chunk).await {
                Ok(n @ 1..) => {
                    let head = format!("\n{nonce}i {n}\n");
                    let frame = [head.as_bytes(), &chunk[..n]].concat();
                    input.stdin(&frame).await
                }
                _ => {
                    given = None;
                    input.stdin(format!("\n{nonce}e\n").as_bytes()).await
                }
            };
            if sent.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ended => {}
        () = give => {}
    }
    let _ = progress.wait_for(|now| now.drained).await;
    // A broken connection can't be told.
    let _ = input.stdin(format!("\n{nonce}b\n").as_bytes()).await;
    input.close().await;
}
