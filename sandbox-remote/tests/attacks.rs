//! Attacks on the server, by hand-made requests: what they must not get, and that the server serves
//! on afterwards.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use sandbox_core::{
    Capabilities, Capability, ErrorKind, Execution, Labels, Mount, Network, Operation, Provider,
    Result, Sandbox, SandboxExt as _, SandboxSpec, SandboxStatus, WatchOptions, async_trait,
};
use sandbox_local::{LocalConfig, LocalProvider, PlainConfig, PlainProvider};
use sandbox_remote::{
    Listener, RemoteConfig, RemoteProvider, SameUser, Server, ServerConfig, Serving, TokenAccess,
};
use sandbox_testkit::model::{Fault, ModelProvider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn serve(provider: Arc<dyn Provider>, config: ServerConfig) -> (Serving, SocketAddr) {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let server = Server::new(provider, access).config(config);
    let serving = server.start(listener).unwrap();
    let address = serving.uri().rsplit('/').next().unwrap().parse().unwrap();
    (serving, address)
}

fn model(config: ServerConfig) -> (Serving, SocketAddr) {
    serve(Arc::new(ModelProvider::new()), config)
}

async fn client(address: SocketAddr) -> RemoteProvider {
    let config = RemoteConfig::new(&format!("http://{address}")).unwrap();
    RemoteProvider::connect(config.secret(TOKEN)).await.unwrap()
}

/// Sends bytes and reads what comes until the connection ends.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A reset ends it too.
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server keeps the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\
         {headers}\r\n{body}"
    )
    .into_bytes()
}

fn mine() -> String {
    format!("authorization: Bearer {TOKEN}\r\n")
}

fn named(name: &str) -> String {
    format!("{}sandbox-request-id: {name}-0123456789abcdef\r\n", mine())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// Waits until something holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_socket_is_taken_over_from_an_ended_server_alone_and_removed_by_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    // Another program is there, which can't be connected to in this way.
    let other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    assert!(Listener::unix(&path).is_err());
    assert!(path.exists(), "another program's socket was removed");
    std::fs::remove_file(&path).unwrap();
    drop(other);
    // The control: one that refuses was left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = Listener::unix(&path).unwrap();
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    std::fs::write(&path, "another's").unwrap();
    drop(listener);
    assert!(path.exists(), "another program's file was removed");
    std::fs::remove_file(&path).unwrap();
    drop(Listener::unix(&path).unwrap());
    assert!(!path.exists(), "the server's own was left");
}

