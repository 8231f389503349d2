//! `sandbox doctor`: what this host grants, by trying it.
//!
//! It must never recommend a weaker sandbox. Everything it says was probed by creating a sandbox.

use std::sync::Arc;

use sandbox::{
    Capability, Command, Enforcement, Error, ErrorKind, Network, Operation, Provider,
    RequiredIsolation, Resources, Sandbox, SandboxSpec,
};
use serde_json::{Value, json};

use crate::show::{Failure, error_value, print, print_json};
use crate::stock::connect;

/// Result of one trial.
struct Finding {
    what: &'static str,
    /// Why it does not work, if so.
    said: Result<(), Error>,
}

pub(crate) async fn doctor(uri: &str, json: bool) -> Result<u8, Failure> {
    let provider = connect(uri).await?;
    let mut findings = Vec::new();
    let mut controls = Vec::new();
    let whole = provider.create(SandboxSpec::new()).await;
    let (said, sandbox) = match whole {
        Ok(sandbox) => (Ok(()), Some(sandbox)),
        Err(error) => (Err(error), weaker(&*provider).await),
    };
    findings.push(Finding {
        what: "a sandbox with everything that the provider is for",
        said,
    });
    if let Some(sandbox) = sandbox {
        if let Ok(report) = sandbox.isolation().await {
            controls = report
                .iter()
                .map(|(control, how)| (control.as_str(), how.clone()))
                .collect();
        }
        findings.push(Finding {
            what: "running a command",
            said: ran(&*sandbox).await,
        });
    }
    for (what, capability, limits) in limits() {
        if provider.capabilities().has(capability) {
            let said = limited(&*provider, limits).await;
            findings.push(Finding { what, said });
        }
    }
    let missing = findings.iter().any(|finding| finding.said.is_err());
    let tiers = match provider.backend() {
        "local" | "local-landlock" => tiers().await,
        _ => Vec::new(),
    };
    match json {
        true => print_json(&value(provider.backend(), &findings, &controls, &tiers))?,
        false => print(text(provider.backend(), &findings, &controls, &tiers).as_bytes())?,
    }
    Ok(u8::from(missing))
}

/// The isolation that a host can give, the strongest first.
const TIERS: [(&str, &str); 2] = [
    (
        "local:",
        "namespaces, Landlock and a filter of system calls",
    ),
    (
        "local-landlock:",
        "Landlock and a filter without namespaces: weaker, and used only where it is named",
    ),
];

/// A tier, what it is and whether it works.
type Tier = (&'static str, &'static str, Result<(), Error>);

async fn tiers() -> Vec<Tier> {
    let mut tiers = Vec::new();
    for (uri, what) in TIERS {
        tiers.push((uri, what, tried(uri).await));
    }
    tiers
}

async fn tried(uri: &str) -> Result<(), Error> {
    let provider = sandbox::connect(uri).await?;
    limited(&*provider, Resources::new()).await
}

/// A sandbox with what there is, where a whole one is not to be had: to see what it holds.
async fn weaker(provider: &dyn Provider) -> Option<Arc<dyn Sandbox>> {
    let any = SandboxSpec::new().isolation(RequiredIsolation::Only(Vec::new()));
    match provider.create(any.clone()).await {
        Ok(sandbox) => Some(sandbox),
        // Some can't be without a network.
        Err(_) => provider.create(any.network(Network::Open)).await.ok(),
    }
}

/// Runs a command, and closes the sandbox.
async fn ran(sandbox: &dyn Sandbox) -> Result<(), Error> {
    let output = sandbox.exec(Command::new("true")).await;
    let closed = sandbox.close().await;
    let output = output?;
    closed?;
    match output.success() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Other, Operation::Exec)
            .with_message(format!("`true` ended with {}", output.status))),
    }
}

/// The limits that are tried, each alone.
fn limits() -> [(&'static str, Capability, Resources); 4] {
    [
        (
            "a limit on memory (--memory)",
            Capability::MemoryLimit,
            Resources::new().memory(256 << 20),
        ),
        (
            "a limit on processor time (--cpus)",
            Capability::CpuLimit,
            Resources::new().cpus(1.0),
        ),
        (
            "a limit on processes (--pids)",
            Capability::PidsLimit,
            Resources::new().pids(64),
        ),
        (
            "a limit on what is written (--disk)",
            Capability::DiskLimit,
            Resources::new().disk(64 << 20),
        ),
    ]
}

/// Runs a command in a sandbox with these limits.
async fn limited(provider: &dyn Provider, limits: Resources) -> Result<(), Error> {
    let spec = SandboxSpec::new().resources(limits);
    ran(&*provider.create(spec).await?).await
}

fn text(
    backend: &str,
    findings: &[Finding],
    controls: &[(&'static str, Enforcement)],
    tiers: &[Tier],
) -> String {
    let mut text = format!("{backend}:\n");
    for finding in findings {
        match &finding.said {
            Ok(()) => text += &format!("  ok       {}\n", finding.what),
            Err(error) => {
                text += &format!("  missing  {}\n", finding.what);
                text += &format!("           why: {}\n", why(error));
                if let Some(hint) = error.hint() {
                    text += &format!("           to raise it: {hint}\n");
                }
            }
        }
    }
    if !controls.is_empty() {
        text += "Isolation, probed from inside (limits count only where a sandbox sets one):\n";
    }
    for (control, how) in controls {
        text += &format!("  {control:<14}{how}\n");
    }
    if !tiers.is_empty() {
        text += "Tiers of this host, the strongest first:\n";
    }
    for (uri, what, said) in tiers {
        let found = if said.is_ok() { "works" } else { "not here" };
        text += &format!("  {found:<9}{uri} {what}\n");
        if let Err(error) = said {
            text += &format!("           why: {}\n", why(error));
            if let Some(hint) = error.hint() {
                text += &format!("           to raise it: {hint}\n");
            }
        }
    }
    text
}

/// The message, and what lay beneath.
fn why(error: &Error) -> String {
    let beneath = std::error::Error::source(error);
    match beneath {
        Some(cause) => format!("{} ({cause})", error.message()),
        None => error.message().to_owned(),
    }
}

fn value(
    backend: &str,
    findings: &[Finding],
    controls: &[(&'static str, Enforcement)],
    tiers: &[Tier],
) -> Value {
    let findings: Vec<Value> = findings
        .iter()
        .map(|finding| match &finding.said {
            Ok(()) => json!({ "what": finding.what, "works": true }),
            Err(error) => {
                json!({ "what": finding.what, "works": false, "error": error_value(error) })
            }
        })
        .collect();
    let controls: serde_json::Map<String, Value> = controls
        .iter()
        .map(|(control, how)| ((*control).to_owned(), json!(how)))
        .collect();
    let tiers: Vec<Value> = tiers
        .iter()
        .map(|(uri, what, said)| match said {
            Ok(()) => json!({ "provider": uri, "what": what, "works": true }),
            Err(error) => json!({
                "provider": uri, "what": what, "works": false, "error": error_value(error),
            }),
        })
        .collect();
    json!({ "provider": backend, "findings": findings, "isolation": controls, "tiers": tiers })
}
