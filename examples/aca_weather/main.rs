//! A tool for an agent: a weather report, worked out by Python in a sandbox that the environment
//! chooses. The same code runs on this machine and in Azure Container Apps.
//!
//! ```console
//! $ cargo run --example aca_weather                        # in a local sandbox
//! $ cargo run --example aca_weather -- Tokyo august
//! ```
//!
//! Against the emulator of Azure Container Apps, with one command and without Azure:
//!
//! ```console
//! $ cargo run -p sandbox-testkit --features aca-emulator --bin aca-emulator -- -- \
//!       cargo run --features aca --example aca_weather
//! ```
//!
//! In Azure (sandbox-aca/README.md says how to make the group and who needs which role):
//!
//! ```console
//! $ export SANDBOX_PROVIDER=aca-sandboxes: SANDBOX_ACA_ENDPOINT=https://management.westus2.azuredevcompute.io
//! $ export SANDBOX_ACA_SUBSCRIPTION=… SANDBOX_ACA_RESOURCE_GROUP=… SANDBOX_ACA_GROUP=…
//! $ cargo run --features aca --example aca_weather
//! ```
//!
//! With `SANDBOX_PROVIDER=aca-sessions:` and `SANDBOX_ACA_POOL_ENDPOINT` it runs in a dynamic
//! session. Each phase is timed in milliseconds, through tracing. The figures are rounded climate
//! normals that come with the example: a sandbox without network asks no weather service.
#![allow(clippy::print_stdout, clippy::print_stderr)] // An example talks to its user.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sandbox::layer::{Layer as _, Tracing};
use sandbox::{Command, Error, FileBatch, Provider as _, SandboxExt as _, SandboxSpec};

/// Script that is run: part of this program, it reaches the sandbox as a file.
const SCRIPT: &str = include_str!("report.py");
const NORMALS: &str = include_str!("normals.json");

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    let mut words = std::env::args().skip(1);
    let city = words.next().unwrap_or_else(|| "New York".into());
    let month = words.next().unwrap_or_else(|| "february".into());
    match report(&city, &month).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The message has the hint: which variable is not set, which role is missing.
            eprintln!("no report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does one phase and says how long it took.
async fn phase<T>(name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let started = Instant::now();
    let done = work.await;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    match &done {
        Ok(_) => tracing::info!(phase = name, ms, "done"),
        Err(_) => tracing::error!(phase = name, ms, "failed"),
    }
    done
}

async fn report(city: &str, month: &str) -> Result<String, Error> {
    let all = Instant::now();
    let selection = phase("connect", sandbox::connect_from_env()).await?;
    tracing::info!(provider = %selection.uri, "chosen");
    let provider = Tracing::new().layer_provider(selection.provider);
    let spec = SandboxSpec::new().label("tool", "weather");
    let sandbox = phase("create", provider.create(spec)).await?;
    let worked = async {
        let files = FileBatch::new()
            .file("report.py", SCRIPT)
            .file("normals.json", NORMALS);
        phase("upload", sandbox.write_files(files)).await?;
        // What the user says is an argument, never a part of the code.
        let python = Command::new("python3")
            .args(["report.py", city, month])
            .timeout(Duration::from_secs(60));
        let output = phase("run", sandbox.exec(python)).await?;
        if !output.success() {
            return Ok(format!(
                "no such report: {}",
                output.stderr.to_string_lossy().trim_end()
            ));
        }
        let report = phase("download", sandbox.read("report.md")).await?;
        Ok(String::from_utf8_lossy(&report).into_owned())
    };
    let report = worked.await;
    // Also if something failed: what is not closed costs.
    let closed = phase("close", sandbox.close()).await;
    tracing::info!(ms = all.elapsed().as_secs_f64() * 1e3, "all");
    let report = report?;
    closed?;
    Ok(report)
}
