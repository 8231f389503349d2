//! Ports: a program that listens in a sandbox is reached by those whom its port lets in.

use std::time::Duration;

use reqwest::StatusCode;
use sandbox_aca::{AcaHandle, Access, NewPort};
use sandbox_core::{Command, ErrorKind, SandboxExt as _};

use super::sandbox;

/// Opens a port and gives where it is reached.
async fn open(handle: &AcaHandle, port: NewPort) -> String {
    let number = port.port;
    assert_eq!(handle.add_port(port).await.expect("a port").port, number);
    let url = handle.port_url(number, Duration::from_secs(120)).await;
    url.expect("a URL")
}

async fn get(url: &str, token: Option<&str>) -> (StatusCode, String) {
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_a_sandbox_is_reached_by_whom_the_port_lets_in() {
    let (emulator, provider, sandbox) = sandbox().await;
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    let large = "p".repeat(300_000);
    sandbox.write("page", "served").await.expect("a file");
    sandbox.write("large", large.clone()).await.expect("a file");
    let anybody = open(&handle, NewPort::new(8000).anonymous()).await;
    let (status, _) = get(&anybody, None).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "nobody listens yet");
    let server = Command::new("python3").args(["-m", "http.server", "8000"]);
    let server = sandbox.spawn(server).await.expect("a server");
    let page = format!("{anybody}page");
    let up = async {
        while get(&page, None).await.0 == StatusCode::BAD_GATEWAY {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let up = tokio::time::timeout(Duration::from_secs(120), up).await;
    up.expect("the server comes up");
    assert_eq!(get(&page, None).await, (StatusCode::OK, "served".into()));
    let (status, body) = get(&format!("{anybody}large?query=1"), None).await;
    assert!(
        status == StatusCode::OK && body == large,
        "{status}: {}",
        body.len()
    );
    let (status, _) = get(&format!("{anybody}none"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "as the server says");

    // The same port with other rules, one after the other.
    let again = async |port: NewPort| {
        handle.remove_port(8000).await.expect("it is closed");
        format!("{}page", open(&handle, port).await)
    };
    let signed = again(NewPort::new(8000)).await;
    assert_eq!(get(&signed, None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        get(&signed, Some("x.y.z")).await.0,
        StatusCode::UNAUTHORIZED
    );
    let token = emulator.token();
    assert_eq!(get(&signed, Some(&token)).await.0, StatusCode::OK);
    let office = Access::deny().allow("office", &["10.1.0.0/16"]);
    let elsewhere = again(NewPort::new(8000).anonymous().access(office)).await;
    assert_eq!(get(&elsewhere, None).await.0, StatusCode::FORBIDDEN);
    let here = Access::deny()
        .allow("office", &["10.1.0.0/16"])
        .allow("here", &["127.0.0.0/8"]);
    let here = again(NewPort::new(8000).anonymous().access(here)).await;
    assert_eq!(get(&here, None).await.0, StatusCode::OK);

    handle.suspend().await.expect("it is suspended");
    assert_eq!(
        get(&here, None).await.0,
        StatusCode::CONFLICT,
        "it is not resumed"
    );
    handle.resume().await.expect("it runs");
    let waking = again(NewPort::new(8000).anonymous().on_demand(true)).await;
    handle.suspend().await.expect("it is suspended");
    assert_eq!(get(&waking, None).await.0, StatusCode::OK, "it is resumed");

    handle.remove_port(8000).await.expect("it is closed");
    assert_eq!(get(&waking, None).await.0, StatusCode::NOT_FOUND);
    drop(server);
    sandbox.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_port_is_refused() {
    let (_emulator, provider, sandbox) = sandbox().await;
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    let bad = NewPort::new(9090).access(Access::deny().allow("bad", &["10.1.2.3/16"]));
    let error = handle.add_port(bad).await.expect_err("host bits");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(handle.state().await.expect("a state").ports.is_empty());
    let error = handle.port_url(9090, Duration::ZERO).await;
    let error = error.expect_err("no port");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}
