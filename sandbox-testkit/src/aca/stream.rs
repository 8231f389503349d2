//! Commands over a WebSocket: the frames of `exec/stream`.
//!
//! In the older version the command is one path that is executed, without arguments, and its input
//! has no end. The newer one has arguments, an end of input, and says first which session it is. No
//! shell is between. It must never be ended by a client that goes away.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Command, Process, ProcessStdin, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::life::Busy;
use super::reply::{Reply, problem};
use super::state::{Guest, State};

/// Frames that wait for a client that reads slowly, and for a command that does.
const WAITING: usize = 16;

/// Bytes of output in one frame.
const CHUNK: usize = 8 << 10;

/// The longest frame of the newer version, in characters, and the longest that starts a command.
const FRAME: usize = 16_384;
const START: usize = 1 << 20;

/// A fault: the connection breaks off after so many frames, or falls silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) frames: usize,
    pub(super) silent: bool,
}

/// Protocol spoken on a stream.
#[derive(Clone, Copy, Debug)]
struct Speech {
    newer: bool,
    /// The longest frame that is taken, in characters.
    longest: usize,
    /// Whether input needs a terminal.
    needs_terminal: bool,
}

pub(super) async fn open(
    state: &Arc<State>,
    head: &mut Parts,
    guest: Arc<Guest>,
    newer: bool,
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
    let cut = head.extensions.get::<Cut>().copied();
    let options = state.options();
    let speech = Speech {
        newer,
        longest: match newer && !options.large_frames {
            true => FRAME,
            false => usize::MAX,
        },
        needs_terminal: options.input_needs_terminal,
    };
    let state = Arc::clone(state);
    Ok(Reply::switching(upgrade.on_upgrade(
        move |socket| async move { serve(&state, guest, busy, socket, cut, speech).await },
    )))
}

/// Carries frames until the command has ended or the client has gone.
async fn serve(
    state: &State,
    guest: Arc<Guest>,
    busy: Busy,
    mut socket: WebSocket,
    cut: Option<Cut>,
    speech: Speech,
) {
    let mut left = cut.map_or(usize::MAX, |cut| cut.frames);
    let (process, terminal) = match start(state, &guest, &mut socket, speech).await {
        Ok(started) => started,
        Err(why) => {
            // A client that has gone needs no reason.
            let _ = socket.send(text(&refusal(&why, speech))).await;
            let _ = socket.send(Message::Close(None)).await;
            return;
        }
    };
    let (frames, mut outgoing) = mpsc::channel(WAITING);
    if speech.newer {
        let session = uuid::Uuid::new_v4().to_string();
        // There is room: it is the first.
        let _ = frames.try_send(json!({"type": "session_id", "data": session}));
    }
    let (input, incoming) = mpsc::channel(WAITING);
    // On a task of its own: a client that goes away does not end the command.
    tokio::spawn(async move {
        carry(process, incoming, frames, speech).await;
        drop(busy);
    });
    let takes_input = terminal || !speech.needs_terminal;
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
                    if cut.is_some_and(|cut| cut.silent) {
                        // Neither read nor closed, until the emulator ends.
                        std::future::pending::<()>().await;
                    }
                    return;
                }
                left -= 1;
                if socket.send(text(&frame)).await.is_err() {
                    return;
                }
            }
            (room, message) = received => {
                let Some(Ok(message)) = message else { return };
                match (frame(&message, speech), room) {
                    (Ok(Frame::Stdin(bytes)), Ok(room)) if takes_input => {
                        room.send(Given::Bytes(bytes));
                    }
                    (Ok(Frame::CloseStdin), Ok(room)) if takes_input => room.send(Given::End),
                    (Ok(Frame::Resize(size)), Ok(room)) => room.send(Given::Size(size)),
                    (Ok(_), _) => {}
                    (Err(why), _) => {
                        let _ = socket.send(text(&refusal(&why, speech))).await;
                        break;
                    }
                }
            }
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}

