//! The client against the emulator: what goes wrong, who may come in, and what only this service
//! has.
#![cfg(target_os = "linux")]
// Helpers of tests are not tests to clippy.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod auth;
mod chain;
mod everyday;
mod faults;
mod images;
mod keep;
mod kept;
mod labels;
mod leaks;
mod lifecycle;
mod manage;
mod ports;
mod positions;
mod rate;
mod requests;
mod rig;
mod rows;
mod stream;
mod table;
mod transfers;
mod versions;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{
    AcaConfig, AcaSandboxProvider, AcaSessionConfig, Credential, SessionKind, StaticToken,
};
use sandbox_core::{Command, Provider as _, Sandbox, SandboxSpec};
use sandbox_testkit::aca::{AcaEmulator, Options};

fn config(endpoint: &str) -> AcaConfig {
    AcaConfig::new(endpoint, "sub", "group", "faults")
}

/// The emulator's pool of this kind, behind this endpoint.
fn pool(endpoint: &str, kind: SessionKind) -> AcaSessionConfig {
    let name = match kind {
        SessionKind::Shell => "shell",
        _ => "python",
    };
    let path = format!("{endpoint}/subscriptions/s/resourceGroups/g/sessionPools/{name}");
    AcaSessionConfig::new(path, kind)
}

fn provider(emulator: &AcaEmulator, credential: Arc<dyn Credential>) -> AcaSandboxProvider {
    AcaSandboxProvider::new(config(&emulator.endpoint()).credential(credential))
        .expect("a provider")
}

async fn start(options: Options) -> (AcaEmulator, AcaSandboxProvider) {
    let emulator = AcaEmulator::start(options).await.expect("an emulator");
    let credential = Arc::new(StaticToken::new(emulator.token()));
    let provider = provider(&emulator, credential);
    (emulator, provider)
}

/// The versions of the sandboxes' data plane, and a token that is good in both.
const VERSIONS: [&str; 2] = ["2026-02-01-preview", "2026-09-01-preview"];
const BOTH: &str = "https://management.azuredevcompute.io";

/// An emulator with a client that speaks this version.
async fn start_in(version: &str, options: Options) -> (AcaEmulator, AcaSandboxProvider) {
    let emulator = AcaEmulator::start(options).await.expect("an emulator");
    let token = StaticToken::new(emulator.token_for(BOTH, 30 * 86_400));
    let config = config(&emulator.endpoint()).api_version(version);
    let provider = AcaSandboxProvider::new(config.credential(Arc::new(token)));
    (emulator, provider.expect("a provider"))
}

async fn sandbox() -> (AcaEmulator, AcaSandboxProvider, Arc<dyn Sandbox>) {
    let (emulator, provider) = start(Options::default()).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    (emulator, provider, sandbox)
}

/// Waits until this holds: what is cleared away is cleared behind the caller's back.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(120), held).await;
    held.unwrap_or_else(|_| panic!("it never came to that: {what}"));
}

/// Appends to a file, so that a second run shows.
fn counted() -> Command {
    Command::shell("printf x >> count; printf ran").timeout(Duration::from_secs(120))
}

/// Text of `counted` as the emulator sees it.
const COUNTED: &str = "printf x >> count";
