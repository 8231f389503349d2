//! The WebSocket of `exec/stream`: frames of JSON with base64 in them.
//!
//! No frame is kept beyond the one that is being handled.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// The largest message that is taken.
const LARGEST: usize = 16 << 20;

type Socket = WebSocketStream<reqwest::Upgraded>;

/// What the service says.
#[derive(Debug)]
pub(super) enum Frame {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The shell has ended.
    Exit,
    /// The service could not do it.
    Refused(String),
}

/// The end that listens.
#[derive(Debug)]
pub(super) struct Frames(SplitStream<Socket>);

/// The end that speaks.
#[derive(Debug)]
pub(super) struct Input(SplitSink<Socket, Message>);

/// Takes a connection over that has been upgraded.
pub(super) async fn open(upgraded: reqwest::Upgraded) -> (Input, Frames) {
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

impl Input {
    async fn send(&mut self, frame: Value) -> Result<()> {
        let message = Message::text(frame.to_string());
        self.0.send(message).await.map_err(broke)
    }

    /// Has a program executed: a path, without arguments.
    pub(super) async fn start(&mut self, program: &str) -> Result<()> {
        let start = json!({"command": program, "environment": {}, "tty": false, "stdin": true});
        self.send(json!({"type": "start", "start": start})).await
    }

    pub(super) async fn stdin(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(json!({"type": "stdin", "data": STANDARD.encode(bytes)}))
            .await
    }

    /// Closes the socket without waiting for an answer.
    pub(super) async fn close(&mut self) {
        // Who has gone need not be told.
        let _ = self.0.send(Message::Close(None)).await;
    }
}

impl Frames {
    /// The next frame; `None` when the service has closed the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let text = match self.0.next().await {
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
                    let why = frame["message"].as_str().or(frame["error"].as_str());
                    Frame::Refused(why.unwrap_or_default().chars().take(300).collect())
                }
                // What a later version says beside is no concern of ours.
                _ => continue,
            }));
        }
    }
}
