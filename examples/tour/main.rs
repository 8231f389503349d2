//! The everyday calls in thirty lines: a tenant's sandbox, files in, a command with limits, a fork,
//! files out.
//!
//! `cargo run --example tour`

#![allow(clippy::print_stdout)] // An example that talks to its user.

use std::time::Duration;

use sandbox::{Command, FileBatch, Resources, SandboxExt, SandboxSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> sandbox::Result<()> {
    let provider = sandbox::connect("local:").await?;
    let spec = SandboxSpec::new()
        .label("tenant", "acme")
        .resources(Resources::new().pids(128));
    let sandbox = provider.create(spec).await?;

    let files = FileBatch::new().file("numbers.txt", "3\n1\n2\n").file(
        "sort.sh",
        "sort numbers.txt > sorted.txt && wc -l < sorted.txt",
    );
    sandbox.write_files(files).await?;
    let command = Command::new("sh")
        .arg("sort.sh")
        .timeout(Duration::from_secs(10))
        .output_limit(64 << 10);
    let output = sandbox.exec(command).await?;
    println!("{}: {}", output.status, output.stdout.to_string_lossy());

    let fork = sandbox.fork_one().await?;
    fork.sh("tac sorted.txt > reversed.txt").await?;
    let results = std::env::temp_dir().join(format!("sandbox-tour-{}", std::process::id()));
    let report = fork.export(".", &results).await?;
    println!("{} files in {}", report.files, results.display());

    std::fs::remove_dir_all(&results).ok();

    fork.close().await?;
    sandbox.close().await
}
