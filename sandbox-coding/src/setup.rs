//! Installation of an agent: its scripts are run once, and their files kept as a snapshot. Its
//! settings are written in each environment.
//!
//! What is installed must never see the key of a model, a repository, or another tenant's sandbox.

use std::collections::HashMap;
use std::time::Duration;

use sandbox_core::{
    Capability, Command, EgressPolicy, EgressRule, Labels, Network, Provider, Sandbox, SandboxSpec,
    SnapshotId, SnapshotOptions,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::{Error, ErrorKind, Preset, Result};

/// The label of a snapshot that says which installation it has.
const LABEL: &str = "sandbox-coding-setup";
/// Time that one script has.
const SCRIPT: Duration = Duration::from_secs(1_800);

/// The installations that are kept.
#[derive(Debug, Default)]
pub(crate) struct Installed(Mutex<HashMap<String, SnapshotId>>);

/// The hosts that the scripts of a preset reach.
pub(crate) fn hosts(preset: &Preset) -> EgressPolicy {
    let rules = preset.setup_hosts.iter().map(EgressRule::exact);
    rules.fold(EgressPolicy::new(), EgressPolicy::rule)
}

fn network(preset: &Preset) -> Network {
    match preset.setup_hosts.is_empty() {
        true => Network::Off,
        false => Network::Allow(hosts(preset)),
    }
}

/// Runs the scripts that install a preset's agent.
pub(crate) async fn install(sandbox: &dyn Sandbox, preset: &Preset) -> Result<()> {
    run(sandbox, preset, &preset.setup).await
}

/// Runs the scripts that write the settings of a preset's agent.
pub(crate) async fn configure(sandbox: &dyn Sandbox, preset: &Preset) -> Result<()> {
    run(sandbox, preset, &preset.configure).await
}

async fn run(sandbox: &dyn Sandbox, preset: &Preset, scripts: &[String]) -> Result<()> {
    for script in scripts {
        let output = sandbox.exec(Command::shell(script).timeout(SCRIPT)).await?;
        if !output.success() {
            let said = output.stderr.to_string_lossy();
            let last: String = said
                .lines()
                .last()
                .unwrap_or_default()
                .chars()
                .take(500)
                .collect();
            return Err(Error::new(
                ErrorKind::Setup,
                format!(
                    "{} was not set up: {script:?} ended with {}: {last:?}",
                    preset.title, output.status
                ),
            ));
        }
    }
    Ok(())
}

/// Digest of everything that an installation depends on.
fn fingerprint(preset: &Preset, spec: &SandboxSpec) -> Result<String> {
    let failed = |error| Error::invalid("the specification can't be written").with_source(error);
    let mounts = serde_json::to_vec(&spec.mounts).map_err(failed)?;
    let mut hash = Sha256::new();
    hash.update(format!("{:?}\0{:?}\0", spec.source, preset.setup));
    hash.update(mounts);
    Ok(hash
        .finalize()
        .iter()
        .take(20)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

impl Installed {
    /// The snapshot that has a preset's agent installed; `None` where the backend has no snapshots,
    /// or there is nothing to install.
    pub(crate) async fn snapshot(
        &self,
        provider: &dyn Provider,
        preset: &Preset,
        spec: &SandboxSpec,
    ) -> Result<Option<SnapshotId>> {
        if preset.setup.is_empty() || !provider.capabilities().has(Capability::Snapshot) {
            return Ok(None);
        }
        let print = fingerprint(preset, spec)?;
        // Held until it is there, so that callers at the same time install it once.
        let mut known = self.0.lock().await;
        if let Some(snapshot) = known.get(&print) {
            return Ok(Some(snapshot.clone()));
        }
        let label = Labels::from([(LABEL.to_owned(), print.clone())]);
        if let Ok(found) = provider.list_snapshots(&label).await
            && let Some(snapshot) = found.into_iter().next()
        {
            known.insert(print, snapshot.id.clone());
            return Ok(Some(snapshot.id));
        }
        let mut plain = SandboxSpec::new()
            .source(spec.source.clone())
            .network(network(preset));
        plain.mounts = spec.mounts.clone();
        let sandbox = provider.create(plain).await?;
        let made = async {
            install(&*sandbox, preset).await?;
            let options = SnapshotOptions::new().label(LABEL, &print);
            Ok(sandbox.snapshot(options).await?.id)
        };
        let made: Result<SnapshotId> = made.await;
        let closed = sandbox.close().await;
        let snapshot = made?;
        closed?;
        known.insert(print, snapshot.clone());
        Ok(Some(snapshot))
    }
}
