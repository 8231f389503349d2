//! The control plane against the emulator: what it makes, watches and deletes, what it says when it
//! can't, and the faults of a remote service at every request.
#![cfg(target_os = "linux")]
// Helpers of tests are not tests to clippy.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod apps;
mod azure;
mod faults;
mod jobs;
mod plane;
mod resources;
mod roles;

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::provision::{ControlPlane, ControlPlaneConfig, ResourceId};
use sandbox_aca::{AccessToken, Credential};
use sandbox_core::{Result, async_trait};
use sandbox_testkit::aca::{AcaEmulator, Options};

pub(crate) const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

/// Gives the emulator's tokens for whatever is asked for.
#[derive(Debug)]
struct Mint(Arc<AcaEmulator>);

#[async_trait]
impl Credential for Mint {
    async fn token(&self, scope: &str) -> Result<AccessToken> {
        let audience = scope.trim_end_matches("/.default");
        Ok(AccessToken::new(self.0.token_for(audience, 86_400), None))
    }
}

pub(crate) async fn emulator(change: impl FnOnce(&mut Options)) -> Arc<AcaEmulator> {
    let mut options = Options::default();
    change(&mut options);
    let emulator = AcaEmulator::start(options).await;
    Arc::new(emulator.expect("an emulator"))
}

pub(crate) fn config(emulator: &Arc<AcaEmulator>, endpoint: &str) -> ControlPlaneConfig {
    ControlPlaneConfig::new(SUBSCRIPTION, "rg", "westus2", "owner-1")
        .endpoint(endpoint)
        .logs_endpoint(endpoint)
        .credential(Arc::new(Mint(Arc::clone(emulator))))
        .poll(Duration::from_millis(50))
        .settle(Duration::from_millis(200))
        .timeout(Duration::from_secs(30))
}

pub(crate) fn plane(emulator: &Arc<AcaEmulator>) -> ControlPlane {
    let config = config(emulator, &emulator.endpoint());
    ControlPlane::new(config).expect("a control plane")
}

pub(crate) async fn start(change: impl FnOnce(&mut Options)) -> (Arc<AcaEmulator>, ControlPlane) {
    let emulator = emulator(change).await;
    let plane = plane(&emulator);
    (emulator, plane)
}

pub(crate) fn id(rest: &str) -> ResourceId {
    let text = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/{rest}");
    ResourceId::new(text).expect("an identifier")
}

pub(crate) fn environment() -> ResourceId {
    id("Microsoft.App/managedEnvironments/env")
}

pub(crate) fn identity() -> ResourceId {
    id("Microsoft.ManagedIdentity/userAssignedIdentities/puller")
}

/// An image by its digest.
pub(crate) const IMAGE: &str =
    "r.azurecr.io/x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Puts a body past the client.
pub(crate) async fn put(url: &str, token: &str, body: String) {
    let client = reqwest::Client::new();
    let sent = client
        .put(url)
        .bearer_auth(token)
        .header("content-type", "application/json");
    let answer = sent.body(body).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{:?}", answer.text().await);
}
