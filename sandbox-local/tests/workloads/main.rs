//! Real programs at real work inside a default sandbox: databases, kernels, servers, builds.
//!
//! Each is what people run and reported as broken elsewhere. A missing program is a failure:
//! `.ci/run` installs what most need. What takes long or needs more (an office suite, a package from a
//! registry) runs if `SANDBOX_WORKLOADS=all` is set.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "../support/mod.rs"]
mod support;

mod databases;
mod habits;
mod large;
mod packages;
mod servers;
mod terminals;

use sandbox_core::{Command, FileBatch, SandboxSpec};

/// Runs a script with these files in a default sandbox, and compares the last line that it prints.
async fn prints(last: &str, files: FileBatch, script: &str) {
    let sandbox = support::create(SandboxSpec::new()).await;
    sandbox.write_files(files).await.expect("files");
    let command = Command::new("bash").args(["-euo", "pipefail", "-c", script]);
    let output = support::run(&sandbox, command).await;
    let stdout = output.stdout.to_string_lossy();
    assert!(
        output.success() && stdout.trim_end().ends_with(last),
        "{}\nstdout: {stdout}\nstderr: {}",
        output.status,
        output.stderr.to_string_lossy()
    );
    sandbox.close().await.expect("close");
}
