//! A service that gives each of its applications a sandbox, which only that application's token opens.
//!
//! `cargo run --example multi_tenant --features layers,sessions -- 127.0.0.1:8080` prints the operator's
//! token and serves until it is interrupted; `examples/multi_tenant/try.py` is a client.
#![allow(clippy::print_stdout)] // An example talks to its user.

mod api;
mod calls;
#[path = "../terminal/socket.rs"]
mod socket;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use sandbox::layer::{Layer as _, Stack};
use sandbox::layers::Audit;
use sandbox::sessions::{Limits, OnIdle, Sessions, SessionsConfig, ShutdownOptions};
use sandbox::{Resources, SandboxSpec};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Specification of every sandbox: no network, and limits.
fn spec() -> SandboxSpec {
    let limits = Resources::new().pids(64);
    SandboxSpec::new()
        .resources(limits)
        .command_timeout(Duration::from_secs(60))
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:0".to_owned());
    // In a service both are on a disk that stays.
    let place = tempfile::tempdir()?;
    let audit = place.path().join("audit.jsonl");
    let calls = Arc::new(calls::Calls::default());
    let provider = Stack::new()
        .with(Audit::open(&audit)?)
        .with(calls::Count(calls.clone()))
        .layer_provider(sandbox::connect("local:").await?);
    let config = SessionsConfig::new()
        .journal(place.path().join("journal"))
        .limits(Limits::new().total(100).per_tenant(1).waiting(20))
        .idle_timeout(Duration::from_secs(15 * 60))
        .on_idle(OnIdle::Close)
        .max_life(Duration::from_secs(24 * 3600));
    let sessions = Sessions::open(provider, config).await?;
    let service = Arc::new(api::Service::new(sessions.clone(), spec(), calls, audit)?);

    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!(
        "http://{}/ operator {}",
        listener.local_addr()?,
        service.operator()
    );
    let served = axum::serve(listener, api::routes(service));
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = async { served.await } => served?,
        _ = tokio::signal::ctrl_c() => {}
        _ = ended.recv() => {}
    }
    let report = sessions.shutdown(ShutdownOptions::new()).await?;
    println!(
        "{} sandboxes closed, {} left",
        report.closed,
        report.left.len()
    );
    Ok(())
}
