//! Commands over a WebSocket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use sandbox_testkit::aca::{Action, Fault};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{GROUP, Service};

struct Socket(WebSocketStream<TcpStream>);

async fn connect(
    service: &Service,
    id: &str,
    token: Option<&str>,
) -> Result<Socket, tungstenite::Error> {
    connect_in(service, id, token, "").await
}

async fn connect_in(
    service: &Service,
    id: &str,
    token: Option<&str>,
    query: &str,
) -> Result<Socket, tungstenite::Error> {
    let address = service.emulator.address();
    let url = format!("ws://{address}{GROUP}/sandboxes/{id}/exec/stream{query}");
    let mut request = url.into_client_request().expect("a request");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(Socket(socket))
}

async fn open(service: &Service, id: &str) -> Socket {
    let token = service.emulator.token();
    connect(service, id, Some(&token)).await.expect("a socket")
}

impl Socket {
    async fn send(&mut self, frame: Value) {
        let message = Message::Text(frame.to_string().into());
        self.0.send(message).await.expect("it takes a frame");
    }

    async fn start(&mut self, command: &str, stdin: bool) {
        let start = json!({"command": command, "stdin": stdin, "tty": false,
            "environment": {"COLOUR": "green"}, "height": 24, "width": 80});
        self.send(json!({"type": "start", "start": start})).await;
    }

    async fn stdin(&mut self, text: &str) {
        self.send(json!({"type": "stdin", "data": STANDARD.encode(text)}))
            .await;
    }

    /// The next frame; `None` if the connection has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Some(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Everything to the end: stdout, stderr, and the last frame.
    async fn rest(&mut self) -> (String, String, Value) {
        let (mut streams, mut last) = ([Vec::new(), Vec::new()], Value::Null);
        while let Some(frame) = self.next().await {
            let at = match frame["type"].as_str() {
                Some("stdout") => 0,
                Some("stderr") => 1,
                Some("session_id") => continue,
                _ => {
                    last = frame;
                    continue;
                }
            };
            assert_eq!(last, Value::Null, "output after the end");
            let data = frame["data"].as_str().expect("data");
            streams[at].extend(STANDARD.decode(data).expect("base64"));
        }
        let [stdout, stderr] = streams.map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        (stdout, stderr, last)
    }
}

