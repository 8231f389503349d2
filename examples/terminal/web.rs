//! The shell in a web page: each page that is opened gets a sandbox of its own, which goes with it.
//!
//! Its address opens a shell to anyone, so that it contains a token. The page has it behind the `#`, which
//! a browser sends nowhere, and tells it in its first message.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{Html, Response};
use axum::routing::get;
use sandbox::{Command, Labels, Provider, SandboxSpec, TerminalSize};
use subtle::ConstantTimeEq as _;
use tokio::signal::unix::{SignalKind, signal};

use super::shell::Outcome;
use super::socket;

struct Service {
    provider: Arc<dyn Provider>,
    command: Command,
    token: String,
}

pub(super) async fn serve(address: &str, command: Command) -> Outcome<()> {
    let provider = sandbox::connect("local:").await?;
    let service = Arc::new(Service {
        provider: provider.clone(),
        // The page shows lines, and knows no other way to move about.
        command: command.env("TERM", "dumb"),
        token: token()?,
    });
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}/#{}", listener.local_addr()?, service.token);
    let routes = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/shell", get(open))
        .with_state(service);
    let mut ended = signal(SignalKind::terminate())?;
    tokio::select! {
        served = async { axum::serve(listener, routes).await } => served?,
        _ = tokio::signal::ctrl_c() => {}
        _ = ended.recv() => {}
    }
    for sandbox in provider.list(&Labels::new()).await? {
        provider.destroy(&sandbox.id).await?;
    }
    Ok(())
}

/// 256 bits of the operating system's randomness.
fn token() -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn open(State(service): State<Arc<Service>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |socket| {
        if let Err(error) = shell(&service, socket).await {
            eprintln!("a shell ended: {error}");
        }
    })
}

async fn shell(
    service: &Service,
    mut socket: WebSocket,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let first = tokio::time::timeout(Duration::from_secs(10), socket.recv()).await;
    let Ok(Some(Ok(Message::Text(token)))) = first else {
        return Ok(());
    };
    if !bool::from(token.as_bytes().ct_eq(service.token.as_bytes())) {
        return Ok(socket.send(Message::Close(None)).await?);
    }
    let sandbox = service.provider.create(SandboxSpec::new()).await?;
    let command = service.command.clone();
    let process = sandbox
        .spawn(command.terminal(TerminalSize::default()))
        .await;
    let relayed = match process {
        Ok(process) => socket::relay(process, socket).await,
        Err(error) => Err(error.into()),
    };
    sandbox.close().await?;
    relayed
}
