//! Prints what a sandbox can do here, and which isolation is in force, as probed from inside.
//!
//! The provider comes from the environment: `SANDBOX_PROVIDER=local-plain: cargo run --example
//! isolation_report` shows what plain mode does not do.
#![allow(clippy::print_stdout, clippy::print_stderr)] // An example talks to its user.

use std::process::ExitCode;

use sandbox::{Capability, Network, SandboxSpec, Support};

#[tokio::main]
async fn main() -> ExitCode {
    match report().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolation_report: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn report() -> sandbox::Result<()> {
    let selection = sandbox::connect_from_env().await?;
    let capabilities = selection.provider.capabilities();
    let network = if capabilities.has(Capability::NetworkOff) {
        Network::Off
    } else {
        Network::Open
    };
    let spec = SandboxSpec::new().network(network);
    let sandbox = selection.provider.create(spec).await?;

    println!("Isolation of {}\n", selection.uri);
    print!("{}", sandbox.isolation().await?);
    println!("\nCapabilities\n");
    for (capability, support) in capabilities.iter() {
        let mark = match support {
            Support::Full => "yes",
            Support::Partial(_) => "partly",
            Support::None(_) => "no",
        };
        let note = support.reason();
        println!("{:<18}{mark:<8}{note}", capability.as_str());
    }
    sandbox.close().await
}