#[test]
fn outside_of_a_runtime_a_server_does_not_start_and_nothing_panics() {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let server = Server::new(Arc::new(ModelProvider::new()), access);
    let kind = server.start(listener).err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::InvalidInput));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_every_route_says_the_same() {
    let (_serving, address) = model(ServerConfig::new());
    let document = raw(address, &request("GET /v1/openapi.json", &mine(), "")).await;
    let (_, document) = document.split_once("\r\n\r\n").unwrap();
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25);
    let mut lines = vec![
        "GET /".to_owned(),
        "GET /v1/nothing".into(),
        "PUT /v1/info".into(),
    ];
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace(['{', '}'], "x");
            lines.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    let strangers = [
        String::new(),
        "authorization: Bearer another-tenants-token-0123456789\r\n".into(),
        format!("authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]),
        format!("authorization: Bearer {TOKEN}x\r\n"),
        format!("authorization: Basic {TOKEN}\r\n"),
        format!("authorization: {TOKEN}\r\n"),
        "authorization: Bearer \r\n".into(),
    ];
    let mut said = std::collections::BTreeSet::new();
    for line in &lines {
        for stranger in strangers.iter().take(2) {
            let answer = raw(address, &request(line, stranger, "{}")).await;
            if line == "GET /v1/health" {
                assert_eq!(status(&answer), "200", "{line}");
                continue;
            }
            assert_eq!(status(&answer), "401", "{line}: {answer}");
            assert!(!answer.contains(TOKEN));
            said.insert(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
        }
    }
    assert_eq!(said.len(), 1, "the routes can be told apart: {said:?}");
    for stranger in strangers {
        let answer = raw(address, &request("GET /v1/info", &stranger, "")).await;
        assert_eq!(status(&answer), "401", "{stranger}");
    }
    // The control: the owner gets in, by either header.
    for owner in [mine(), format!("sandbox-authorization: bearer {TOKEN}\r\n")] {
        let answer = raw(address, &request("GET /v1/info", &owner, "")).await;
        assert_eq!(status(&answer), "200", "{answer}");
    }
    // The server's own header counts before the one that a proxy fills.
    let both = format!(
        "{}sandbox-authorization: Bearer nonsense-nonsense\r\n",
        mine()
    );
    let answer = raw(address, &request("GET /v1/info", &both, "")).await;
    assert_eq!(status(&answer), "401");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_document_is_there_and_its_schemas_are() {
    let (_serving, address) = model(ServerConfig::new());
    let document = raw(address, &request("GET /v1/openapi.json", &mine(), "")).await;
    let (_, text) = document.split_once("\r\n\r\n").unwrap();
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "no schema {name}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id), "{path}: an operationId twice");
            if path.ends_with("/stdout") || path.ends_with("/stderr") {
                continue;
            }
            let path = path.replace(['{', '}'], "x");
            let line = format!("{} {path}", method.to_uppercase());
            let answer = raw(address, &request(&line, &mine(), "{}")).await;
            assert!(
                !matches!(status(&answer), "405" | "none"),
                "{line}: {answer}"
            );
            assert!(
                !answer.contains("there is no such route"),
                "{line}: {answer}"
            );
        }
    }
    let answer = raw(address, &request("GET /v1/nothing", &mine(), "")).await;
    assert_eq!(status(&answer), "404");
    let answer = raw(address, &request("DELETE /v1/info", &mine(), "")).await;
    assert_eq!(status(&answer), "405");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_and_bombs_of_headers_are_refused() {
    let (_serving, address) = model(ServerConfig::new().max_body(10_000));
    let huge = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n{}\r\n",
        named("huge")
    );
    assert_eq!(status(&raw(address, huge.as_bytes()).await), "413");
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let chunked = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n{}\r\n{chunk}",
        named("chunked")
    );
    assert_eq!(status(&raw(address, chunked.as_bytes()).await), "413");
    let many = "x-a: b\r\n".repeat(200) + &mine();
    let answer = raw(address, &request("GET /v1/info", &many, "")).await;
    assert_eq!(status(&answer), "431", "{answer}");
    let long = format!("x-a: {}\r\n{}", "b".repeat(200_000), mine());
    let answer = raw(address, &request("GET /v1/info", &long, "")).await;
    assert!(matches!(status(&answer), "431" | "none"), "{answer}");
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9\r\n\r\n",
        b"\x16\x03\x01",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await;
    }
    client(address)
        .await
        .create(SandboxSpec::new())
        .await
        .unwrap();
}