/// Puts a script where a command can be: one path without arguments.
async fn script(service: &Service, id: &str, text: &str) -> String {
    let path = "/tmp/command";
    let body = STANDARD.encode(format!("#!/bin/sh\n{text}\n"));
    let stage = format!("echo {body} | base64 -d > {path} && chmod 755 {path}");
    let staged = service.exec(id, &stage).await.expect(200);
    assert_eq!(staged["exitCode"], 0, "{staged}");
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_streamed_and_its_code_comes_last() {
    let service = Service::start().await;
    let id = service.create().await;
    let path = script(&service, &id, "echo $COLOUR; echo bad >&2; exit 7").await;
    let mut socket = open(&service, &id).await;
    socket.start(&path, false).await;
    let (stdout, stderr, last) = socket.rest().await;
    assert_eq!((&*stdout, &*stderr), ("green\n", "bad\n"));
    assert_eq!(last, json!({"type": "exit_code", "exitCode": 7}));
    assert_eq!(service.emulator.executions(&path), 1 + 1, "staged and run");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_the_command_while_it_runs() {
    let service = Service::start().await;
    let id = service.create().await;
    let path = script(&service, &id, "read a; echo got $a; read b; echo then $b").await;
    let mut socket = open(&service, &id).await;
    socket.start(&path, true).await;
    let size = json!({"height": 1, "width": 1});
    socket.send(json!({"type": "resize", "resize": size})).await;
    socket.stdin("one\n").await;
    let first = socket.next().await.expect("a frame");
    assert_eq!(first["data"], STANDARD.encode("got one\n"));
    socket.stdin("two\n").await;
    let (stdout, _, last) = socket.rest().await;
    assert_eq!((&*stdout, &last["exitCode"]), ("then two\n", &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_output_than_fits_in_any_buffer_comes_whole() {
    let service = Service::start().await;
    let id = service.create().await;
    let path = script(&service, &id, "head -c 2000000 /dev/zero | tr '\\0' x").await;
    let mut socket = open(&service, &id).await;
    socket.start(&path, false).await;
    let (stdout, _, last) = socket.rest().await;
    assert_eq!((stdout.len(), &last["exitCode"]), (2_000_000, &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_path_of_a_program_is_an_error_and_not_run() {
    let service = Service::start().await;
    let id = service.create().await;
    for command in ["/bin/echo hello", "sh", "", "/no/such", "/etc/passwd"] {
        let mut socket = open(&service, &id).await;
        socket.start(command, false).await;
        let (stdout, _, last) = socket.rest().await;
        assert_eq!(
            (&*stdout, &last["type"]),
            ("", &json!("error")),
            "{command:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_make_no_sense_are_errors() {
    let service = Service::start().await;
    let id = service.create().await;
    for frame in [
        json!({"type": "stdin", "data": ""}),
        json!({"type": "kill"}),
        json!({"type": "resize", "height": 1, "width": 1}),
        json!({"type": "start", "start": {}}),
    ] {
        let mut socket = open(&service, &id).await;
        socket.send(frame.clone()).await;
        assert_eq!(socket.rest().await.2["type"], "error", "{frame}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_version_takes_frames_of_so_many_characters_and_no_longer_ones() {
    let query = "?api-version=2026-09-01-preview";
    let audience = "https://management.azuredevcompute.io";
    let data = |length: usize| json!({"type": "stdin", "data": "A".repeat(length)});
    // The rest of a frame is its other words.
    let words = data(0).to_string().len();
    for (length, large_frames, is_taken) in [
        (16_384, false, true),
        (16_392, false, false),
        (16_392, true, true),
    ] {
        let service = Service::with(|options| options.large_frames = large_frames).await;
        let id = service.create().await;
        let token = service.emulator.token_for(audience, 3600);
        let socket = connect_in(&service, &id, Some(&token), query).await;
        let mut socket = socket.expect("a socket");
        socket.start("/bin/cat", true).await;
        let padded = length - words;
        socket.send(data(padded - padded % 4)).await;
        socket.send(json!({"type": "close_stdin"})).await;
        let (_, _, last) = socket.rest().await;
        let taken = last["type"] == "exit_code";
        assert_eq!(taken, is_taken, "{length} {large_frames}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_needs_a_token_a_sandbox_and_a_running_one() {
    let service = Service::start().await;
    let id = service.create().await;
    let token = service.emulator.token();
    let refused = async |id: &str, token: Option<&str>| match connect(&service, id, token).await {
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("{:?}", other.map(|_| "it was let in")),
    };
    assert_eq!(refused(&id, None).await, 401);
    assert_eq!(refused("not-a-guid", Some(&token)).await, 400);
    let unknown = "00000000-0000-0000-0000-000000000000";
    assert_eq!(refused(unknown, Some(&token)).await, 404);
    service.post(&id, "stop", json!({})).await.expect(200);
    assert_eq!(refused(&id, Some(&token)).await, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_does_not_end_the_command() {
    let service = Service::start().await;
    let id = service.create().await;
    let waits = "echo up; until [ -e /tmp/go ]; do sleep 0.1; done; echo more; touch /tmp/done";
    let path = script(&service, &id, waits).await;
    service
        .emulator
        .inject(Fault::new("/exec/stream", Action::CutStream(1)));
    let mut cut = open(&service, &id).await;
    cut.start(&path, false).await;
    assert_eq!(cut.next().await.expect("a frame")["type"], "stdout");
    service.exec(&id, "touch /tmp/go").await.expect(200);
    assert_eq!(cut.next().await, None, "it breaks off");
    let seen = "until [ -e /tmp/done ]; do sleep 0.1; done";
    assert_eq!(service.exec(&id, seen).await.expect(200)["exitCode"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_deleted_ends_the_stream() {
    let service = Service::start().await;
    let id = service.create().await;
    let path = script(&service, &id, "echo up; sleep 600").await;
    let mut socket = open(&service, &id).await;
    socket.start(&path, false).await;
    socket.next().await.expect("a frame");
    service
        .call("DELETE", &format!("sandboxes/{id}"), Value::Null)
        .await
        .expect(200);
    assert_eq!(socket.rest().await.2["type"], "error");
}
