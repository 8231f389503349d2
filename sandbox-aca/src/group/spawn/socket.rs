//! The WebSocket of `exec/stream`: frames of JSON with base64 in them.
//!
//! No frame is kept beyond the one that is being handled.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use sandbox_core::{Error, ErrorKind, Operation, Result, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// The largest message that is taken.
const LARGEST: usize = 16 << 20;
/// Bytes of input in one frame, as official clients have it.
const FRAME: usize = 8 << 10;
/// Interval at which the other side is asked for a sign of life.
pub(super) const PING: Duration = Duration::from_secs(30);
/// For how long nothing may come, not even an answer to a ping.
pub(super) const SILENCE: Duration = Duration::from_secs(100);

type Socket<S> = WebSocketStream<S>;

/// Frame from the service.
#[derive(Debug)]
pub(super) enum Frame {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The shell has ended.
    Exit,
    /// The service could not do it.
    Refused(String),
    /// Nothing has come for a while, not even a sign of life.
    Silence,
}

/// The end that listens.
#[derive(Debug)]
pub(super) struct Frames<S = reqwest::Upgraded>(SplitStream<Socket<S>>);

/// The end that speaks.
#[derive(Debug)]
pub(super) struct Input<S = reqwest::Upgraded>(SplitSink<Socket<S>, Message>);

/// Takes a connection over that has been upgraded.
pub(super) async fn open<S>(upgraded: S) -> (Input<S>, Frames<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST))
        .max_frame_size(Some(LARGEST));
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
    let (input, frames) = socket.split();
    (Input(input), Frames(frames))
}

fn broke(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Spawn)
        .with_message("the connection to the service broke off")
        .with_source(source)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Input<S> {
    async fn send(&mut self, frame: Value) -> Result<()> {
        let message = Message::text(frame.to_string());
        self.0.send(message).await.map_err(broke)
    }

    /// Executes a program: a path, with arguments where the service has them.
    pub(super) async fn start(
        &mut self,
        program: &str,
        arguments: Option<&[&str]>,
        input: bool,
        terminal: Option<TerminalSize>,
    ) -> Result<()> {
        let tty = terminal.is_some();
        let mut start = json!({"command": program, "environment": {}, "tty": tty, "stdin": input});
        if let Some(size) = terminal {
            start["height"] = json!(size.rows);
            start["width"] = json!(size.columns);
        }
        if let Some(arguments) = arguments {
            start["args"] = json!(arguments);
        }
        self.send(json!({"type": "start", "start": start})).await
    }

    /// Gives input, in as many frames as it takes.
    pub(super) async fn stdin(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(FRAME) {
            let frame = json!({"type": "stdin", "data": STANDARD.encode(part)});
            self.send(frame).await?;
        }
        Ok(())
    }

    /// Changes the size of the terminal.
    pub(super) async fn resize(&mut self, size: TerminalSize) -> Result<()> {
        let size = json!({"height": size.rows, "width": size.columns});
        self.send(json!({"type": "resize", "resize": size})).await
    }

    /// Ends the input.
    pub(super) async fn close_stdin(&mut self) -> Result<()> {
        self.send(json!({"type": "close_stdin"})).await
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(&mut self) -> Result<()> {
        let ping = Message::Ping(Default::default());
        self.0.send(ping).await.map_err(broke)
    }

    /// Closes the socket without waiting for an answer.
    pub(super) async fn close(&mut self) {
        // Who has gone need not be told.
        let _ = self.0.send(Message::Close(None)).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// The next frame; `None` when the service has closed the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let Ok(next) = tokio::time::timeout(SILENCE, self.0.next()).await else {
                return Ok(Some(Frame::Silence));
            };
            let text = match next {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Err(e)) => return Err(broke(e)),
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(_)) => continue,
            };
            let garbled = || {
                Error::new(ErrorKind::Unavailable, Operation::Spawn)
                    .with_message("the service sent a frame that can't be understood")
            };
            let frame: Value = serde_json::from_str(&text).map_err(|_| garbled())?;
            let data = || {
                let data = frame["data"].as_str().ok_or_else(garbled)?;
                STANDARD.decode(data).map_err(|_| garbled())
            };
            return Ok(Some(match frame["type"].as_str() {
                Some("stdout") => Frame::Stdout(data()?),
                Some("stderr") => Frame::Stderr(data()?),
                Some("exit_code") => Frame::Exit,
                Some("error") => {
                    // The newer version has it in plain text where others have bytes.
                    let fields = ["data", "message", "error"].iter();
                    let why = fields.filter_map(|field| frame[*field].as_str()).next();
                    Frame::Refused(why.unwrap_or_default().chars().take(300).collect())
                }
                // What a later version says beside is no concern of ours.
                _ => continue,
            }));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Both ends of a connection: ours, and the service's.
    pub(in super::super) async fn pair() -> (
        Frames<tokio::io::DuplexStream>,
        Input<tokio::io::DuplexStream>,
        WebSocketStream<tokio::io::DuplexStream>,
    ) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (input, frames) = open(ours).await;
        let theirs = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        (frames, input, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_told_and_a_sign_of_life_is_none() {
        let (mut frames, mut input, mut theirs) = pair().await;
        let begun = tokio::time::Instant::now();
        let silence = frames.next().await.expect("it is open");
        assert!(matches!(silence, Some(Frame::Silence)), "{silence:?}");
        let waited = begun.elapsed();
        assert!((SILENCE..SILENCE * 2).contains(&waited), "{waited:?}");
        // One that answers pings is taken for alive for as long as it does.
        let alive = async {
            for _ in 0..10 {
                tokio::time::sleep(PING).await;
                input.ping().await.expect("it is open");
                // Reading answers.
                let _ = theirs.next().await;
                theirs.flush().await.expect("it is open");
            }
            let said = json!({"type": "stdout", "data": STANDARD.encode("x")});
            let said = Message::text(said.to_string());
            theirs.send(said).await.expect("it is open");
        };
        let (next, ()) = tokio::join!(frames.next(), alive);
        let next = next.expect("it is open");
        assert!(matches!(next, Some(Frame::Stdout(_))), "{next:?}");
    }

    #[tokio::test]
    async fn input_goes_in_frames_that_the_service_takes() {
        let (_frames, mut input, mut theirs) = pair().await;
        let bytes = vec![7; 20_000];
        let sending = async {
            input.stdin(&bytes).await.expect("it is open");
            input.close_stdin().await.expect("it is open");
        };
        let receiving = async {
            let mut got = Vec::new();
            loop {
                let Some(Ok(Message::Text(text))) = theirs.next().await else {
                    panic!("no frame");
                };
                assert!(text.len() < 16_384, "{} characters", text.len());
                let frame: Value = serde_json::from_str(&text).expect("a frame");
                if frame["type"] == "close_stdin" {
                    return got;
                }
                let data = frame["data"].as_str().expect("data");
                got.extend(STANDARD.decode(data).expect("bytes"));
            }
        };
        let ((), got) = tokio::join!(sending, receiving);
        assert_eq!(got, bytes);
    }

    #[tokio::test]
    async fn a_refusal_is_read_from_whichever_field_has_it() {
        let (mut frames, _input, mut theirs) = pair().await;
        for field in ["data", "message", "error"] {
            let said = json!({"type": "error", field: "no such program"}).to_string();
            theirs.send(Message::text(said)).await.expect("it is open");
            match frames.next().await {
                Ok(Some(Frame::Refused(why))) => assert_eq!(why, "no such program"),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