/// Whether the kernel still has both ends of this connection open.
fn established(stream: &TcpStream) -> bool {
    let ports = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    let [server, client] = [ports.0, ports.1].map(|end| format!(":{:04X}", end.port()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns[1].ends_with(&server) && columns[2].ends_with(&client) && columns[3] == "01"
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_lose_their_connection_and_hold_no_other_up() {
    let config = ServerConfig::new()
        .max_connections(4)
        .header_time(Duration::from_millis(300))
        .idle_time(Duration::from_millis(300));
    let (_serving, address, own) = of_one(Arc::new(ModelProvider::new()), config).await;
    own.write("big", vec![7; 30 << 20]).await.unwrap();
    let id = own.info().id;
    // Heads that never end, on more connections than there may be.
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = b"GET /v1/info HTTP/1.1\r\nx-a: ";
        stream.write_all(head).await.unwrap();
        slow.push(stream);
    }
    // Bodies that never end.
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/sandboxes HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n{}\r\n{{",
            named("slow")
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // On a busy machine a sound client may be too slow too: it asks again.
    until("another client is served", || async {
        let answer = raw(address, &request("GET /v1/info", &mine(), "")).await;
        status(&answer) == "200"
    })
    .await;
    for mut stream in slow {
        read_all(&mut stream).await;
    }
    // A reader that takes nothing of 30 MiB.
    let body = r#"{"path":"big","options":{"limit":99999999}}"#;
    let line = format!("POST /v1/sandboxes/{id}/read-file");
    let read = request(&line, &mine(), body);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&read).await.unwrap();
    until("the server gives up", || async { !established(&stream) }).await;
    let answer = read_all(&mut stream).await;
    assert!(
        answer.len() < 30 << 20,
        "all of it was kept for a reader that took nothing"
    );
    // The control: the same for a reader that reads.
    until("a reader that reads has all of it", || async {
        let answer = raw(address, &read).await;
        status(&answer) == "200" && answer.len() > 30 << 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_are_served_or_refused_and_what_is_refused_did_not_run() {
    let model = Arc::new(ModelProvider::new());
    let config = ServerConfig::new().max_commands(8).max_connections(64);
    let (_serving, address) = serve(Arc::clone(&model) as _, config);
    let provider = client(address).await;
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let sandbox = Arc::clone(&sandbox);
        calls.spawn(async move {
            let ran = sandbox.sh(format!("echo x > ran{number}")).await;
            (number, ran)
        });
    }
    let calls = calls.join_all().await;
    assert_eq!(calls.len(), 1000);
    // Past the server, which has no part in the answer.
    let behind = model.attach(&sandbox.info().id).await.unwrap();
    let mut served = 0;
    for (number, ran) in calls {
        let there = behind.exists(format!("ran{number}")).await.unwrap();
        match ran {
            Ok(_) => {
                served += 1;
                assert!(there);
            }
            // On a busy machine a client may not even get its connection in time.
            Err(error) => {
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable),
                    "{error:?}"
                );
                let known = error.execution() == Some(Execution::NotStarted);
                assert!(known || kind == ErrorKind::Unavailable, "{error:?}");
                assert!(!(known && there), "what is said not to have started ran");
            }
        }
    }
    assert!(served >= 8, "{served} of 1000 were served");
    sandbox.sh("true").await.unwrap();
}

/// A command that runs until it is ended, and says which process it is.
const ENDLESS: &str = "echo $$ > new && mv new pid; while :; do sleep 1; done";

/// Waits until that command runs; gives where the kernel shows its process.
async fn process(sandbox: &dyn Sandbox) -> PathBuf {
    until("the command runs", || async {
        sandbox.exists("pid").await.is_ok_and(|there| there)
    })
    .await;
    let pid = sandbox.read_to_string("pid").await.unwrap();
    Path::new("/proc").join(pid.trim())
}

/// A server of one sandbox, which is given beside it: it sees what becomes of a command without
/// being a client.
async fn of_one(
    provider: Arc<dyn Provider>,
    config: ServerConfig,
) -> (Serving, SocketAddr, Arc<dyn Sandbox>) {
    let spec = match provider.capabilities().has(Capability::NetworkOff) {
        true => SandboxSpec::new(),
        false => SandboxSpec::new().network(Network::Open),
    };
    let own = provider.create(spec).await.unwrap();
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let server = Server::new(provider, access).sandbox(Arc::clone(&own));
    let serving = server.config(config).start(listener).unwrap();
    let address = serving.uri().rsplit('/').next().unwrap().parse().unwrap();
    (serving, address, own)
}

/// `Duration::MAX` is what callers write for none.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_times_have_no_end_serves() {
    let config = ServerConfig::new()
        .header_time(Duration::MAX)
        .idle_time(Duration::MAX)
        .grace(Duration::MAX)
        .idle(Duration::MAX);
    let (_serving, address, own) = of_one(Arc::new(ModelProvider::new()), config).await;
    // More than the connection holds, so that the server waits for its client.
    own.write("f", vec![7; 30 << 20]).await.unwrap();
    let provider = client(address).await;
    let sandbox = provider.attach(&own.info().id).await.unwrap();
    assert_eq!(sandbox.read("f").await.unwrap().len(), 30 << 20);
    sandbox.write("g", vec![8; 1 << 20]).await.unwrap();
    assert!(sandbox.sh("true").await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_that_vanishes_left_running_is_ended() {
    let plain = || Arc::new(PlainProvider::new(PlainConfig::new()).unwrap());
    let short = Duration::from_secs(2);
    let vanishes = async |what: &str| {
        let (_serving, address, own) = of_one(plain(), ServerConfig::new().grace(short)).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let line = format!("POST /v1/sandboxes/{}/{what}", own.info().id);
        let name = named(&format!("vanish-{what}"));
        let body = serde_json::json!({"command": {"argv": ["sh", "-c", ENDLESS]}}).to_string();
        let body = request(&line, &name, &body);
        stream.write_all(&body).await.unwrap();
        let process = process(&*own).await;
        // No goodbye.
        drop(stream);
        until("the command is ended", || async { !process.exists() }).await;
        own.close().await.unwrap();
    };
    // Side by side: both wait for the grace.
    tokio::join!(vanishes("exec"), vanishes("spawn"));
    // The control: a client that is there keeps it, for longer than the grace. On a busy machine it
    // may be away for as long; a longer grace it uses all the same.
    let mut kept = false;
    for times in 1..=5 {
        let grace = short * times;
        let (_serving, address, own) = of_one(plain(), ServerConfig::new().grace(grace)).await;
        let sandbox = client(address).await.own_sandbox().await.unwrap();
        let command = sandbox_core::Command::shell(ENDLESS);
        if let Ok(running) = sandbox.spawn(command).await {
            let process = process(&*own).await;
            tokio::time::sleep(grace * 2).await;
            kept = process.exists();
            drop(running);
        }
        own.close().await.unwrap();
        if kept {
            break;
        }
    }
    assert!(kept, "a client that was there lost its command each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_offset_a_gap_and_names_that_are_none_are_refused() {
    let (_serving, address) = model(ServerConfig::new().grace(PATIENCE));
    let provider = client(address).await;
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    let id = sandbox.info().id;
    let name = named("process");
    let body = r#"{"command":{"argv":["cat"]},"stdin_piped":true}"#;
    let line = format!("POST /v1/sandboxes/{id}/spawn");
    let answer = raw(address, &request(&line, &name, body)).await;
    assert_eq!(status(&answer), "200", "{answer}");
    let process = "process-0123456789abcdef";
    let ask = |line: String| async move { raw(address, &request(&line, &mine(), "abc")).await };
    for offset in ["1", "99999999999999999999", "-1", "x", ""] {
        let answer = ask(format!("GET /v1/processes/{process}/stdout?from={offset}")).await;
        assert_eq!(status(&answer), "400", "{offset}: {answer}");
    }
    let answer = ask(format!("POST /v1/processes/{process}/stdin?offset=5")).await;
    assert_eq!(status(&answer), "400", "{answer}");
    let answer = ask(format!(
        "POST /v1/processes/{process}/stdin?offset=18446744073709551615"
    ));
    assert_eq!(status(&answer.await), "400");
    // The same bytes twice are taken once.
    for _ in 0..2 {
        let answer = ask(format!("POST /v1/processes/{process}/stdin?offset=0")).await;
        assert!(answer.contains(r#""offset":3"#), "{answer}");
    }
    ask(format!("POST /v1/processes/{process}/stdin?offset=3&end=1")).await;
    let answer = ask(format!("GET /v1/processes/{process}/stdout?from=0")).await;
    assert_eq!(answer.matches("abc").count(), 2, "{answer}");
    // Confirmed bytes are forgotten.
    ask(format!("GET /v1/processes/{process}/stdout?from=6")).await;
    let answer = ask(format!("GET /v1/processes/{process}/stdout?from=0")).await;
    assert_eq!(status(&answer), "400", "{answer}");
    // Names.
    for wrong in ["", "short", "0123456789abcdef/../x", "0123456789abcdefü"] {
        let header = format!("{}sandbox-request-id: {wrong}\r\n", mine());
        let answer = raw(address, &request(&line, &header, body)).await;
        assert_eq!(status(&answer), "400", "{wrong:?}: {answer}");
    }
    let line = format!("POST /v1/sandboxes/{id}/remove");
    let answer = raw(address, &request(&line, &name, r#"{"path":"x"}"#)).await;
    assert_eq!(status(&answer), "400", "a name for another call: {answer}");
    // Paths that are none of ours.
    for strange in ["..%2f..%2fetc", "%00", "a%0d%0ab", "%ff"] {
        let line = format!("POST /v1/sandboxes/{strange}/metadata");
        let answer = raw(address, &request(&line, &mine(), r#"{"path":"/"}"#)).await;
        assert!(
            matches!(status(&answer), "410" | "400" | "404"),
            "{strange}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_before_it_came_is_not_run() {
    let (_serving, address) = model(ServerConfig::new());
    let provider = client(address).await;
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    let id = sandbox.info().id;
    let call = "overtaken-0123456789abcdef";
    raw(
        address,
        &request(&format!("DELETE /v1/calls/{call}"), &mine(), ""),
    )
    .await;
    let body = r#"{"command":{"argv":["touch","ran"]}}"#;
    let line = format!("POST /v1/sandboxes/{id}/exec");
    let answer = raw(address, &request(&line, &named("overtaken"), body)).await;
    assert_ne!(status(&answer), "200", "{answer}");
    assert!(!sandbox.exists("ran").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_leave_nothing_outside() {
    let plain = Arc::new(PlainProvider::new(PlainConfig::new()).unwrap());
    let (_serving, address) = serve(plain, ServerConfig::new().max_archive(10 << 20));
    let provider = client(address).await;
    let spec = SandboxSpec::new().network(Network::Open);
    let sandbox = provider.create(spec).await.unwrap();
    let id = sandbox.info().id;
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let entry = |name: &str, kind: tar::EntryType, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let archives = [
        entry("../out", Regular, "", b"x"),
        entry(&format!("{target}/abs"), Regular, "", b"x"),
        [
            entry("way", Symlink, target, b""),
            entry("way/through", Regular, "", b"x"),
        ]
        .concat(),
        entry("hard", Link, "../../etc/passwd", b""),
        entry("device", Char, "", b""),
        vec![0xff; 4096],
        entry("cut", Regular, "", b"x")[..512].to_vec(),
    ];
    for (number, archive) in archives.into_iter().enumerate() {
        let head = format!(r#"{{"to":"in{number}"}}"#);
        let mut body = (head.len() as u32).to_be_bytes().to_vec();
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&archive);
        let line = format!("POST /v1/sandboxes/{id}/import");
        let mut bytes = format!(
            "{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n{}\r\n",
            body.len(),
            named(&format!("archive{number}"))
        )
        .into_bytes();
        bytes.extend_from_slice(&body);
        let answer = raw(address, &bytes).await;
        // The device is skipped; everything else is refused.
        assert_eq!(status(&answer) == "200", number == 4, "{number}: {answer}");
        assert!(
            !answer.contains("sandbox-remote-"),
            "a path of the server: {answer}"
        );
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    // Beyond the limit.
    let from = tempfile::tempdir().unwrap();
    std::fs::write(from.path().join("big"), vec![1; 11 << 20]).unwrap();
    let error = sandbox.import(from.path(), "big").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
    sandbox.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_the_servers_host_are_not_for_clients() {
    let plain = Arc::new(PlainProvider::new(PlainConfig::new()).unwrap());
    let (_serving, address) = serve(plain, ServerConfig::new());
    // A client that does not ask what there is.
    let body = r#"{"spec":{"mounts":[{"host":"/etc","guest":"/m","access":"read-only"}],"network":"open"}}"#;
    let answer = raw(
        address,
        &request("POST /v1/sandboxes", &named("mounts"), body),
    )
    .await;
    assert_eq!(status(&answer), "501", "{answer}");
    let body = r#"{"spec":{"source":{"root-dir":"/"},"network":"open"}}"#;
    let answer = raw(
        address,
        &request("POST /v1/sandboxes", &named("rooted"), body),
    )
    .await;
    assert_eq!(status(&answer), "501", "{answer}");
    let provider = client(address).await;
    let spec = SandboxSpec::new().mount(Mount::read_only("/etc", "/m"));
    let error = provider.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    // An image in files of the host, of a backend that has images.
    let local = Arc::new(LocalProvider::new(LocalConfig::new()).unwrap());
    let (_serving, address) = serve(local, ServerConfig::new());
    let provider = client(address).await;
    for image in ["oci:/etc", "docker-archive:/etc/shadow", "oci-archive:x"] {
        let error = provider.create(SandboxSpec::new().image(image)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().contains("host's files"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_nowhere_to_be_read() {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let server = Server::new(Arc::new(ModelProvider::new()), access);
    let mut shown = format!("{server:?}");
    let serving = server.start(listener).unwrap();
    let address = serving.uri().trim_start_matches("remote:").to_owned();
    let config = RemoteConfig::new(&address).unwrap().secret(TOKEN);
    shown += &format!("{serving:?} {config:?}");
    let provider = RemoteProvider::connect(config).await.unwrap();
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    shown += &format!("{provider:?} {sandbox:?}");
    let wrong = RemoteConfig::new(&address)
        .unwrap()
        .secret("another-token-0123456789");
    let error = RemoteProvider::connect(wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    shown += &format!("{error:?}");
    for token in [TOKEN, "another-token"] {
        assert!(!shown.contains(token), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_its_users_alone_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let start = || {
        let listener = Listener::unix(&path)?;
        Server::new(Arc::new(ModelProvider::new()), Arc::new(SameUser)).start(listener)
    };
    let serving = start().unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(start().unwrap_err().kind(), ErrorKind::AlreadyExists);
    let config = RemoteConfig::new(&format!("unix:{}", path.display())).unwrap();
    let provider = RemoteProvider::connect(config).await.unwrap();
    provider.create(SandboxSpec::new()).await.unwrap();
    serving.close().await;
    assert!(!path.exists());
    // At once: the program may end then.
    for _ in 0..50 {
        start().unwrap().close().await;
        assert!(!path.exists());
    }
    // One that was left is taken over; a file is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let serving = start().unwrap();
    drop(serving);
    until("the socket is gone", || async { !path.exists() }).await;
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(start().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    // Over TCP there is no such user.
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let tcp = Server::new(Arc::new(ModelProvider::new()), Arc::new(SameUser));
    let tcp = tcp.start(listener).unwrap();
    let address = tcp.uri().rsplit('/').next().unwrap().parse().unwrap();
    let answer = raw(address, &request("GET /v1/info", &mine(), "")).await;
    assert_eq!(status(&answer), "401");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_nothing_uses_is_closed_and_the_servers_own_is_not() {
    let model = ModelProvider::new();
    let own = model.create(SandboxSpec::new()).await.unwrap();
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let serving = Server::new(Arc::new(model), access)
        .sandbox(Arc::clone(&own))
        .config(ServerConfig::new().idle(Duration::from_secs(1)))
        .start(listener)
        .unwrap();
    let address = serving.uri().trim_start_matches("remote:").to_owned();
    let config = RemoteConfig::new(&address)
        .unwrap()
        .secret(TOKEN)
        .keep(true);
    let provider = RemoteProvider::connect(config).await.unwrap();
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    let all = Labels::new();
    until("it is closed", || async {
        provider.list(&all).await.unwrap().len() == 1
    })
    .await;
    let error = sandbox.read("f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    let found = provider.own_sandbox().await.unwrap();
    assert_eq!(found.info().id, own.info().id);
    found.write("f", "x").await.unwrap();
    assert_eq!(own.read("f").await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_close_hangs_holds_up_the_closing_of_no_other() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Close, [Fault::Hang])
        .build();
    let config = ServerConfig::new().idle(Duration::from_millis(100));
    let (_serving, address) = serve(Arc::new(model.clone()), config);
    let provider = client(address).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(provider.create(SandboxSpec::new()).await.unwrap());
    }
    until("all but one are closed", || async {
        model.list(&Labels::new()).await.unwrap().len() == 1
    })
    .await;
}

/// A provider whose `create` is at work, and does not wait for anything, until it is let go on: what
/// runs it can't be ended meanwhile.
#[derive(Debug)]
struct AtWork {
    model: ModelProvider,
    has_begun: Notify,
    may_end: Barrier,
}

#[async_trait]
impl Provider for AtWork {
    fn backend(&self) -> &str {
        "at-work"
    }

    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        self.has_begun.notify_one();
        tokio::task::block_in_place(|| self.may_end.wait());
        self.model.create(spec).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_leaves_no_sandbox_that_was_being_made() {
    let at_work = Arc::new(AtWork {
        model: ModelProvider::new(),
        has_begun: Notify::new(),
        may_end: Barrier::new(2),
    });
    let (serving, address) = serve(Arc::clone(&at_work) as _, ServerConfig::new());
    let provider = client(address).await;
    let creating = tokio::spawn(async move { provider.create(SandboxSpec::new()).await });
    at_work.has_begun.notified().await;
    let mut closing = std::pin::pin!(serving.close());
    // It has given the call up, and waits for what can't be ended yet.
    let waits = tokio::time::timeout(Duration::from_millis(200), &mut closing).await;
    let early = waits.is_ok();
    tokio::task::block_in_place(|| at_work.may_end.wait());
    if !early {
        closing.await;
    }
    assert!(!early, "a sandbox was made after the server's end");
    let left = at_work.model.list(&Labels::new()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    creating.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_takes_a_place_until_it_is_dropped_and_its_events_are_bounded() {
    let (_serving, address) = model(ServerConfig::new().max_commands(1).grace(2 * PATIENCE));
    let client = client(address).await;
    let sandbox = client.create(SandboxSpec::new()).await.unwrap();
    let options = WatchOptions::new().events(usize::MAX);
    let unbounded = sandbox.watch(&".".into(), options).await.unwrap_err();
    assert_eq!(unbounded.kind(), ErrorKind::LimitExceeded);
    let watch = sandbox.watch_dir(".").await.unwrap();
    let another = sandbox.watch_dir(".").await.unwrap_err();
    assert_eq!(another.kind(), ErrorKind::RateLimited, "{another:?}");
    drop(watch);
    let free = async || sandbox.watch_dir(".").await.is_ok();
    until("the place of a dropped watch is free", free).await;
    sandbox.close().await.unwrap();
}

/// A watch is no use of its sandbox: this one is closed for want of use, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_keeps_no_sandbox_of_a_server() {
    let config = ServerConfig::new().idle(Duration::from_secs(3));
    let (_serving, address) = model(config);
    let client = client(address).await;
    let sandbox = client.create(SandboxSpec::new()).await.unwrap();
    let mut watch = sandbox.watch_dir(".").await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, watch.next()).await;
    let ended = ended.expect("the watch kept its sandbox").unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Closed, "{ended:?}");
}

/// Status of each sandbox of the provider behind the server.
async fn its_status(provider: &ModelProvider) -> Vec<SandboxStatus> {
    let found = provider.list(&Labels::new()).await.unwrap();
    found.iter().map(|info| info.status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_sandbox_is_let_go_of_with_the_last_handle_of_all_clients() {
    let behind = ModelProvider::new();
    let (_serving, address) = serve(Arc::new(behind.clone()), ServerConfig::new());
    let (first, second) = (client(address).await, client(address).await);
    let spec = SandboxSpec::new().lasting(true);
    let sandbox = first.create(spec).await.unwrap();
    sandbox.write("f", "x").await.unwrap();
    let id = sandbox.info().id;
    let other = second.attach(&id).await.unwrap();
    drop(sandbox);
    // It goes through after the one that tells of the first handle's end.
    let again = first.attach(&id).await.unwrap();
    drop(again);
    assert_eq!(other.read("f").await.unwrap(), "x");
    assert_eq!(its_status(&behind).await, [SandboxStatus::Open]);
    drop(other);
    let stopped = async || its_status(&behind).await == [SandboxStatus::Stopped];
    until("it is stopped with the last handle", stopped).await;
    let again = second.attach(&id).await.unwrap();
    assert_eq!(again.read("f").await.unwrap(), "x");
    again.close().await.unwrap();
    assert_eq!(its_status(&behind).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_sandbox_outlives_its_idle_time_and_its_server() {
    let behind = ModelProvider::new();
    let config = ServerConfig::new().idle(Duration::from_secs(3));
    let (serving, address) = serve(Arc::new(behind.clone()), config);
    let client = client(address).await;
    let sandbox = client.create(SandboxSpec::new().lasting(true)).await;
    let sandbox = sandbox.unwrap();
    let id = sandbox.info().id;
    // The control: one that does not last is gone after the same time.
    let short = client.create(SandboxSpec::new()).await.unwrap();
    let stopped = async || its_status(&behind).await == [SandboxStatus::Stopped];
    until("it is stopped for want of use", stopped).await;
    let error = sandbox.read("f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("attach")));
    drop((sandbox, short));
    let again = client.attach(&id).await.unwrap();
    again.write("f", "x").await.unwrap();
    serving.close().await;
    until("it is stopped with its server", stopped).await;
    let found = behind.attach(&id).await.unwrap();
    assert_eq!(found.read("f").await.unwrap(), "x");
}
