//! Carries bytes between a command's socket and its streams.
//!
//! Buffers are bounded: who does not read holds the program up.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Exit, Operation, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;

use super::socket::{Frame, Frames, Input, PING};
use super::trailer::{Lead, Trailer};
use crate::group::protocol::Stream;
use crate::guest::exec::exit;
use crate::guest::handle::Guest;
use crate::http::Http;

const OP: Operation = Operation::Spawn;
/// Bytes of input that are taken at once.
const CHUNK: usize = 32 << 10;
/// Time that the last words to a service may take.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// Time that a stream may be full before the guest is asked how the command is.
const STALLED: Duration = Duration::from_millis(300);

/// End of a command.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// With this status; `why` has `t` for its timeout, `c` for a kill, and `m` if more of its tree
    /// may still write.
    Exit { exit: Exit, why: String },
    /// Unknown: the connection broke off.
    Broke(String),
}

/// Progress of a command, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) end: Option<End>,
    /// All that it wrote has come.
    pub(super) drained: bool,
    /// Whether output that came is not read, so that nothing else comes.
    pub(super) stalled: bool,
}

/// End of a command, by what the guest's scripts say.
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
    /// A terminal has one stream.
    pub(super) err: Option<DuplexStream>,
    /// Output that came already.
    pub(super) first: Vec<u8>,
    /// Bytes that came on stderr meanwhile, before the command's bytes too: no order is kept between the two.
    pub(super) first_err: Vec<u8>,
    pub(super) progress: watch::Sender<Progress>,
}

impl Streams {
    /// Carries frames until both streams have ended or the connection has. Silence is no end of it
    /// while the command runs.
    pub(super) async fn carry<S>(mut self, mut frames: Frames<S>, runs: impl AsyncFn() -> bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut out = Trailer::new(&self.mark);
        let mut err = Trailer::new(&self.mark);
        // Known to others when both streams have ended: not all of the output may come.
        let (mut end, mut err_ended) = (None, self.err.is_none());
        let mut lead = Lead::new(&self.mark);
        let mut first_err = Some(Frame::Stderr(std::mem::take(&mut self.first_err)));
        let mut next: sandbox_core::Result<_> =
            Ok(Some(Frame::Stdout(std::mem::take(&mut self.first))));
        let broke = loop {
            match next {
                Ok(Some(Frame::Stdout(bytes))) => {
                    let step = out.take(&bytes);
                    if let Some(said) = &step.end {
                        let (code, why) = said.split_once(' ').unwrap_or((said, ""));
                        let unsaid = || End::Broke("the shell reported no status".into());
                        end = Some(told(code, why).unwrap_or_else(unsaid));
                        self.tell(end.as_ref().filter(|_| err_ended));
                    }
                    write(&mut self.out, &step.bytes, &self.progress).await;
                    if end.is_some() {
                        let _ = self.out.shutdown().await;
                    }
                }
                Ok(Some(Frame::Stderr(bytes))) => {
                    let step = err.take(&lead.take(bytes));
                    err_ended |= step.end.is_some();
                    self.tell(end.as_ref().filter(|_| err_ended));
                    if let Some(to) = &mut self.err {
                        write(to, &step.bytes, &self.progress).await;
                        if err_ended {
                            let _ = to.shutdown().await;
                        }
                    }
                }
                Ok(Some(Frame::Silence)) => {
                    if !runs().await {
                        break "nothing came on it any more".to_owned();
                    }
                }
                Ok(Some(Frame::Exit) | None) => break "the connection ended".to_owned(),
                Ok(Some(Frame::Refused(why))) => break why,
                Err(error) => break error.to_string(),
            }
            if end.is_some() && err_ended {
                self.progress.send_modify(|now| now.drained = true);
                return;
            }
            next = match first_err.take() {
                Some(first) => Ok(Some(first)),
                None => frames.next().await,
            };
        };
        write(&mut self.out, &out.rest(), &self.progress).await;
        if let Some(to) = &mut self.err {
            write(to, &err.rest(), &self.progress).await;
        }
        self.progress.send_modify(|now| {
            now.end.get_or_insert(End::Broke(broke));
            now.drained = true;
        });
    }
}

