//! The child that serves a session, and what runs in the engine for it: nothing is left behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode, Stdio};
use std::time::{Duration, Instant};

use sandbox_core::{Command, Provider as _, SandboxExt as _};
use sandbox_dagger::{CacheMount, DaggerConfig, DaggerProvider};

use crate::config;
use crate::running::{BEATING, beats, until_still};
use crate::support::{Outcome, alive, spec};

/// Names the CLI for the program that is killed.
pub(crate) const HOST: &str = "SANDBOX_TEST_HOST";
const CACHE: &str = "sandbox-test-killed-host";

/// The CLI of the environment, which leaves its pid.
fn noted(dir: &Path) -> std::io::Result<PathBuf> {
    let file = dir.join("cli");
    let cli = std::env::var("_EXPERIMENTAL_DAGGER_CLI_BIN").unwrap_or_else(|_| "dagger".into());
    let pid = dir.join("pid");
    let script = format!(
        "#!/bin/sh\necho $$ >'{}'\nexec '{cli}' \"$@\"\n",
        pid.display()
    );
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

async fn gone(pid: &Path) -> Outcome {
    let started = Instant::now();
    while alive(pid) {
        if started.elapsed() > Duration::from_secs(30) {
            return Err("the CLI was left behind".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(crate) async fn a_cli_ends_with_its_provider() -> Outcome {
    for politely in [true, false] {
        let dir = tempfile::tempdir()?;
        let pid = dir.path().join("pid");
        let provider = DaggerProvider::new(config().cli(noted(dir.path())?))?;
        let sandbox = provider.create(spec()).await?;
        assert_eq!(sandbox.sh("echo hi").await?.stdout.bytes, "hi\n");
        assert!(alive(&pid));
        drop(sandbox);
        if politely {
            provider.shutdown().await;
        }
        drop(provider);
        gone(&pid).await?;
    }
    Ok(())
}

/// The program to be killed: it reports when its command is on its way, and waits for the end.
pub(crate) fn host(cli: PathBuf) -> ExitCode {
    let run = async {
        let config = config_of_host().cli(cli);
        let sandbox = DaggerProvider::new(config)?.create(spec()).await?;
        let running = sandbox.exec(Command::shell(BEATING));
        tell("started");
        running.await
    };
    let runtime = tokio::runtime::Runtime::new();
    let ended = runtime.map(|runtime| runtime.block_on(run));
    tell(&format!("it ended: {ended:?}"));
    ExitCode::FAILURE
}

/// Read by the test that kills it.
fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn config_of_host() -> DaggerConfig {
    config().cache(CacheMount::new(CACHE, "/beats"))
}

pub(crate) async fn a_cli_ends_with_a_host_that_was_killed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let pid = dir.path().join("pid");
    let provider = DaggerProvider::new(config_of_host())?;
    let onlooker = provider.create(spec()).await?;
    let before = beats(&onlooker).await?;
    let mut host = Program::new(std::env::current_exe()?)
        .env(HOST, noted(dir.path())?)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    if let Some(stdout) = host.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    assert_eq!(said, "started\n");
    let started = Instant::now();
    while beats(&onlooker).await? == before {
        assert!(started.elapsed() < Duration::from_secs(120), "nothing runs");
    }
    assert!(alive(&pid));
    host.kill()?;
    host.wait()?;
    gone(&pid).await?;
    until_still(&onlooker).await
}
