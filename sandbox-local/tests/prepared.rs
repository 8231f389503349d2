//! Sandboxes that are prepared ahead of time: used, replaced, bounded, and gone with the provider.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use sandbox_core::{Control, ForkOptions, Provider, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{sh, state, until};

/// The inits that this process has started and that have not ended.
fn inits() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut inits: Vec<i32> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
            line.starts_with(b"sandbox-agent") && fields.nth(2) == Some(own.as_str())
        })
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect();
    inits.sort_unstable();
    inits
}

async fn count(wanted: usize) -> Vec<i32> {
    let what = format!("{wanted} inits");
    until(&what, async || {
        Some(inits()).filter(|inits| inits.len() == wanted)
    })
    .await
}

// One test: the others of a binary run at the same time, and would be counted too.
#[tokio::test]
async fn prepared_sandboxes_serve_are_replaced_and_end_with_the_provider() {
    let state = state();
    let config = LocalConfig::default()
        .with_state_dir(state.path())
        .with_prepared(2);
    let provider = LocalProvider::with_config(config).expect("a provider");
    let prepared = count(2).await;

    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let now = count(3).await;
    let kept = now.iter().filter(|pid| prepared.contains(pid));
    assert_eq!(kept.count(), 2, "a prepared one became the sandbox");
    sh(&sandbox, "echo mine > file").await;

    // A fork takes one as well, and so does its parent when it goes on.
    let fork = sandbox.fork(ForkOptions::default()).await.expect("a fork");
    sh(&fork, "echo other > file").await;
    assert_eq!(sh(&sandbox, "cat file").await, "mine\n");
    assert_eq!(sh(&fork, "cat file").await, "other\n");
    let report = fork.isolation().await.expect("a report");
    for control in [
        Control::Filesystem,
        Control::Processes,
        Control::Network,
        Control::Privileges,
        Control::SystemCalls,
    ] {
        assert!(report.is_enforced(control), "{report:?}");
    }
    fork.close().await.expect("it closes");

    // What was killed from outside is not handed out.
    sandbox.close().await.expect("it closes");
    drop((fork, sandbox));
    for pid in count(2).await {
        let pid = Pid::from_raw(pid).expect("a process");
        kill_process(pid, Signal::KILL).expect("it is there");
    }
    count(0).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sh(&sandbox, "true").await;
    count(3).await;

    // They serve forks until the last sandbox is gone.
    drop(provider);
    sandbox.write("file", "x").await.expect("it writes");
    let fork = sandbox.fork(ForkOptions::default()).await.expect("a fork");
    fork.close().await.expect("it closes");
    sandbox.close().await.expect("it closes");
    drop((fork, sandbox));
    count(0).await;
}
