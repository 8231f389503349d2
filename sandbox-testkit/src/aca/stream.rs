//! Commands over a WebSocket: the frames of `exec/stream`.
//!
//! The command is one path that is executed, without arguments and without a shell. It must never
//! be ended by a client that goes away, and its input has no end: the service has a frame for
//! neither.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Command, Process, ProcessStdin};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::life::Busy;
use super::reply::{Reply, problem};
use super::state::{Guest, State};

/// Frames that wait for a client that reads slowly, and for a command that does.
const WAITING: usize = 16;

/// Bytes of output in one frame.
const CHUNK: usize = 32 << 10;

/// A fault: the connection breaks off after so many frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut(pub(super) usize);

pub(super) async fn open(
    state: &Arc<State>,
    head: &mut Parts,
    guest: Arc<Guest>,
) -> Result<Reply, Reply> {
    let busy = guest.busy(state)?;
    let upgrade = WebSocketUpgrade::from_request_parts(head, &()).await;
    let upgrade = upgrade.map_err(|_| {
        problem(
            400,
            "WebSocketExpected",
            "the request asks for no WebSocket",
        )
    })?;
    let left = head.extensions.get::<Cut>().map_or(usize::MAX, |cut| cut.0);
    let state = Arc::clone(state);
    Ok(Reply::switching(upgrade.on_upgrade(
        move |socket| async move { serve(&state, guest, busy, socket, left).await },
    )))
}

/// Carries frames until the command has ended or the client has gone.
async fn serve(
    state: &State,
    guest: Arc<Guest>,
    busy: Busy,
    mut socket: WebSocket,
    mut left: usize,
) {
    let process = match start(state, &guest, &mut socket).await {
        Ok(process) => process,
        Err(why) => {
            // A client that has gone needs no reason.
            let _ = socket.send(text(&refusal(&why))).await;
            let _ = socket.send(Message::Close(None)).await;
            return;
        }
    };
    let (frames, mut outgoing) = mpsc::channel(WAITING);
    let (input, incoming) = mpsc::channel(WAITING);
    // On a task of its own: a client that goes away does not end the command.
    tokio::spawn(async move {
        carry(process, incoming, frames).await;
        drop(busy);
    });
    loop {
        let received = async {
            // What the command does not read is not taken from the client either.
            let room = input.reserve().await;
            (room, socket.recv().await)
        };
        tokio::select! {
            frame = outgoing.recv() => {
                let Some(frame) = frame else { break };
                if left == 0 {
                    return;
                }
                left -= 1;
                if socket.send(text(&frame)).await.is_err() {
                    return;
                }
            }
            (room, message) = received => {
                let Some(Ok(message)) = message else { return };
                match (frame(&message), room) {
                    (Ok(Frame::Stdin(bytes)), Ok(room)) => room.send(bytes),
                    (Ok(_), _) => {}
                    (Err(why), _) => {
                        let _ = socket.send(text(&refusal(&why))).await;
                        break;
                    }
                }
            }
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}

/// Waits for the first frame and starts what it says.
async fn start(state: &State, guest: &Guest, socket: &mut WebSocket) -> Result<Process, String> {
    let start = loop {
        let Some(Ok(message)) = socket.recv().await else {
            return Err("the client has gone".into());
        };
        match frame(&message)? {
            Frame::Start(start) => break start,
            Frame::None => {}
            Frame::Stdin(_) => return Err("the first frame must be start".into()),
        }
    };
    let path = start["command"].as_str().unwrap_or_default();
    if !path.contains('/') || path.contains('\0') {
        return Err(format!("exec: {path:?}: executable file not found"));
    }
    if start["tty"] == true {
        return Err("the emulator has no terminals".into());
    }
    state.note_command(path);
    let mut command = Command::new(path);
    if start["stdin"] == true {
        command = command.stdin_piped();
    }
    for (name, value) in start["environment"].as_object().into_iter().flatten() {
        let value = value.as_str().ok_or("environment must have strings")?;
        command = command.env(name.as_str(), value);
    }
    let started = guest.local.spawn(command).await;
    started.map_err(|error| format!("exec: {path:?}: {}", error.message()))
}

/// Runs a command to its end, even if the client has gone.
async fn carry(mut process: Process, input: mpsc::Receiver<Bytes>, frames: mpsc::Sender<Value>) {
    let (stdin, stdout, stderr) = (
        process.stdin.take(),
        process.stdout.take(),
        process.stderr.take(),
    );
    let run = async {
        tokio::join!(
            pump("stdout", stdout, &frames),
            pump("stderr", stderr, &frames),
        );
        process.wait().await
    };
    let ended = tokio::select! {
        ended = run => ended,
        never = feed(stdin, input) => match never {},
    };
    let last = match ended.map(|exit| exit.status) {
        Ok(status) => json!({"type": "exit_code", "exitCode": status.shell_code()}),
        Err(error) => refusal(error.message()),
    };
    let _ = frames.send(last).await;
}

/// Gives a command its input, and no end of it.
async fn feed(
    mut stdin: Option<ProcessStdin>,
    mut input: mpsc::Receiver<Bytes>,
) -> std::convert::Infallible {
    while let Some(bytes) = input.recv().await {
        if let Some(open) = &mut stdin
            && (open.write_all(&bytes).await.is_err() || open.flush().await.is_err())
        {
            // The command has closed it; what still comes goes nowhere.
            stdin = None;
        }
    }
    std::future::pending().await
}

async fn pump(kind: &str, stream: Option<impl AsyncRead + Unpin>, frames: &mpsc::Sender<Value>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let frame = json!({"type": kind, "data": STANDARD.encode(&buffer[..n])});
        // Without a client the output is still read, or the command would stand still.
        let _ = frames.send(frame).await;
    }
}

/// What a client says.
enum Frame {
    Start(Value),
    Stdin(Bytes),
    /// Nothing to do: the size of a terminal, and what the protocol itself takes care of.
    None,
}

fn frame(message: &Message) -> Result<Frame, String> {
    let Message::Text(text) = message else {
        return match message {
            Message::Binary(_) => Err("frames are text".into()),
            _ => Ok(Frame::None),
        };
    };
    let mut frame: Value = serde_json::from_str(text).map_err(|_| "the frame is no JSON")?;
    match frame["type"].as_str() {
        Some("start") => Ok(Frame::Start(frame["start"].take())),
        Some("stdin") => {
            let data = frame["data"].as_str().unwrap_or_default();
            let bytes = STANDARD.decode(data);
            let bytes = bytes.map_err(|_| "the data of stdin is not base64")?;
            Ok(Frame::Stdin(bytes.into()))
        }
        Some("resize") => Ok(Frame::None),
        other => Err(format!(
            "{:?} is no type of a frame",
            other.unwrap_or_default()
        )),
    }
}

fn refusal(why: &str) -> Value {
    json!({"type": "error", "message": why})
}

fn text(frame: &Value) -> Message {
    Message::Text(frame.to_string().into())
}
