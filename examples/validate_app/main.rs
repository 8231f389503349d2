//! Validates a small web app whose code is not trusted: brings it in, builds it, tests it,
//! reports, and takes the result out.
//!
//! Run with `cargo run --features dagger --example validate_app`. It uses a Dagger engine and fails
//! without one. To fall back to this machine the configuration has to name it:
//! `SANDBOX_PROVIDER=dagger:,local:`.
//!
//! To see it without an engine, let the kit's double stand in for the CLI (it isolates nothing):
//! `cargo build -p sandbox-testkit --features dagger-double --bin dagger-double`, then
//! `_EXPERIMENTAL_DAGGER_CLI_BIN=$PWD/target/debug/dagger-double cargo run --features dagger
//! --example validate_app`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use sandbox::{
    Capability, Command, ExistingDir, ExportOptions, GuestPath, ImportOptions, Network, Sandbox,
    SandboxExt as _, SandboxSpec,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let chain = std::env::var(sandbox::PROVIDER_VARIABLE).unwrap_or_else(|_| "dagger:".to_owned());
    let selection = sandbox::connect_chain(&chain).await?;
    for (uri, error) in &selection.rejected {
        say(&format!("not {uri} ({error})"));
    }
    say(&format!("running in {}", selection.uri));
    // An open network is asked for only where there is no other.
    let network = match selection
        .provider
        .capabilities()
        .has(Capability::NetworkOff)
    {
        true => Network::Off,
        false => Network::Open,
    };
    let spec = SandboxSpec::new().network(network);
    let spec = spec.command_timeout(Duration::from_secs(120));
    let sandbox = selection.provider.create(spec).await?;
    let passed = validate(&*sandbox).await;
    sandbox.close().await?;
    match passed? {
        true => Ok(()),
        false => Err("the app did not pass".into()),
    }
}

async fn validate(sandbox: &dyn Sandbox) -> Result<bool, Box<dyn Error>> {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/validate_app/web");
    let excludes = ImportOptions::new()
        .exclude("node_modules/")
        .exclude("dist/");
    let brought = sandbox
        .import_dir(&app, &GuestPath::from("app"), excludes)
        .await?;
    say(&format!("brought {} files", brought.files));
    sandbox.chdir("app").await?;
    let steps: [(&str, &[&str]); 3] = [
        (
            "install",
            &["npm", "install", "--no-audit", "--no-fund", "--offline"],
        ),
        ("build", &["npm", "run", "--silent", "build"]),
        ("test", &["npm", "run", "--silent", "test"]),
    ];
    for (step, argv) in steps {
        let command = Command::new(argv[0]).args(&argv[1..]);
        let output = sandbox.exec(command).await?;
        say(&format!(
            "{step}: {} in {:?}",
            output.status, output.duration
        ));
        say(output.stdout.to_string_lossy().trim_end());
        if !output.success() {
            say(output.stderr.to_string_lossy().trim_end());
            return Ok(false);
        }
    }
    let to = std::env::temp_dir().join("validate-app-dist");
    let options = ExportOptions::new().existing(ExistingDir::Replace);
    let taken = sandbox
        .export_dir(&GuestPath::from("dist"), &to, options)
        .await?;
    say(&format!("took {} files to {}", taken.files, to.display()));
    Ok(true)
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}
