//! What the integration tests share.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::expect_used, reason = "a test says what it needs")]

use std::sync::Arc;

use sandbox_core::{Command, Output, Provider, Sandbox, SandboxSpec};
use sandbox_local::LocalProvider;

/// A sandbox of its own provider, with this spec.
pub(crate) async fn create(spec: SandboxSpec) -> Arc<dyn Sandbox> {
    let provider = LocalProvider::new().expect("a provider");
    provider.create(spec).await.expect("a sandbox")
}

/// A sandbox with the default spec.
pub(crate) async fn default() -> Arc<dyn Sandbox> {
    create(SandboxSpec::new()).await
}

/// Runs a script that must succeed; gives back its stdout.
pub(crate) async fn sh(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let output = run(sandbox, Command::shell(script)).await;
    assert!(
        output.success(),
        "{script}\n{}\nstdout: {}\nstderr: {}",
        output.status,
        output.stdout.to_string_lossy(),
        output.stderr.to_string_lossy()
    );
    output.stdout.to_string_lossy().into_owned()
}

/// Runs a command that must start.
pub(crate) async fn run(sandbox: &Arc<dyn Sandbox>, command: Command) -> Output {
    sandbox.exec(command).await.expect("the command runs")
}