impl Streams {
    /// Makes an end known, before who reads sees that of the stream.
    fn tell(&self, end: Option<&End>) {
        if let Some(end) = end {
            self.progress.send_modify(|now| now.end = Some(end.clone()));
        }
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

/// The way of a command's input, and of what its shell is told.
#[derive(Debug)]
pub(super) struct Feed<S = reqwest::Upgraded> {
    pub(super) input: Input<S>,
    /// Stream that the command's pipe is given.
    pub(super) given: Option<DuplexStream>,
    pub(super) stream: Stream,
    /// Sizes of the command's terminal, if it has one: what is given goes to that as it is.
    pub(super) sizes: Option<watch::Receiver<TerminalSize>>,
    /// The name by which the shell knows what is not the command's input.
    pub(super) nonce: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Feed<S> {
    /// Gives a command its input, if it has a pipe, keeps the connection from falling silent, and
    /// gives the command's shell leave when all is read.
    pub(super) async fn give(
        mut self,
        mut progress: watch::Receiver<Progress>,
        guest: Arc<Guest<Http>>,
        dir: String,
    ) {
        let mut ended = progress.clone();
        let ended = async {
            // A sender that is gone can't tell otherwise.
            let _ = ended.wait_for(|now| now.end.is_some()).await;
        };
        tokio::select! {
            () = ended => {}
            () = self.carry() => {}
        }
        let drained = async {
            let _ = progress.wait_for(|now| now.drained).await;
        };
        tokio::select! {
            () = drained => {}
            () = self.ping() => {}
        }
        let more = match &progress.borrow().end {
            Some(End::Exit { why, .. }) => why.contains('m'),
            _ => false,
        };
        let last_words = async {
            match self.stream {
                // What a terminal's shell has started ends with its hangup, or goes on unread.
                _ if self.sizes.is_some() => {}
                // A broken connection can't be told.
                Stream::Path => {
                    let leave = format!("\n{}b\n", self.nonce);
                    let _ = self.input.stdin(leave.as_bytes()).await;
                }
                Stream::Arguments if more => {
                    let line = format!("[ -d {dir} ] && : > {dir}/read");
                    let id = guest.id.as_str();
                    // What is left of the tree ends with its sandbox.
                    let _ = guest.transport.shell(OP, id, &line, true, LAST_WORDS).await;
                }
                Stream::Arguments => {}
            }
            self.input.close().await;
        };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    }

    /// Carries input until the connection has broken.
    async fn carry(&mut self) {
        let mut chunk = vec![0; CHUNK];
        loop {
            let sent = tokio::select! {
                biased;
                // What is typed after it is for a terminal of this size.
                size = resized(&mut self.sizes) => self.input.resize(size).await,
                read = read(&mut self.given, &mut chunk) => self.pass(&chunk[..read]).await,
                () = tokio::time::sleep(PING) => self.input.ping().await,
            };
            if sent.is_err() {
                // The other side of the connection tells.
                return std::future::pending().await;
            }
        }
    }

    /// Gives the command input; nothing is its end.
    async fn pass(&mut self, bytes: &[u8]) -> sandbox_core::Result<()> {
        if bytes.is_empty() {
            self.given = None;
        }
        match (bytes, self.stream) {
            // The input of a terminal has no end.
            ([], _) if self.sizes.is_some() => Ok(()),
            (bytes, _) if self.sizes.is_some() => self.input.stdin(bytes).await,
            ([], Stream::Arguments) => self.input.close_stdin().await,
            (bytes, Stream::Arguments) => self.input.stdin(bytes).await,
            ([], Stream::Path) => {
                let end = format!("\n{}e\n", self.nonce);
                self.input.stdin(end.as_bytes()).await
            }
            (bytes, Stream::Path) => {
                let head = format!("\n{}i {}\n", self.nonce, bytes.len());
                self.input.stdin(&[head.as_bytes(), bytes].concat()).await
            }
        }
    }

    /// Asks for a sign of life at times, without end.
    async fn ping(&mut self) {
        loop {
            tokio::time::sleep(PING).await;
            if self.input.ping().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Reads what a command is given; nothing at its end, or if it can't be read any more.
async fn read(given: &mut Option<DuplexStream>, chunk: &mut [u8]) -> usize {
    match given {
        Some(given) => given.read(chunk).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// The next size of a terminal.
async fn resized(sizes: &mut Option<watch::Receiver<TerminalSize>>) -> TerminalSize {
    if let Some(sizes) = sizes
        && sizes.changed().await.is_ok()
    {
        return *sizes.borrow_and_update();
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use futures_util::{SinkExt as _, StreamExt as _};
    use serde_json::json;
    use tokio::time::{sleep, timeout};
    use tokio_tungstenite::tungstenite::Message;

    use super::super::socket::SILENCE;
    use super::super::socket::tests::pair;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_carries_nothing_is_kept_from_falling_silent() {
        let (_frames, input, mut theirs) = pair().await;
        let mut feed = Feed {
            input,
            given: None,
            stream: Stream::Arguments,
            sizes: None,
            nonce: "x".to_owned(),
        };
        let asked = async {
            for _ in 0..3 {
                let next = timeout(PING * 2, theirs.next()).await;
                let next = next.expect("a sign of life was asked for");
                assert!(matches!(next, Some(Ok(Message::Ping(_)))), "{next:?}");
            }
        };
        tokio::select! {
            () = feed.carry() => {}
            () = asked => {}
        }
    }

    /// Carries what came before a connection ended, and gives both streams and the command's end.
    async fn carried(first: &str, first_err: &str) -> (String, String, End) {
        let (frames, _input, theirs) = pair().await;
        drop(theirs);
        let (out, mut read_out) = tokio::io::duplex(1024);
        let (err, mut read_err) = tokio::io::duplex(1024);
        let (progress, seen) = watch::channel(Progress::default());
        let streams = Streams {
            mark: "end-x".to_owned(),
            out,
            err: Some(err),
            first: first.into(),
            first_err: first_err.into(),
            progress,
        };
        streams.carry(frames, async || true).await;
        let (mut out, mut err) = (String::new(), String::new());
        read_out.read_to_string(&mut out).await.expect("its end");
        read_err.read_to_string(&mut err).await.expect("its end");
        let end = seen.borrow().end.clone();
        (out, err, end.expect("an end"))
    }

    #[tokio::test]
    async fn stderr_from_before_the_first_line_is_the_commands() {
        let said = "sh: warning\n\0end-x\nerr\0end-x\n";
        let (out, err, end) = carried("out\0end-x 6 -\n", said).await;
        assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
        assert!(matches!(end, End::Exit { .. }), "{end:?}");
    }

    #[tokio::test]
    async fn an_end_without_all_of_stderr_is_not_told_as_one() {
        let (out, err, end) = carried("out\0end-x 6 -\n", "\0end-x\nerr").await;
        assert_eq!((out.as_str(), err.as_str()), ("out", "err"));
        assert!(matches!(end, End::Broke(_)), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_end_only_if_the_command_has_ended() {
        for runs in [true, false] {
            let (frames, _input, mut theirs) = pair().await;
            let (out, mut read) = tokio::io::duplex(1024);
            let (progress, seen) = watch::channel(Progress::default());
            let streams = Streams {
                mark: "end-x".to_owned(),
                out,
                err: None,
                first: Vec::new(),
                first_err: Vec::new(),
                progress,
            };
            let speaking = async {
                sleep(SILENCE * 3).await;
                let late = json!({"type": "stdout", "data": STANDARD.encode("late")});
                // Nothing hears it, if the connection was given up.
                let _ = theirs.send(Message::text(late.to_string())).await;
                drop(theirs);
            };
            tokio::join!(streams.carry(frames, async || runs), speaking);
            let mut got = String::new();
            read.read_to_string(&mut got).await.expect("it has ended");
            assert_eq!(got, if runs { "late" } else { "" });
            let end = seen.borrow().end.clone();
            let Some(End::Broke(why)) = end else {
                panic!("{end:?}");
            };
            assert_eq!(why.contains("nothing came"), !runs, "{why}");
        }
    }
}