/// Waits for the first frame and starts what it says.
async fn start(
    state: &State,
    guest: &Guest,
    socket: &mut WebSocket,
    speech: Speech,
) -> Result<(Process, bool), String> {
    let start = loop {
        let Some(Ok(message)) = socket.recv().await else {
            return Err("the client has gone".into());
        };
        match frame(&message, speech)? {
            Frame::Start(start) => break start,
            Frame::None => {}
            _ => return Err("the first frame must be start".into()),
        }
    };
    let path = start["command"].as_str().unwrap_or_default();
    let named = speech.newer && !path.is_empty();
    if !(named || path.contains('/')) || path.contains('\0') {
        return Err(format!("exec: {path:?}: executable file not found"));
    }
    let mut command = Command::new(path);
    let mut noted = path.to_owned();
    if speech.newer {
        if start["user"].is_string() {
            return Err("the emulator has one user".into());
        }
        for word in start["args"].as_array().into_iter().flatten() {
            let word = word.as_str().ok_or("args must have strings")?;
            noted = format!("{noted} {word}");
            command = command.arg(word);
        }
        if let Some(dir) = start["workingDirectory"].as_str() {
            command = command.cwd(dir);
        }
    }
    state.note_command(&noted);
    let terminal = start["tty"] == true;
    if terminal {
        // The sizes that clients were seen to have if they name none.
        command = command.terminal(size(&start).unwrap_or_default());
    } else if start["stdin"] == true {
        command = command.stdin_piped();
    }
    for (name, value) in start["environment"].as_object().into_iter().flatten() {
        let value = value.as_str().ok_or("environment must have strings")?;
        command = command.env(name.as_str(), value);
    }
    let started = guest.local.spawn(command).await;
    let started = started.map_err(|error| format!("exec: {path:?}: {}", error.message()))?;
    Ok((started, terminal))
}

/// The size of a terminal, if it is one.
fn size(of: &Value) -> Option<TerminalSize> {
    let length = |key: &str| u16::try_from(of[key].as_u64()?).ok().filter(|n| *n > 0);
    Some(TerminalSize {
        rows: length("height")?,
        columns: length("width")?,
    })
}

/// Runs a command to its end, even if the client has gone.
async fn carry(
    mut process: Process,
    input: mpsc::Receiver<Given>,
    frames: mpsc::Sender<Value>,
    speech: Speech,
) {
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
        never = feed(&process, stdin, input) => match never {},
    };
    let last = match ended.map(|exit| exit.status) {
        Ok(status) => json!({"type": "exit_code", "exitCode": status.shell_code()}),
        Err(error) => refusal(error.message(), speech),
    };
    let _ = frames.send(last).await;
}

/// Input of a command from its client.
enum Given {
    Bytes(Bytes),
    End,
    /// The size of its terminal.
    Size(TerminalSize),
}

/// Gives a command what its client gives it.
async fn feed(
    process: &Process,
    mut stdin: Option<ProcessStdin>,
    mut input: mpsc::Receiver<Given>,
) -> std::convert::Infallible {
    while let Some(given) = input.recv().await {
        match given {
            Given::Bytes(bytes) => {
                if let Some(open) = &mut stdin
                    && (open.write_all(&bytes).await.is_err() || open.flush().await.is_err())
                {
                    // The command has closed it; what still comes goes nowhere.
                    stdin = None;
                }
            }
            Given::End => stdin = None,
            // Without a terminal nothing has a size.
            Given::Size(size) => drop(process.resize(size).await),
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

/// Message of a client.
enum Frame {
    Start(Value),
    Stdin(Bytes),
    CloseStdin,
    Resize(TerminalSize),
    /// Nothing to do: what the protocol itself takes care of.
    None,
}

fn frame(message: &Message, speech: Speech) -> Result<Frame, String> {
    let Message::Text(text) = message else {
        return match message {
            Message::Binary(_) => Err("frames are text".into()),
            _ => Ok(Frame::None),
        };
    };
    let mut frame: Value = serde_json::from_str(text).map_err(|_| "the frame is not JSON")?;
    let kind = frame["type"].as_str();
    let most = match kind {
        Some("start") if speech.newer => START,
        _ => speech.longest,
    };
    if text.len() > most {
        return Err(format!("a frame has at most {most} characters"));
    }
    match kind {
        Some("close_stdin") if speech.newer => Ok(Frame::CloseStdin),
        Some("start") => Ok(Frame::Start(frame["start"].take())),
        Some("stdin") => {
            let data = frame["data"].as_str().unwrap_or_default();
            let bytes = STANDARD.decode(data);
            let bytes = bytes.map_err(|_| "the data of stdin is not base64")?;
            Ok(Frame::Stdin(bytes.into()))
        }
        Some("resize") => {
            let size = size(&frame["resize"]).ok_or("a size has a height and a width")?;
            Ok(Frame::Resize(size))
        }
        other => Err(format!(
            "{:?} is not a type of frame",
            other.unwrap_or_default()
        )),
    }
}

fn refusal(why: &str, speech: Speech) -> Value {
    match speech.newer {
        true => json!({"type": "error", "data": why}),
        false => json!({"type": "error", "message": why}),
    }
}

fn text(frame: &Value) -> Message {
    Message::Text(frame.to_string().into())
}
