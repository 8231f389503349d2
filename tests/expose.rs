//! A port of a sandbox on the host: who can connect, and that it ends with its guard.
#![cfg(all(feature = "local", target_os = "linux"))]
#![allow(clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sandbox::{
    Command, ErrorKind, ExposeAt, Job, PortWaitOptions, Sandbox, SandboxExt, SandboxSpec,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

const SERVER: &str = "use IO::Socket::INET; \
    my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8000, Listen => 64, \
    ReuseAddr => 1) or die; while (my $c = $s->accept) { my $l = <$c>; print $c uc $l; }";

async fn serving() -> (Arc<dyn Sandbox>, Job) {
    let provider = sandbox::connect("local:").await.expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let job = sandbox
        .start("server", Command::new("perl").arg("-e").arg(SERVER))
        .await
        .expect("started");
    let options = PortWaitOptions::new().server(job.wait());
    sandbox.wait_for_port(8000, options).await.expect("listens");
    (sandbox, job)
}

async fn ask(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    stream.write_all(b"hello\n").await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

#[test]
fn outside_of_a_runtime_a_port_is_refused_and_nothing_panics() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (sandbox, _job) = runtime.block_on(serving());
    let mut context = Context::from_waker(Waker::noop());
    let refused = Poll::Ready(Some(ErrorKind::InvalidInput));
    let exposing = pin!(sandbox::expose(
        sandbox.clone(),
        8000,
        ExposeAt::Loopback(0)
    ));
    let exposed = exposing.poll(&mut context);
    assert_eq!(
        exposed.map(|it| it.err().map(|error| error.kind())),
        refused
    );
    #[cfg(feature = "preview")]
    {
        let previewing = pin!(sandbox::preview(sandbox.clone(), 8000, 0));
        let previewed = previewing.poll(&mut context);
        assert_eq!(
            previewed.map(|it| it.err().map(|error| error.kind())),
            refused
        );
    }
    runtime.block_on(sandbox.close()).expect("closed");
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_ends_with_the_guard() {
    let (sandbox, _job) = serving().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("port.sock");
    let at = ExposeAt::Unix(path.clone());
    let exposed = sandbox::expose(sandbox.clone(), 8000, at.clone())
        .await
        .expect("exposed");
    assert_eq!(exposed.path(), Some(&*path));
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("listed").count(),
        1,
        "nothing beside it"
    );
    for _ in 0..3 {
        let stream = UnixStream::connect(&path).await.expect("connected");
        assert_eq!(ask(stream).await, "HELLO\n");
    }
    // What is there is not replaced.
    let again = sandbox::expose(sandbox.clone(), 8000, at)
        .await
        .expect_err("taken");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(again.host_path(), Some(&*path));
    drop(exposed);
    assert!(!path.exists(), "the socket is left");
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn loopback_carries_connections_until_the_guard_is_dropped() {
    let (sandbox, job) = serving().await;
    let exposed = sandbox::expose(sandbox.clone(), 8000, ExposeAt::Loopback(0))
        .await
        .expect("exposed");
    let address = exposed.address().expect("an address");
    assert!(address.ip().is_loopback());
    let stream = TcpStream::connect(address).await.expect("connected");
    assert_eq!(ask(stream).await, "HELLO\n");
    // Without a server in the sandbox a connection ends at once.
    job.stop().await.expect("stopped");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    drop(exposed);
    // The task of the listener is dropped in a moment of its own.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn what_cant_be_exposed_is_refused() {
    let provider = sandbox::connect("local:").await.expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let error = sandbox::expose(sandbox.clone(), 0, ExposeAt::Loopback(0))
        .await
        .expect_err("port 0");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let missing = ExposeAt::Unix("/no such directory/port.sock".into());
    let error = sandbox::expose(sandbox.clone(), 8000, missing)
        .await
        .expect_err("no directory");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    sandbox.close().await.expect("closed");
    let plain = sandbox::connect("local-plain:").await.expect("a provider");
    let spec = SandboxSpec::new().network(sandbox::Network::Open);
    let sandbox = plain.create(spec).await.expect("created");
    let error = sandbox::expose(sandbox, 8000, ExposeAt::Loopback(0))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
