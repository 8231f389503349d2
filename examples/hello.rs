//! The shortest program: a sandbox, a command, its output.
#![allow(clippy::print_stdout)] // An example talks to its user.

use sandbox::{SandboxExt, SandboxSpec};

#[tokio::main]
async fn main() -> sandbox::Result<()> {
    let provider = sandbox::connect("local:").await?;
    let sandbox = provider.create(SandboxSpec::new()).await?;
    let output = sandbox.sh("echo hello from $(pwd), process $$").await?;
    print!("{}", output.stdout.to_string_lossy());
    sandbox.close().await
}
