//! The client against the emulator: what goes wrong, who may come in, and what only this service has.
#![cfg(target_os = "linux")]

mod auth;
mod faults;
mod manage;
mod proxy;
mod requests;
mod stream;
mod table;

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{AcaConfig, AcaSandboxProvider, Credential, StaticToken};
use sandbox_core::{Command, Provider as _, Sandbox, SandboxSpec};
use sandbox_testkit::aca::{AcaEmulator, Options};

fn config(endpoint: &str) -> AcaConfig {
    AcaConfig::new(endpoint, "sub", "group", "faults")
}

fn provider(emulator: &AcaEmulator, credential: Arc<dyn Credential>) -> AcaSandboxProvider {
    AcaSandboxProvider::new(config(&emulator.endpoint()), credential).expect("a provider")
}

async fn start(options: Options) -> (AcaEmulator, AcaSandboxProvider) {
    let emulator = AcaEmulator::start(options).await.expect("an emulator");
    let credential = Arc::new(StaticToken::new(emulator.token()));
    let provider = provider(&emulator, credential);
    (emulator, provider)
}

async fn sandbox() -> (AcaEmulator, AcaSandboxProvider, Arc<dyn Sandbox>) {
    let (emulator, provider) = start(Options::default()).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    (emulator, provider, sandbox)
}

/// Appends to a file, so that a second run shows.
fn counted() -> Command {
    Command::shell("printf x >> count; printf ran").timeout(Duration::from_secs(60))
}

/// What `counted` looks like to the emulator.
const COUNTED: &str = "printf x >> count";
