//! An HTTP preview of a port: who gets in, what the guest sees, and that upgrades pass.
#![cfg(all(feature = "local", feature = "preview", target_os = "linux"))]
#![allow(clippy::expect_used)]

use std::sync::Arc;

use sandbox::{
    Command, ErrorKind, Job, PortWaitOptions, Preview, Sandbox, SandboxExt, SandboxSpec,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Answers with the head of the request; after an upgrade with each line in capitals.
const SERVER: &str = r#"use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8000, Listen => 64,
  ReuseAddr => 1) or die;
while (my $c = $s->accept) {
  my $h = '';
  while (my $l = <$c>) { last if $l eq "\r\n"; $h .= $l }
  next unless length $h;
  if ($h =~ /^upgrade:/mi) {
    print $c "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    while (my $l = <$c>) { print $c uc $l }
  } else {
    print $c "HTTP/1.1 200 OK\r\nSet-Cookie: app=1\r\nSet-Cookie: sandbox-preview-0=taken\r\n";
    print $c "Connection: x-gone\r\nX-Gone: 1\r\nContent-Length: " . length($h) . "\r\n\r\n" . $h;
  }
  close $c;
}"#;

async fn serving() -> (Arc<dyn Sandbox>, Job, Preview) {
    let provider = sandbox::connect("local:").await.expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let job = sandbox
        .start("server", Command::new("perl").arg("-e").arg(SERVER))
        .await
        .expect("started");
    let options = PortWaitOptions::new().server(job.wait());
    sandbox.wait_for_port(8000, options).await.expect("listens");
    let preview = sandbox::preview(sandbox.clone(), 8000, 0)
        .await
        .expect("a preview");
    (sandbox, job, preview)
}

fn token(preview: &Preview) -> String {
    String::from_utf8(preview.token().expose().to_vec()).expect("a text")
}

/// Sends a request with these headers, and gives all of the answer.
async fn ask(preview: &Preview, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(preview.address())
        .await
        .expect("connected");
    let host = preview.address();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

#[tokio::test]
async fn only_a_request_with_the_token_reaches_the_guest_which_never_sees_it() {
    let (sandbox, job, preview) = serving().await;
    let token = token(&preview);
    let wrong = "0".repeat(token.len());
    for (path, headers) in [
        ("/", String::new()),
        ("/", format!("x-sandbox-token: {wrong}\r\n")),
        ("/", format!("x-sandbox-token: {}\r\n", &token[1..])),
        ("/", format!("Cookie: sandbox-preview-0={token}\r\n")),
        ("/?sandbox-token=", String::new()),
        ("/?token=x&sandbox-token=y", String::new()),
        ("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n".into()),
    ] {
        let answer = ask(&preview, path, &headers).await;
        assert!(
            answer.starts_with("HTTP/1.1 401 "),
            "{path} {headers}: {answer}"
        );
        assert!(!answer.contains("GET /"), "the guest was asked: {answer}");
    }
    let header = format!("x-sandbox-token: {token}\r\nCookie: mine=1; sandbox-preview-0=other\r\n");
    let answer = ask(&preview, "/a?b=c", &header).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = answer.to_lowercase();
    assert!(
        seen.contains("get /a?b=c http/1.1") && seen.contains("host: localhost:8000"),
        "{answer}"
    );
    assert!(seen.contains("cookie: mine=1\r\n"), "{answer}");
    assert!(
        seen.contains("set-cookie: app=1") && !seen.contains("taken"),
        "{answer}"
    );
    assert!(!seen.contains("x-gone"), "{answer}");
    assert!(
        !answer.contains(&token) && !seen.contains("sandbox-preview"),
        "{answer}"
    );
    // Where a program, or a page that had the link, repeats it.
    let repeated = format!("{header}Referer: http://x/?sandbox-token={token}\r\n");
    let answer = ask(
        &preview,
        &format!("/a?sandbox-token={token}&b=c"),
        &repeated,
    )
    .await;
    assert!(answer.contains("GET /a?b=c HTTP/1.1"), "{answer}");
    assert!(!answer.contains(&token), "{answer}");
    // A server that has ended.
    job.stop().await.expect("stopped");
    let answer = ask(&preview, "/", &header).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("nothing listens"),
        "{answer}"
    );
    sandbox.close().await.expect("closed");
    let answer = ask(&preview, "/", &header).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn the_link_gives_a_browser_its_cookie_and_takes_the_token_out_of_the_address() {
    let (sandbox, _job, preview) = serving().await;
    let token = token(&preview);
    assert_eq!(
        preview.url(),
        format!("http://{}/?sandbox-token={token}", preview.address())
    );
    let answer = ask(
        &preview,
        &format!("//evil.example/x?a=1&sandbox-token={token}&b=2"),
        "",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    assert!(
        answer.contains("location: /evil.example/x?a=1&b=2\r\n"),
        "{answer}"
    );
    let cookie = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .expect("a cookie");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("a pair");
    let answer = ask(&preview, "/", &format!("Cookie: {pair}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        !answer.to_lowercase().contains("cookie: sandbox"),
        "{answer}"
    );
    // Opened again: the guest's page must not find the token in its address.
    let again = format!("/x?sandbox-token={token}");
    let answer = ask(&preview, &again, &format!("Cookie: {pair}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    assert!(answer.contains("location: /x\r\n"), "{answer}");
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn an_upgrade_passes_and_ends_with_the_guard() {
    let (sandbox, _job, preview) = serving().await;
    let stream = TcpStream::connect(preview.address())
        .await
        .expect("connected");
    let mut stream = BufReader::new(stream);
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         x-sandbox-token: {}\r\n\r\n",
        token(&preview)
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(
            stream.read_line(&mut head).await.expect("read") > 0,
            "{head}"
        );
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for word in ["one", "two"] {
        stream
            .write_all(format!("{word}\n").as_bytes())
            .await
            .expect("written");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("read");
        assert_eq!(line, format!("{}\n", word.to_uppercase()));
    }
    let address = preview.address();
    drop(preview);
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn a_port_that_is_none_is_refused() {
    let provider = sandbox::connect("local:").await.expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let error = sandbox::preview(sandbox.clone(), 0, 0)
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    sandbox.close().await.expect("closed");
}
