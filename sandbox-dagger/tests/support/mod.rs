//! A provider on an engine double of its own.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Network, Provider as _, Sandbox, SandboxExt as _, SandboxSpec};
use sandbox_dagger::{DaggerConfig, DaggerProvider};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};

pub(crate) type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

pub(crate) struct Rig {
    pub(crate) double: DaggerDouble,
    pub(crate) provider: DaggerProvider,
    pub(crate) sandbox: Arc<dyn Sandbox>,
}

impl Rig {
    pub(crate) async fn new() -> Result<Self, Box<dyn StdError + Send + Sync>> {
        Self::with(|config| config).await
    }

    /// With this changed in its configuration.
    pub(crate) async fn with(
        change: impl FnOnce(DaggerConfig) -> DaggerConfig,
    ) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let double = DaggerDouble::start(Quirks::default()).await?;
        let config = change(config(&double));
        let provider = DaggerProvider::new(config)?;
        let sandbox = provider.create(spec()).await?;
        Ok(Self {
            double,
            provider,
            sandbox,
        })
    }
}

/// A configuration that connects to this double.
pub(crate) fn config(double: &DaggerDouble) -> DaggerConfig {
    DaggerConfig::default()
        .session(double.port(), double.token())
        .operation_timeout(Duration::from_secs(60))
}

/// Fills a root directory with a shell, the programs that the backend needs and what they are
/// linked with, all of this machine.
pub(crate) fn small_system(root: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    let programs = "sh base64 cat chmod chown dd env find head ln mkdir mkfifo mktemp mv readlink rm \
                    rmdir setsid sleep stat tar tee touch tr wc xargs";
    for program in programs.split_whitespace() {
        let found = ["/bin", "/usr/bin"]
            .map(|dir| Path::new(dir).join(program))
            .into_iter()
            .find(|file| file.exists());
        let missing = || std::io::Error::other(format!("no program {program} on this machine"));
        let file = found.ok_or_else(missing)?;
        let linked = std::process::Command::new("ldd").arg(&file).output()?;
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        let libraries = linked
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for from in libraries.map(Path::new).chain([file.as_path()]) {
            let to = root.join(from.strip_prefix("/").unwrap_or(from));
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Writes a script that stands in for a program. Another process does: what this one has open for
/// writing is inherited by whatever it starts meanwhile, and can't be run until that has begun.
pub(crate) fn program(file: PathBuf, script: &str) -> std::io::Result<PathBuf> {
    use std::io::Write as _;
    let mut writer = std::process::Command::new("sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = writer.stdin.take() {
        stdin.write_all(format!("#!/bin/sh\n{script}\n").as_bytes())?;
    }
    match writer.wait()?.success() {
        true => Ok(file),
        false => Err(std::io::Error::other("the script can't be written")),
    }
}

pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec::new().network(Network::Open)
}

/// Whether the process whose number is in this file is there and no zombie.
pub(crate) fn alive(pid: &Path) -> bool {
    let pid = std::fs::read_to_string(pid).unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

/// Of a provider with a cache at `/cache`: what is in it is seen by all of its sandboxes.
pub(crate) async fn cache_is_shared(provider: &DaggerProvider) -> Outcome {
    let sandbox = provider.create(spec()).await?;
    sandbox.sh("printf one >/cache/f; printf own >f").await?;
    sandbox.close().await?;
    let other = provider.create(spec()).await?;
    assert_eq!(other.read("/cache/f").await?, "one");
    assert!(!other.exists("f").await?);
    let fork = other.fork_one().await?;
    fork.sh("printf two >/cache/f").await?;
    assert_eq!(other.read("/cache/f").await?, "two");
    Ok(())
}
